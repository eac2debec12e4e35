//! What was measured, as a document with tables and plots, and as it is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::goals;
use crate::plot::{self, Group, Line};

/// What people have written about the goals that are missed: it stands in the
/// document, and is never written over.
const EVIDENCE: &str = "benchmarks/evidence.md";
const RAW: &str = "benchmarks/raw.json";

/// The numbers of the last run.
pub(crate) fn last(out: &Path) -> Result<Value> {
    let path = out.join(RAW);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}: measure first", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// Writes `benchmarks.md`, its plots and the raw numbers below `out`.
pub(crate) fn write(results: &Value, out: &Path) -> Result<()> {
    let plots = out.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let put = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(RAW, format!("{results:#}\n"))?;
    let mut document = Document::default();
    head(&mut document, results);
    reached(&mut document, results, out);
    blocklists(&mut document, results, &put)?;
    rules(&mut document, results);
    acls(&mut document, results, &put)?;
    ladder(&mut document, results);
    sampling(&mut document, results);
    flows(&mut document, results);
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

fn reached(document: &mut Document, results: &Value, out: &Path) {
    let all = goals::of(results);
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|goal| {
            let met = match goal.is_met() {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "–",
            };
            vec![
                goal.what.clone(),
                goal.asked(),
                goal.measured(),
                met.to_owned(),
            ]
        })
        .collect();
    let count = |met: bool| all.iter().filter(|goal| goal.is_met() == Some(met)).count();
    document.say("## What was to be reached");
    document.say(&format!(
        "Of {} goals {} are met in this run, {} are missed, and {} were not measured.",
        all.len(),
        count(true),
        count(false),
        all.iter().filter(|goal| goal.is_met().is_none()).count()
    ));
    document.table(&["goal", "asked", "measured", ""], &rows);

    let missed: Vec<Vec<String>> = all
        .iter()
        .filter(|goal| goal.is_met() == Some(false))
        .filter_map(|goal| {
            let [accesses, touched] = goal.tables?;
            Some(vec![
                goal.what.clone(),
                goal.measured(),
                format!("{accesses:.1}"),
                bytes(&Value::from(touched)),
            ])
        })
        .collect();
    let by_hand = out.join(EVIDENCE);
    let evidence = fs::read_to_string(&by_hand).unwrap_or_default();
    if missed.is_empty() && evidence.is_empty() {
        return;
    }
    document.say("## What stands in the way of the others");
    if !evidence.trim().is_empty() {
        document.say(evidence.trim());
    }
    if !missed.is_empty() {
        document.say(
            "What the packets of each missed goal ask of the tables: accesses a packet makes, most \
             of which wait for the one before, and the bytes of all cache lines that the random \
             packets touch. What is more than a cache holds comes from the next one.",
        );
        document.table(
            &[
                "missed goal",
                "measured",
                "accesses a packet",
                "tables touched",
            ],
            &missed,
        );
    }
}

fn ladder(document: &mut Document, results: &Value) {
    let rows = list(&results["programs"]);
    if rows.is_empty() {
        return;
    }
    document.say("## What a ruleset does not use");
    document.say(
        "… costs nothing: it is switched off by constants when the program is loaded, and the \
         verifier deletes it. Small rulesets, without the ports that stay open by default; \
         instructions that the verifier walked, that are left, and bytes of machine code.",
    );
    let table: Vec<_> = rows
        .iter()
        .map(|row| {
            let measured = &row["measured"];
            if measured.is_null() {
                return failed(row);
            }
            let program = &measured["program"];
            vec![
                text(&row["name"]).to_owned(),
                grouped(&program["verified_instructions"]),
                grouped(&Value::from(
                    program["xlated_bytes"].as_u64().unwrap_or(0) / 8,
                )),
                grouped(&program["jited_bytes"]),
                spread(over(row, "warm")),
                spread(over(row, "random")),
                accesses(measured),
                ns(&measured["load_ms"]),
            ]
        })
        .collect();
    document.table(
        &[
            "ruleset",
            "verified",
            "left",
            "machine code",
            "warm",
            "random",
            "accesses a packet",
            "load ms",
        ],
        &table,
    );
}

fn accesses(measured: &Value) -> String {
    ns(&measured["tables"]["accesses_a_packet"])
}

/// A row of what could not be measured.
fn failed(row: &Value) -> Vec<String> {
    vec![
        text(&row["name"]).to_owned(),
        format!("failed: {}", text(&row["failed"]).replace('|', "/")),
    ]
}

