//! What was measured, as a document with tables and plots, and as it is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::plot::{self, Group, Line};

/// The best XDP peer's cost times this is what ours may be.
const FIFTH: f64 = 0.2;
const MIB: f64 = 1_048_576.0;

/// Writes `benchmarks.md`, its plots and the raw numbers below `out`.
pub(crate) fn write(results: &Value, out: &Path) -> Result<()> {
    let plots = out.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let put = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put("benchmarks/raw.json", format!("{results:#}\n"))?;
    let mut document = Document::default();
    head(&mut document, results);
    goals(&mut document, results);
    blocklists(&mut document, results, &put)?;
    acls(&mut document, results, &put)?;
    side_by_side(&mut document, results);
    peers(&mut document, results, &put)?;
    rates(&mut document, results, &put)?;
    applied(&mut document, results);
    put("benchmarks.md", document.0)
}

#[derive(Default)]
struct Document(String);

impl Document {
    fn say(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push_str("\n\n");
    }

    /// Cells of rows; columns behind the first are numbers.
    fn table(&mut self, heads: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        self.0.push_str(&line(
            &heads.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ));
        let rules: Vec<String> = (0..heads.len())
            .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        self.0.push_str(&line(&rules));
        for row in rows {
            self.0.push_str(&line(row));
        }
        self.0.push('\n');
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// `12.3`; a dash where nothing was measured.
fn ns(value: &Value) -> String {
    number(value).map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
}

/// A median with the half of all measurements around it.
fn spread(timing: &Value) -> String {
    match (
        number(&timing["median"]),
        number(&timing["low"]),
        number(&timing["high"]),
    ) {
        (Some(median), Some(low), Some(high)) => format!("{median:.1} ({low:.1}–{high:.1})"),
        _ => "–".to_owned(),
    }
}

fn grouped(value: &Value) -> String {
    let Some(value) = value.as_u64() else {
        return "–".to_owned();
    };
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(value: &Value) -> String {
    match number(value) {
        None => "–".to_owned(),
        Some(value) if value < 1024.0 * 1024.0 => format!("{:.0} KiB", value / 1024.0),
        Some(value) => format!("{:.1} MiB", value / 1024.0 / 1024.0),
    }
}

fn over<'a>(row: &'a Value, traffic: &str) -> &'a Value {
    &row["measured"][traffic]["over_floor"]
}

fn head(document: &mut Document, results: &Value) {
    let machine = &results["machine"];
    let tools: Vec<String> = results["tools"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, version)| format!("{name}: {}", version.as_str().unwrap_or("not installed")))
        .collect();
    document.say("# Benchmarks");
    document.say(
        "Written by `cargo xtask bench`, which measures everything here in one run and needs root; \
         `benchmarks/raw.json` has all numbers. `nodewall bench -f …` measures your own policies \
         on your own machine.",
    );
    document.say(&format!(
        "Measured {} on {} ({} CPUs), Linux {}, {}; nodewall {}, in {} s{}. {}.",
        text(&results["date"]),
        text(&machine["cpu"]),
        machine["cpus"],
        text(&machine["kernel"]),
        text(&machine["arch"]),
        text(&results["version"]),
        results["seconds"],
        if results["quick"] == true {
            ", **in its quick form: too short to be trusted**"
        } else {
            ""
        },
        tools.join("; ")
    ));
    document.say(
        "How to read it. Nanoseconds a packet **over the empty program** (`XDP_DROP` and nothing \
         else) right before it in the same loop, unless said otherwise: medians of interleaved \
         turns, with the half of all turns in brackets. *Warm* is one packet again and again; \
         *random* are up to a million different ones over the whole ruleset, half of them made for \
         its rules. Programs run unchanged behind a shim that writes the next packet's headers \
         (`BPF_PROG_TEST_RUN`); nodewall's counters are compared with the classifier's answers on \
         the host before each measurement, and every peer's own counters must show that it has \
         seen each packet.",
    );
}

/// A row of the table of goals.
struct Goal {
    what: String,
    asked: f64,
    measured: Option<f64>,
    unit: &'static str,
    /// More is better.
    at_least: bool,
}

