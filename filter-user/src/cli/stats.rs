//! `nodewall stats`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, ValueEnum};
use filter_common::verdict::{Essential, Reason, Verdict};
use serde_json::Value;

use super::args::Global;
use super::error::Failure;
use super::output::{columns, fit, grouped, index_of, terminal_size, time};
use crate::datapath::{Count, Datapath, Stats as Totals};
use crate::ruleset::Rule;
use crate::telemetry::document;

/// Show exact counters per rule, reason and interface
///
/// Every packet is counted once by its rule or, where none decided, by its
/// reason; a reason that rules give is their sum. Totals go on over changes of
/// the policy. Bytes are those of the frame, without FCS.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall stats
  nodewall stats -w                      live, with rates
  nodewall stats -w | jq .               one document a second
  nodewall stats -o json --interface eth0")]
pub(super) struct Stats {
    /// This interface alone
    #[arg(long, value_name = "IF")]
    interface: Option<String>,

    /// Go on, until Ctrl-C: on a terminal one picture that changes, elsewhere
    /// a JSON document at each reading
    #[arg(short, long)]
    watch: bool,

    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "watch")]
    interval: Duration,

    /// Output format [default: table; jsonl where -w doesn't write to a terminal]
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
}

/// An interval as people write it.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    text.strip_suffix('s')
        .unwrap_or(text)
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.1..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "an interval is a number of seconds from 0.1 to 3600".to_owned())
}

/// The totals at one moment.
struct Reading {
    at: Instant,
    totals: Vec<Totals>,
}

impl Reading {
    fn document(&self) -> Value {
        document::value(&document::stats(&self.totals, SystemTime::now()))
    }
}

impl Stats {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = global.datapath()?;
        if self.watch {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::failed(format_args!("cannot start the clock: {error}")))?
                .block_on(self.watch(&datapath))
        } else {
            let reading = self.read(&datapath)?;
            self.print(&reading, None)
        }
    }

    async fn watch(&self, datapath: &Datapath) -> Result<(), Failure> {
        let mut clock = tokio::time::interval(self.interval);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ended = std::pin::pin!(ended());
        let mut before = None;
        loop {
            tokio::select! {
                result = &mut ended => return result,
                _ = clock.tick() => {}
            }
            let reading = self.read(datapath)?;
            self.print(&reading, before.as_ref())?;
            before = Some(reading);
        }
    }

    fn read(&self, datapath: &Datapath) -> Result<Reading, Failure> {
        let totals = datapath.stats(self.interface.as_deref())?;
        if totals.is_empty() {
            return Err(Failure::NotAttached(
                "nothing is attached, so there is nothing to count. `nodewall apply -f POLICY \
                 --interface IF` attaches a filter."
                    .to_owned(),
            ));
        }
        Ok(Reading {
            at: Instant::now(),
            totals,
        })
    }

    fn print(&self, reading: &Reading, before: Option<&Reading>) -> Result<(), Failure> {
        let mut out = stdout().lock();
        let format = self.output.unwrap_or(if self.watch && !out.is_terminal() {
            Format::Jsonl
        } else {
            Format::Table
        });
        match (format, self.watch) {
            (Format::Json, false) => writeln!(out, "{:#}", reading.document())?,
            (Format::Json | Format::Jsonl, _) => writeln!(out, "{}", reading.document())?,
            (Format::Table, watch) => {
                let (width, height) = terminal_size();
                let screen = watch && out.is_terminal();
                let mut text = String::new();
                if watch {
                    text.push_str(&time(SystemTime::now()));
                    text.push_str("  (Ctrl-C ends)\n");
                }
                for totals in &reading.totals {
                    let rates = before.and_then(|before| Rates::between(before, reading, totals));
                    text += &table(totals, watch, rates.as_ref(), width);
                }
                if screen {
                    // Home, and clear what is left of the old picture.
                    write!(out, "\x1b[H\x1b[J{}", picture(&text, width, height))?;
                } else {
                    write!(out, "{text}")?;
                    if watch {
                        writeln!(out)?;
                    }
                }
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// As much of a text as the screen holds, the last line left to the cursor.
/// What is missing is said.
fn picture(text: &str, width: usize, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = height.saturating_sub(1).max(1);
    let mut picture = String::new();
    let shown = if lines.len() <= room {
        lines.len()
    } else {
        room - 1
    };
    for line in &lines[..shown] {
        picture += &fit(line, width);
        picture.push('\n');
    }
    if shown < lines.len() {
        let rest = format!(
            "… {} more lines: a taller terminal, or --interface, shows them",
            lines.len() - shown
        );
        picture += &fit(&rest, width);
        picture.push('\n');
    }
    picture
}

/// Resolves when the user wants an end.
async fn ended() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let failed =
        |error: std::io::Error| Failure::failed(format_args!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(failed),
        _ = terminate.recv() => Ok(()),
    }
}

/// Packets a second since the reading before.
struct Rates<'a> {
    before: &'a Totals,
    seconds: f64,
}

impl<'a> Rates<'a> {
    fn between(before: &'a Reading, now: &Reading, totals: &Totals) -> Option<Self> {
        Some(Self {
            before: before.totals.iter().find(|old| {
                (&old.interface, old.direction) == (&totals.interface, totals.direction)
            })?,
            seconds: now.at.duration_since(before.at).as_secs_f64(),
        })
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rate is shown as a whole number, and is not negative"
    )]
    fn of(&self, now: u64, before: u64) -> u64 {
        (now.saturating_sub(before) as f64 / self.seconds.max(0.001)).round() as u64
    }

    fn verdict(&self, totals: &Totals, verdict: Verdict) -> u64 {
        self.of(
            totals.total(verdict).packets,
            self.before.total(verdict).packets,
        )
    }

    /// `index` is where the rule most probably was, too.
    fn rule(&self, index: usize, rule: &Rule, count: Count) -> u64 {
        let before = self.before;
        let same = before.ruleset.rules.get(index);
        let same = same.filter(|old| old.id == rule.id);
        let old = match same {
            Some(_) => before.of_rules.get(index).copied(),
            None => before
                .rules()
                .find(|(old, _)| old.id == rule.id)
                .map(|(_, old)| old),
        };
        self.of(count.packets, old.map_or(count.packets, |old| old.packets))
    }

    fn essential(&self, kind: Essential, count: Count) -> u64 {
        let mut before = self.before.essentials.iter();
        let before = before.find(|(old, _)| *old == kind);
        self.of(count.packets, before.map_or(0, |(_, count)| count.packets))
    }

    fn reason(&self, reason: Reason, verdict: Verdict, count: Count) -> u64 {
        let before = self
            .before
            .reasons
            .iter()
            .find(|(old, given, _)| (*old, *given) == (reason, verdict));
        self.of(
            count.packets,
            before.map_or(0, |(_, _, count)| count.packets),
        )
    }
}

