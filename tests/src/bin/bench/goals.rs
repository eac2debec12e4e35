//! What was to be reached, whether or not this run has measured it.

use serde_json::Value;

/// The best XDP peer's cost times this is what ours may be.
const FIFTH: f64 = 0.2;
const MIB: f64 = 1_048_576.0;

/// A row of the table of goals.
pub(crate) struct Goal {
    pub(crate) what: String,
    asked: Option<f64>,
    measured: Option<f64>,
    unit: &'static str,
    /// More is better.
    at_least: bool,
    /// What is said where nothing was measured.
    missing: &'static str,
    /// Accesses a packet, and bytes of the tables that packets touch.
    pub(crate) tables: Option<[f64; 2]>,
}

impl Goal {
    fn at_most(
        what: impl Into<String>,
        asked: f64,
        measured: Option<f64>,
        unit: &'static str,
    ) -> Self {
        Self {
            what: what.into(),
            asked: Some(asked),
            measured,
            unit,
            at_least: false,
            missing: "not measured",
            tables: None,
        }
    }

    /// `None` where nothing was measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let (asked, measured) = (self.asked?, self.measured?);
        Some(if self.at_least {
            measured >= asked
        } else {
            measured <= asked
        })
    }

    /// What is asked.
    pub(crate) fn asked(&self) -> String {
        let sign = if self.at_least { "≥" } else { "≤" };
        self.asked.map_or_else(
            || "–".to_owned(),
            |asked| format!("{sign} {} {}", figure(asked), self.unit),
        )
    }

    /// What was measured.
    pub(crate) fn measured(&self) -> String {
        self.measured.map_or_else(
            || self.missing.to_owned(),
            |value| format!("{} {}", figure(value), self.unit),
        )
    }
}

/// Three figures, and no more.
fn figure(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The row of a list that has these fields.
fn row<'a>(rows: &'a Value, fields: &[(&str, Value)]) -> &'a Value {
    let is_it = |row: &&Value| fields.iter().all(|(name, value)| row[*name] == *value);
    list(rows).iter().find(is_it).unwrap_or(&Value::Null)
}

/// All of them, in their order.
pub(crate) fn of(results: &Value) -> Vec<Goal> {
    let mut all = packets(results);
    all.extend(times(results));
    all.extend(fifths(results));
    all
}

/// What one ruleset costs: the goals warm and at random.
fn costs(what: &str, rows: &[&Value], asked: [Option<f64>; 2]) -> Vec<Goal> {
    let goal = |(traffic, asked): (&str, Option<f64>)| {
        let of = |row: &&Value| {
            let median = row["measured"][traffic]["over_floor"]["median"].as_f64()?;
            let tables = &row["measured"]["tables"];
            let touched = tables["touched_bytes"].as_f64();
            let accesses = tables["accesses_a_packet"].as_f64();
            Some((median, accesses.zip(touched).map(|(a, b)| [a, b])))
        };
        // The worst of them.
        let worst = rows.iter().filter_map(of);
        let worst = worst.max_by(|a, b| a.0.total_cmp(&b.0));
        let mut goal = Goal::at_most(
            format!("{what}, {traffic}"),
            asked?,
            worst.map(|worst| worst.0),
            "ns",
        );
        goal.tables = worst.and_then(|worst| worst.1);
        Some(goal)
    };
    ["warm", "random"]
        .into_iter()
        .zip(asked)
        .filter_map(goal)
        .collect()
}