fn goals(document: &mut Document, results: &Value) {
    let mut all = Vec::new();
    let mut add = |what: String, goal: f64, measured: Option<f64>, unit: &'static str| {
        all.push(Goal {
            what,
            asked: goal,
            measured,
            unit,
            at_least: false,
        });
    };
    for row in list(&results["blocklists"]["random"]) {
        let size = row["size"].as_u64().unwrap_or(0);
        let v6 = row["version"] == "IPv6";
        let (warm, random) = match (v6, size) {
            (false, 0..=1_000) => (12.0, 15.0),
            (false, 100_000) => (15.0, 40.0),
            (false, 1_000_000) => (15.0, 60.0),
            (true, 100_000) => (25.0, 60.0),
            (true, 1_000_000) => (25.0, 100.0),
            _ => continue,
        };
        let name = format!(
            "{} networks, {}",
            grouped(&row["size"]),
            text(&row["version"])
        );
        add(
            format!("{name}, warm"),
            warm,
            number(&over(row, "warm")["median"]),
            "ns",
        );
        add(
            format!("{name}, random"),
            random,
            number(&over(row, "random")["median"]),
            "ns",
        );
        if (v6, size) == (false, 1_000_000) {
            let maps = number(&row["measured"]["memory"]["maps_bytes"]);
            add(
                format!("{name}, maps"),
                128.0,
                maps.map(|maps| maps / MIB),
                "MiB",
            );
        }
    }
    for row in list(&results["acls"]) {
        let random = match (text(&row["flavour"]), row["size"].as_u64()) {
            ("acl", Some(1_000)) => 40.0,
            ("acl", Some(10_000)) => 100.0,
            ("acl", Some(100_000)) => 250.0,
            _ => continue,
        };
        let name = format!("ACL, {} rules", grouped(&row["size"]));
        add(
            format!("{name}, warm"),
            20.0,
            number(&over(row, "warm")["median"]),
            "ns",
        );
        add(
            format!("{name}, random"),
            random,
            number(&over(row, "random")["median"]),
            "ns",
        );
    }
    for row in list(&results["apply"]) {
        let name = text(&row["name"]);
        let goal = match name {
            "10 rules" => 50.0,
            _ if name.starts_with("acl") => 2_000.0,
            _ if name.starts_with("1000000 IPv4") => 1_500.0,
            _ => continue,
        };
        add(
            format!("apply: {name}"),
            goal,
            number(&row["first_ms"]),
            "ms",
        );
        if name.starts_with("1000000") {
            let change = number(&row["change_ms"]);
            add(
                "apply: one network of a million".to_owned(),
                300.0,
                change,
                "ms",
            );
            let peak = number(&row["peak_bytes"]).map(|peak| peak / MIB);
            add(
                format!("apply: {name}, peak in user space"),
                600.0,
                peak,
                "MiB",
            );
        }
    }
    for row in list(&results["side_by_side"]) {
        let peers = ["xdp-filter", "xdp-filter, addresses alone"]
            .iter()
            .filter_map(|peer| number(&row[*peer]["random"]["over_floor"]["median"]));
        let best = peers.fold(f64::INFINITY, f64::min);
        if best.is_finite() {
            let name = format!(
                "a fifth of xdp-filter: {} {} sources, random",
                grouped(&row["size"]),
                text(&row["version"])
            );
            let ours = number(&row["nodewall"]["random"]["over_floor"]["median"]);
            add(name, best * FIFTH, ours, "ns");
        }
    }
    for row in list(&results["live"]["rates"]) {
        all.push(Goal {
            what: format!("live, {} bytes, {}", row["bytes"], text(&row["verdict"])),
            asked: 92.0,
            measured: number(&row["ratio"]["median"]).map(|ratio| ratio * 100.0),
            unit: "%",
            at_least: true,
        });
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|goal| {
            let met = goal.measured.map(|measured| {
                if goal.at_least {
                    measured >= goal.asked
                } else {
                    measured <= goal.asked
                }
            });
            vec![
                goal.what.clone(),
                format!(
                    "{} {:.0} {}",
                    if goal.at_least { "≥" } else { "≤" },
                    goal.asked,
                    goal.unit
                ),
                goal.measured.map_or_else(
                    || "not measured".to_owned(),
                    |value| format!("{value:.1} {}", goal.unit),
                ),
                match met {
                    Some(true) => "met",
                    Some(false) => "**missed**",
                    None => "–",
                }
                .to_owned(),
            ]
        })
        .collect();
    let met = rows.iter().filter(|row| row[3] == "met").count();
    document.say("## What was to be reached");
    document.say(&format!(
        "{met} of {} goals are met in this run.",
        rows.len()
    ));
    document.table(&["goal", "asked", "measured", ""], &rows);
}