fn rules(document: &mut Document, results: &Value) {
    let rows = list(&results["rules"]);
    if rows.is_empty() {
        return;
    }
    document.say("## Rules, each with a counter of its own");
    document.say(
        "A rule for each network, so each CPU counts packets and bytes of each; and the policy of \
         `examples/deny-kube-node-port-services.yaml`, with the ports that stay open by default.",
    );
    document.table(&HEADS, &rows.iter().map(cells).collect::<Vec<_>>());
}

fn sampling(document: &mut Document, results: &Value) {
    let sampling = &results["sampling"];
    if sampling.is_null() {
        return;
    }
    document.say("## Sampling of drops");
    if let Some(error) = sampling["failed"].as_str() {
        document.say(&format!("Failed: {error}"));
        return;
    }
    document.say(&format!(
        "Ten rules under a flood that they drop, `--sample-drops {}` against the same rules \
         without, in turns of {} packets in all each: {} ns without, {} ns with, **{} ns** more. \
         {} events were read, {} dropped packets were counted as not reported.",
        sampling["a_second"],
        grouped(&sampling["packets"]),
        spread(&sampling["off_ns"]),
        spread(&sampling["on_ns"]),
        spread(&sampling["over_ns"]),
        grouped(&sampling["reported"]),
        grouped(&sampling["lost"]),
    ));
    // An older run has no such numbers.
    if !sampling["over_asked_ns"].is_null() {
        document.say(&format!(
            "With a reader who asks for an address that does not come (`observe -f --src …`): {} \
             ns, **{} ns** more than without sampling; none of it was reported or lost.",
            spread(&sampling["asked_ns"]),
            spread(&sampling["over_asked_ns"]),
        ));
    }
}

fn flows(document: &mut Document, results: &Value) {
    let flows = &results["flows"];
    if flows.is_null() {
        return;
    }
    document.say("## Return traffic");
    if let Some(error) = flows["failed"].as_str() {
        document.say(&format!("Failed: {error}"));
        return;
    }
    document.say(&format!(
        "Ten rules under UDP packets that they drop, in turns of {} packets in all each: {} ns \
         without flows; with them, where the packets are of none of the {} that are known, {} ns, \
         which is **{} ns** more; where each is of one of {} that are known, and so passes, {} ns, \
         which is {} ns more. Packets that the rules let pass by themselves ask no flow.",
        grouped(&flows["packets"]),
        spread(&flows["off_ns"]),
        grouped(&flows["known"]),
        spread(&flows["miss_ns"]),
        spread(&flows["over_miss_ns"]),
        grouped(&flows["answered"]),
        spread(&flows["hit_ns"]),
        spread(&flows["over_hit_ns"]),
    ));
}

const HEADS: [&str; 11] = [
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
    "accesses a packet",
];

/// What was measured of one ruleset.
fn cells(row: &Value) -> Vec<String> {
    let measured = &row["measured"];
    if measured.is_null() {
        return failed(row);
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
        grouped(&measured["program"]["jited_bytes"]),
        accesses(measured),
    ]
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
                    "{} (to 10k)",
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
    let real = list(&results["blocklists"]["real"]);
    let table: Vec<_> = rows.iter().chain(real).map(cells).collect();
    document.table(&HEADS, &table);
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
         (`fw`) and IP chains (`ipc`), as `cargo run -p tests --bin synthetic` prints them; over \
         IPv4 where nothing else is said.",
    );
    let mut groups: Vec<Group> = Vec::new();
    let mut table = Vec::new();
    for row in rows {
        let measured = &row["measured"];
        if measured.is_null() {
            table.push(failed(row));
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
            let missing = list(&row["missing"]).iter().map(text);
            let failed: Vec<_> = row["failed"].as_str().into_iter().chain(missing).collect();
            if !failed.is_empty() {
                cells[0] = format!("{} (failed: {})", cells[0], failed.join("; "));
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
            if let Some(failed) = row["failed"].as_str() {
                table.push(vec![
                    text(&group["rules"]).to_owned(),
                    name.to_owned(),
                    format!("failed: {}", failed.replace('|', "/")),
                    String::new(),
                ]);
                continue;
            }
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
                "all".to_owned(),
                format!("failed: {}", failed.replace('|', "/")),
                String::new(),
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
        if let Some(failed) = row["failed"].as_str() {
            table.push(vec![
                format!("{} bytes, {}", row["bytes"], text(&row["verdict"])),
                format!("failed: {failed}"),
            ]);
            continue;
        }
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