fn packets(results: &Value) -> Vec<Goal> {
    let mut all = Vec::new();
    let lists = &results["blocklists"]["random"];
    let small = |row: &&Value| row["size"].as_u64().is_some_and(|size| size <= 1_000);
    let few: Vec<&Value> = list(lists)
        .iter()
        .filter(|row| row["version"] == "IPv4")
        .chain(list(&results["rules"]))
        .filter(small)
        .collect();
    let what = format!(
        "1 to 1,000 rules or networks, one IPv4 address (the worst of {} rulesets)",
        few.len()
    );
    all.extend(costs(&what, &few, [Some(12.0), Some(15.0)]));
    for (version, size, name, warm, random) in [
        ("IPv4", 100_000, "100,000", 15.0, 40.0),
        ("IPv4", 1_000_000, "1,000,000", 15.0, 60.0),
        ("IPv6", 100_000, "100,000", 25.0, 60.0),
        ("IPv6", 1_000_000, "1,000,000", 25.0, 100.0),
    ] {
        let row = row(lists, &[("version", version.into()), ("size", size.into())]);
        let what = format!("{name} {version} networks");
        all.extend(costs(&what, &[row], [Some(warm), Some(random)]));
    }
    for (size, name, random) in [
        (1_000, "1,000", 40.0),
        (10_000, "10,000", 100.0),
        (100_000, "100,000", 250.0),
    ] {
        for flavour in ["acl", "fw", "ipc"] {
            let row = row(
                &results["acls"],
                &[("flavour", flavour.into()), ("size", size.into())],
            );
            let what = format!("{flavour}, {name} five-tuple rules");
            all.extend(costs(&what, &[row], [Some(20.0), Some(random)]));
        }
    }
    all.push(Goal::at_most(
        "default-deny with return traffic, miss in the flow table",
        35.0,
        results["flows"]["over_miss_ns"]["median"].as_f64(),
        "ns",
    ));
    all.push(Goal::at_most(
        "sampling of drops switched on, under flood",
        3.0,
        results["sampling"]["over_ns"]["median"].as_f64(),
        "ns",
    ));
    for verdict in ["dropped", "passed"] {
        let rates = list(&results["live"]["rates"]);
        let ratios = rates
            .iter()
            .filter(|row| row["verdict"] == verdict)
            .filter_map(|row| row["ratio"]["median"].as_f64());
        let worst = ratios.min_by(f64::total_cmp).map(|ratio| ratio * 100.0);
        all.push(Goal {
            at_least: true,
            ..Goal::at_most(
                format!(
                    "live frames, 10 rules, {verdict} (the worst size): rate of the empty program"
                ),
                92.0,
                worst,
                "%",
            )
        });
    }
    all
}

fn times(results: &Value) -> Vec<Goal> {
    let applied = |name: &str| row(&results["apply"], &[("name", name.into())]);
    let ms = |name: &str, field: &str| applied(name)[field].as_f64();
    let mib = |name: &str, field: &str| ms(name, field).map(|bytes| bytes / MIB);
    let mut all = vec![
        Goal::at_most("apply 10 rules", 50.0, ms("10 rules", "first_ms"), "ms"),
        Goal::at_most(
            "apply 10,000 rules of an acl",
            2_000.0,
            ms("acl, 10000 rules", "first_ms"),
            "ms",
        ),
    ];
    for version in ["IPv4", "IPv6"] {
        let name = format!("1000000 {version} networks");
        let what = format!("1,000,000 {version} networks");
        all.extend([
            Goal::at_most(
                format!("apply {what}"),
                1_500.0,
                ms(&name, "first_ms"),
                "ms",
            ),
            Goal::at_most(
                format!("{what}: peak in user space"),
                600.0,
                mib(&name, "peak_bytes"),
                "MiB",
            ),
            Goal::at_most(
                format!("{what}: maps"),
                128.0,
                mib(&name, "maps_bytes"),
                "MiB",
            ),
            Goal::at_most(
                format!("{what}, one of them changed: until it is in force"),
                300.0,
                ms(&name, "change_ms"),
                "ms",
            ),
        ]);
    }
    all
}

/// A fifth of the best XDP peer's cost, at every size.
fn fifths(results: &Value) -> Vec<Goal> {
    let rows = list(&results["side_by_side"]);
    let goal = |row: &Value| {
        let random = |name: &str| row[name]["random"]["over_floor"]["median"].as_f64();
        let peers = ["xdp-filter", "xdp-filter, addresses alone"];
        let best = peers.into_iter().filter_map(random).min_by(f64::total_cmp);
        let what = format!(
            "a fifth of xdp-filter's cost: {} {} sources, random",
            row["size"],
            row["version"].as_str().unwrap_or("")
        );
        Goal {
            asked: best.map(|best| best * FIFTH),
            ..Goal::at_most(what, 0.0, random("nodewall"), "ns")
        }
    };
    rows.iter().map(goal).collect()
}