type Put<'a> = &'a dyn Fn(&str, String) -> Result<()>;

fn blocklists(document: &mut Document, results: &Value, put: Put<'_>) -> Result<()> {
    let rows = list(&results["blocklists"]["random"]);
    if rows.is_empty() {
        return Ok(());
    }
    document.say("## Blocklists");
    document.say(
        "One rule that denies sources in a set of random networks, of lengths as published lists \
         have them; and a rule a country over the real networks of Debian's `tor-geoipdb`, every \
         other country denied.",
    );
    let mut lines = Vec::new();
    for (color, version) in [(0, "IPv4"), (3, "IPv6")] {
        for (traffic, dashed_goal) in [("random", true), ("warm", false)] {
            let points: Vec<(f64, f64)> = rows
                .iter()
                .filter(|row| row["version"] == version)
                .filter_map(|row| {
                    Some((
                        number(&row["size"])?,
                        number(&over(row, traffic)["median"])?,
                    ))
                })
                .collect();
            if !points.is_empty() {
                lines.push(Line {
                    name: format!("nodewall {version}, {traffic}"),
                    color,
                    dashed: !dashed_goal,
                    points,
                });
            }
        }
    }
    for (color, peer) in [(1, "xdp-filter"), (2, "xdp-filter, addresses alone")] {
        let points: Vec<(f64, f64)> = list(&results["side_by_side"])
            .iter()
            .filter(|row| row["version"] == "IPv4")
            .filter_map(|row| {
                let cost = number(&row[peer]["random"]["over_floor"]["median"])?;
                Some((number(&row["size"])?, cost))
            })
            .collect();
        if !points.is_empty() {
            lines.push(Line {
                name: format!(
                    "{} (10k at most)",
                    peer.replace(", addresses alone", ", IP alone")
                ),
                color,
                dashed: false,
                points,
            });
        }
    }
    put(
        "benchmarks/blocklists.svg",
        plot::lines(
            "Blocklists: what a packet costs",
            "networks (xdp-filter: single addresses)",
            "ns a packet over the empty program; dashed: warm",
            &lines,
        ),
    )?;
    document.say("![ns a packet over the number of networks](benchmarks/blocklists.svg)");
    let cells = |row: &Value| {
        let measured = &row["measured"];
        if measured.is_null() {
            return vec![
                text(&row["name"]).to_owned(),
                format!("failed: {}", text(&row["failed"])),
            ];
        }
        vec![
            text(&row["name"]).to_owned(),
            spread(over(row, "warm")),
            spread(over(row, "random")),
            ns(&measured["warm"]["floor"]["median"]),
            bytes(&measured["memory"]["maps_bytes"]),
            ns(&measured["compile_ms"]),
            ns(&measured["load_ms"]),
            spread(&measured["swap_ms"]),
            grouped(&measured["program"]["verified_instructions"]),
            number(&measured["program"]["jited_bytes"])
                .map_or_else(String::new, |bytes| format!("{bytes:.0}")),
        ]
    };
    let heads = [
        "ruleset",
        "warm",
        "random",
        "floor",
        "maps",
        "compile ms",
        "load ms",
        "swap ms",
        "verified instructions",
        "machine code, bytes",
    ];
    let real = list(&results["blocklists"]["real"]);
    let table: Vec<_> = rows.iter().chain(real).map(cells).collect();
    document.table(&heads, &table);
    Ok(())
}