/// The totals of one interface, `width` columns wide at most. Where they are
/// watched there is a column for rates, empty at first.
fn table(totals: &Totals, watched: bool, rates: Option<&Rates<'_>>, width: usize) -> String {
    // The last column.
    let shown = |columns: usize| if watched { columns } else { columns - 1 };
    let per_second = |rate: Option<u64>| rate.map_or_else(String::new, grouped);
    let mut text = format!("{}, {}:\n", totals.interface, totals.direction.name());
    for (verdict, name) in [(Verdict::Pass, "passed"), (Verdict::Drop, "dropped")] {
        let total = totals.total(verdict);
        let _ = write!(text, "  {name:<8} {} packets", grouped(total.packets));
        if let Some(rates) = rates {
            let _ = write!(text, " ({}/s)", grouped(rates.verdict(totals, verdict)));
        }
        text.push('\n');
    }

    let headings = [
        "  STAGE",
        "POLICY",
        ">RULE",
        "ACTION",
        ">PACKETS",
        ">BYTES",
        ">PACKETS/S",
    ];
    let rows = |name_width: usize| -> Vec<Vec<String>> {
        totals
            .counted_rules()
            .map(|(index, rule, count)| {
                vec![
                    format!("  {}", rule.id.stage.name()),
                    fit(&rule.id.policy, name_width),
                    index_of(rule),
                    if rule.staged {
                        format!("would {}", rule.action.name())
                    } else {
                        rule.action.name().to_owned()
                    },
                    grouped(count.packets),
                    grouped(count.bytes),
                    per_second(rates.map(|rates| rates.rule(index, rule, count))),
                ]
            })
            .collect()
    };
    // Names give way where the whole is too wide.
    let longest = totals
        .counted_rules()
        .map(|(_, rule, _)| rule.id.policy.chars().count())
        .max()
        .unwrap_or(0);
    let headings = &headings[..shown(headings.len())];
    let whole = columns(headings, &rows(longest));
    let widest = whole
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let name_width = longest.saturating_sub(widest.saturating_sub(width)).max(8);
    text += &columns(headings, &rows(name_width));

    let reasons: Vec<Vec<String>> = totals
        .reasons
        .iter()
        .filter(|(_, _, count)| count.packets > 0)
        .flat_map(|(reason, verdict, count)| {
            let row = |name: &str, count: Count, rate: Option<u64>| {
                vec![
                    name.to_owned(),
                    verdict.name().to_owned(),
                    grouped(count.packets),
                    grouped(count.bytes),
                    per_second(rate),
                ]
            };
            let rate = rates.map(|rates| rates.reason(*reason, *verdict, *count));
            let sum = row(&format!("  {}", reason.name()), *count, rate);
            let kinds = totals
                .essentials
                .iter()
                .filter(|(_, count)| count.packets > 0);
            let kinds = kinds
                .filter(|_| *reason == Reason::Essential)
                .map(|(kind, count)| {
                    let rate = rates.map(|rates| rates.essential(*kind, *count));
                    row(&format!("    {}", kind.name()), *count, rate)
                });
            std::iter::once(sum).chain(kinds.collect::<Vec<_>>())
        })
        .collect();
    if !reasons.is_empty() {
        text += &columns(
            &["  REASON", "VERDICT", ">PACKETS", ">BYTES", ">PACKETS/S"][..shown(5)],
            &reasons,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::ruleset::{Action, Direction, Match, Options, RuleId, Ruleset, Stage};

    fn totals(policy: &str, packets: u64) -> Totals {
        let rule = Rule {
            id: RuleId {
                stage: Stage::PreDnat,
                policy: policy.into(),
                direction: Direction::Ingress,
                index: Some(0),
            },
            tier: None,
            action: Action::Deny,
            staged: false,
            matches: vec![Match::default()],
            source: None,
        };
        let count = Count {
            packets,
            bytes: packets * 64,
        };
        Totals {
            interface: "enp216s0f1np1".to_owned(),
            direction: Direction::Ingress,
            ruleset: Arc::new(Ruleset {
                endpoint: "worker".to_owned(),
                direction: Direction::Ingress,
                sets: Vec::new(),
                rules: vec![rule],
                default: Action::Allow,
                options: Options::default(),
            }),
            of_rules: vec![count],
            reasons: vec![
                (Reason::PolicyDeny, Verdict::Drop, count),
                (Reason::DefaultAllow, Verdict::Pass, Count::default()),
            ],
            essentials: Vec::new(),
        }
    }

    #[test]
    fn the_table_fits_80_columns() {
        let at = Instant::now();
        let now = totals(&"a-very-long-policy-name.".repeat(5), 12_345_678_901);
        let before = Reading {
            at,
            totals: vec![totals("x", 0)],
        };
        let after = Reading {
            at: at + Duration::from_secs(1),
            totals: vec![now],
        };
        let rates = Rates::between(&before, &after, &after.totals[0]).unwrap();
        let text = table(&after.totals[0], true, Some(&rates), 80);
        for line in text.lines() {
            assert!(
                line.chars().count() <= 80,
                "{} columns: {line}",
                line.chars().count()
            );
        }
        assert!(text.contains("12,345,678,901"));
    }

    #[test]
    fn rates_are_shown_where_they_are_watched() {
        let once = table(&totals("x", 1), false, None, 80);
        let watched = table(&totals("x", 1), true, None, 80);
        assert!(!once.contains("PACKETS/S"), "{once}");
        assert!(watched.contains("PACKETS/S"), "{watched}");
    }

    #[test]
    fn rates_are_per_second_and_never_negative() {
        let at = Instant::now();
        let before = Reading {
            at,
            totals: vec![totals("x", 100)],
        };
        let after = Reading {
            at: at + Duration::from_secs(2),
            totals: vec![totals("x", 300)],
        };
        let rates = Rates::between(&before, &after, &after.totals[0]).unwrap();
        let (index, rule, count) = after.totals[0].counted_rules().next().unwrap();
        assert_eq!(rates.rule(index, rule, count), 100);
        assert_eq!(rates.verdict(&after.totals[0], Verdict::Drop), 100);
        assert_eq!(rates.of(1, 2), 0);
    }

    #[test]
    fn the_picture_fits_the_screen_and_says_what_is_cut() {
        let text = format!("{}\n", "x".repeat(100)).repeat(30);
        let picture = picture(&text, 80, 24);
        assert_eq!(picture.lines().count(), 23);
        assert!(picture.lines().all(|line| line.chars().count() <= 80));
        assert!(picture.contains("… 8 more lines"), "{picture}");
        assert_eq!(super::picture("a\nb\n", 80, 24), "a\nb\n");
        assert_eq!(
            super::picture("a\nb\nc\n", 80, 1),
            "… 3 more lines: a taller terminal, or --interface, shows them\n"
        );
    }

    #[test]
    fn intervals_are_checked() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.5s"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "NaN", "1e9", "1ss", "s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