fn acls(document: &mut Document, results: &Value, put: Put<'_>) -> Result<()> {
    let rows = list(&results["acls"]);
    if rows.is_empty() {
        return Ok(());
    }
    document.say("## Five-tuple rules");
    document.say(
        "Synthetic rulesets with the structure of ClassBench's access lists (`acl`), firewalls \
         (`fw`) and IP chains (`ipc`), as `cargo run -p tests --bin synthetic` prints them.",
    );
    let mut groups: Vec<Group> = Vec::new();
    let mut table = Vec::new();
    for row in rows {
        let measured = &row["measured"];
        if measured.is_null() {
            table.push(vec![
                text(&row["name"]).to_owned(),
                format!("failed: {}", text(&row["failed"])),
            ]);
            continue;
        }
        table.push(vec![
            text(&row["name"]).to_owned(),
            spread(over(row, "warm")),
            spread(over(row, "random")),
            combination(measured),
            bytes(&measured["memory"]["maps_bytes"]),
            ns(&measured["compile_ms"]),
            ns(&measured["load_ms"]),
            grouped(&measured["program"]["verified_instructions"]),
        ]);
        let bar = |traffic: &str, color: usize| {
            let value = number(&over(row, traffic)["median"]).unwrap_or(0.0);
            (traffic.to_owned(), color, value, format!("{value:.1} ns"))
        };
        groups.push(Group {
            name: format!("{} rules, {}", grouped(&row["size"]), text(&row["flavour"])),
            bars: vec![bar("random", 0), bar("warm", 3)],
        });
    }
    if !groups.is_empty() {
        put(
            "benchmarks/acls.svg",
            plot::bars(
                "Five-tuple rules: what a packet costs",
                "ns a packet over the empty program",
                &groups,
                false,
            ),
        )?;
        document.say("![ns a packet of each ruleset](benchmarks/acls.svg)");
    }
    document.table(
        &[
            "ruleset",
            "warm",
            "random",
            "combination",
            "maps",
            "compile ms",
            "load ms",
            "verified instructions",
        ],
        &table,
    );
    Ok(())
}

fn combination(measured: &Value) -> String {
    match &measured["combination"] {
        Value::String(name) => name.clone(),
        Value::Object(fields) => fields
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or("–")
            .to_owned(),
        _ => "–".to_owned(),
    }
}

fn side_by_side(document: &mut Document, results: &Value) {
    let rows = list(&results["side_by_side"]);
    if rows.is_empty() {
        return;
    }
    document.say("## Beside xdp-filter");
    document.say(
        "Debian's xdp-filter, its own object, with one address out of each network in its map \
         (it knows no networks, and 10,000 addresses at most); nodewall has the networks. The \
         same frames, half of them blocked, and the same number dropped by each. With all its \
         features, and with IP addresses alone. Warm / random.",
    );
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![format!(
                "{} {}",
                text(&row["version"]),
                grouped(&row["size"])
            )];
            for name in ["nodewall", "xdp-filter", "xdp-filter, addresses alone"] {
                let of = |traffic: &str| ns(&row[name][traffic]["over_floor"]["median"]);
                cells.push(format!("{} / {}", of("warm"), of("random")));
            }
            if !row["failed"].is_null() {
                cells.push(format!("failed: {}", text(&row["failed"])));
            }
            cells
        })
        .collect();
    document.table(
        &[
            "sources",
            "nodewall",
            "xdp-filter",
            "xdp-filter, addresses alone",
        ],
        &table,
    );
}

fn peers(document: &mut Document, results: &Value, put: Put<'_>) -> Result<()> {
    let groups = list(&results["live"]["peers"]);
    if groups.is_empty() {
        return Ok(());
    }
    document.say("## Beside nftables, iptables and ipset");
    document.say(
        "Live frames over a veth pair each, in turns: time of the CPU a packet, **all of it**: \
         sending, the pair and the filter. nftables filters at the netdev ingress hook, iptables \
         in `raw` `PREROUTING`: the first place that each has. The same rules for each, half of \
         the frames made for them, and a last rule that drops the others, so that none goes on \
         into the stack. *nftables, drop everything* has that last rule alone: what it takes to \
         come to a filter of the stack at all.",
    );
    let mut plotted = Vec::new();
    let mut table = Vec::new();
    for group in groups {
        let mut bars = Vec::new();
        for row in list(&group["rows"]) {
            let name = text(&row["name"]);
            let total = &row["total_ns"];
            table.push(vec![
                text(&group["rules"]).to_owned(),
                name.to_owned(),
                spread(total),
                spread(&row["over_empty_ns"]),
            ]);
            let color = match name {
                "nodewall" => 0,
                "empty XDP program" => 4,
                "nftables" => 1,
                "nftables, drop everything" => 5,
                _ => 2,
            };
            if let Some(median) = number(&total["median"]) {
                bars.push((name.to_owned(), color, median, format!("{median:.0} ns")));
            }
        }
        if let Some(failed) = group["failed"].as_str() {
            table.push(vec![
                text(&group["rules"]).to_owned(),
                format!("failed: {failed}"),
            ]);
        }
        if !bars.is_empty() {
            plotted.push(Group {
                name: text(&group["rules"]).to_owned(),
                bars,
            });
        }
    }
    put(
        "benchmarks/peers.svg",
        plot::bars(
            "Filters in the same loop of live frames",
            "ns a packet, sending and receiving included; logarithmic",
            &plotted,
            true,
        ),
    )?;
    document.say("![ns a packet of each filter](benchmarks/peers.svg)");
    let mut text = String::from(
        "| rules | filter | ns a packet | over the empty program |\n|---|---|---:|---:|\n",
    );
    for row in table {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    document.say(text.trim_end());
    Ok(())
}

fn rates(document: &mut Document, results: &Value, put: Put<'_>) -> Result<()> {
    let rows = list(&results["live"]["rates"]);
    if rows.is_empty() {
        return Ok(());
    }
    document.say("## Live rate");
    document.say(
        "Ten rules, the last of which decides every frame, on a veth pair in native mode; one CPU \
         sends and receives. Beside it, in turns, the empty program, which drops or passes \
         everything. Frames without their FCS; millions a second.",
    );
    let mut groups: Vec<Group> = Vec::new();
    let mut table = Vec::new();
    for row in rows {
        let million = |timing: &Value| number(&timing["median"]).unwrap_or(0.0) / 1e6;
        let (empty, ours) = (million(&row["empty_pps"]), million(&row["nodewall_pps"]));
        let percent = |value: &Value| number(value).unwrap_or(0.0) * 100.0;
        let ratio = &row["ratio"];
        table.push(vec![
            format!("{} bytes, {}", row["bytes"], text(&row["verdict"])),
            format!("{empty:.2}"),
            format!("{ours:.2}"),
            format!(
                "{:.1} % ({:.1}–{:.1})",
                percent(&ratio["median"]),
                percent(&ratio["low"]),
                percent(&ratio["high"])
            ),
        ]);
        groups.push(Group {
            name: format!("{} bytes, {}", row["bytes"], text(&row["verdict"])),
            bars: vec![
                (
                    "nodewall, 10 rules".to_owned(),
                    0,
                    ours,
                    format!("{ours:.2} M/s"),
                ),
                (
                    "empty XDP program".to_owned(),
                    4,
                    empty,
                    format!("{empty:.2} M/s"),
                ),
            ],
        });
    }
    put(
        "benchmarks/rates.svg",
        plot::bars(
            "Live frames over veth",
            "millions a second, one CPU sending and receiving",
            &groups,
            false,
        ),
    )?;
    document.say("![frames a second](benchmarks/rates.svg)");
    document.table(
        &["frames", "empty", "nodewall", "of the empty program's"],
        &table,
    );
    Ok(())
}

fn applied(document: &mut Document, results: &Value) {
    let rows = list(&results["apply"]);
    if rows.is_empty() {
        return;
    }
    document.say("## From the files to a policy in force");
    document.say(
        "`nodewall apply` as a user runs it, the process from its start to its end: for the first \
         time, and in place of another policy (of a list: one network of all is another).",
    );
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            if let Some(failed) = row["failed"].as_str() {
                return vec![text(&row["name"]).to_owned(), format!("failed: {failed}")];
            }
            vec![
                text(&row["name"]).to_owned(),
                ns(&row["first_ms"]),
                ns(&row["change_ms"]),
                bytes(&row["peak_bytes"]),
                bytes(&row["maps_bytes"]),
            ]
        })
        .collect();
    document.table(
        &[
            "policy",
            "first ms",
            "change ms",
            "peak in user space",
            "maps",
        ],
        &table,
    );
}
