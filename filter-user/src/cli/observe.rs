//! `nodewall observe`.

use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use clap::{Args, ValueEnum};
use filter_common::verdict::Reason;
use ipnet::IpNet;
use serde_json::json;

use super::args::{DirectionFlag, Global};
use super::ended::{ASKED, Ended};
use super::error::Failure;
use super::output::{count, note, warning};
use super::recording::Recording;
use crate::privileges::{self, Keep};
use crate::telemetry::Wanted;
use crate::telemetry::source::{EventSource, Place};
use crate::telemetry::wanted::{network, protocol, reason};

/// How long a reader waits for more.
const PAUSE: Duration = Duration::from_millis(100);

/// Show dropped packets, and those that rules report
///
/// Dropped packets where `apply --sample-drops N` asked for them, and the packets
/// that Log rules match, as they come. They are a sample: each CPU reports N
/// dropped ones a second, and of the others some thousand, and what is beyond
/// that is counted as lost and shown. Counters (`nodewall stats`) are exact. Without --follow: what
/// is waiting to be read, then the end.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall observe -f
  nodewall observe -f --interface eth0 --src 203.0.113.0/24 --proto tcp
  nodewall observe -f -o jsonl | jq .ip.src
  nodewall observe -f -w drops.pcapng    for tshark, tcpdump, Wireshark
  nodewall observe -f -w - | tshark -r -")]
pub(super) struct Observe {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Interface; may be repeated. Default: all that are filtered
    #[arg(
        long,
        value_name = "IF",
        env = "NODEWALL_INTERFACE",
        value_delimiter = ','
    )]
    interface: Vec<String>,

    /// Only what a rule of this policy reports or dropped
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// Only what the rule with this index reports or dropped
    #[arg(long, value_name = "INDEX")]
    rule: Option<u32>,

    /// Only from this address or network
    #[arg(long, value_name = "CIDR", value_parser = network)]
    src: Option<IpNet>,

    /// Only to this address or network
    #[arg(long, value_name = "CIDR", value_parser = network)]
    dst: Option<IpNet>,

    /// Only this protocol: a name or a number
    #[arg(long, value_name = "PROTO", value_parser = protocol)]
    proto: Option<u8>,

    /// Only with this source or destination port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Only packets with this reason, such as `policy_deny`
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,

    /// Only what went this way
    #[arg(long, value_enum, value_name = "DIRECTION")]
    direction: Option<DirectionFlag>,

    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Write the headers of the packets to this file instead, in pcapng format, each
    /// with its verdict and its rule in a comment; `-` is stdout. What is in the
    /// file goes
    #[arg(short, long, value_name = "FILE", conflicts_with = "output")]
    write: Option<PathBuf>,

    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "compact"
    )]
    output: Format,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line an event, for people
    Compact,
    /// A JSON document an event
    Jsonl,
}

impl Observe {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let place = Place {
            pin_root: &global.pin_root,
            run_dir: &global.run_dir,
        };
        let mut source = EventSource::open(place, &self.wanted(), self.follow)?;
        if !source.has_sources() {
            let what = "nothing in force reports packets: rules with the action Log do, and \
                        `nodewall apply --sample-drops N` reports dropped ones";
            if !self.follow {
                return Err(Failure::failed(what));
            }
            note(global.color, format_args!("{what}; waiting for either"));
        }
        if let Some(path) = &self.write {
            return self.record(path, &mut source, global);
        }
        privileges::give_up_all_but(Keep::Kernel)?;
        // So that what the kernel was asked for is taken back.
        let ended = self.follow.then(|| Ended::by(ASKED)).transpose()?;
        let mut shown = 0;
        loop {
            let batch = source.read()?;
            // Told by the next event that is shown, or in a line of its own.
            let mut lost = batch.lost;
            for event in batch.events {
                match self.output {
                    Format::Compact => writeln!(stdout(), "{}", event.compact())?,
                    Format::Jsonl => {
                        lost = lost.saturating_sub(event.lost);
                        let event = event.without_header();
                        writeln!(stdout(), "{}", serde_json::to_string(&event)?)?;
                    }
                }
                shown += 1;
                if self.count.is_some_and(|most| shown >= most) {
                    return Ok(());
                }
            }
            if lost > 0 {
                self.say_lost(lost, global)?;
            }
            stdout().flush()?;
            let is_ended = ended.as_ref().is_some_and(Ended::is_wanted);
            if is_ended || !self.follow && batch.is_last {
                return Ok(());
            }
            sleep(PAUSE);
        }
    }

    fn record(
        &self,
        path: &Path,
        source: &mut EventSource,
        global: &Global,
    ) -> Result<(), Failure> {
        let mut recording = Recording::open(path, global.color)?;
        privileges::give_up_all_but(Keep::Kernel)?;
        let mut left = self.count.unwrap_or(u64::MAX);
        loop {
            let batch = source.read()?;
            recording.lost(batch.lost);
            for event in batch.events {
                if left > 0 {
                    recording.add(event)?;
                    left -= 1;
                }
            }
            recording.flush()?;
            let is_all = left == 0 || !self.follow && batch.is_last;
            if is_all || recording.is_ended() {
                return recording.end();
            }
            sleep(PAUSE);
        }
    }

    fn say_lost(&self, lost: u64, global: &Global) -> Result<(), Failure> {
        match self.output {
            Format::Jsonl => writeln!(stdout(), "{}", json!({"lost": lost}))?,
            Format::Compact => warning(
                global.color,
                format_args!(
                    "{} not reported: more came than are; the counters have them",
                    count(lost, "packet was", "packets were")
                ),
            ),
        }
        Ok(())
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            interfaces: self.interface.clone(),
            direction: self.direction.map(DirectionFlag::direction),
            policy: self.policy.clone(),
            rule: self.rule,
            src: self.src,
            dst: self.dst,
            proto: self.proto,
            port: self.port,
            reason: self.reason,
        }
    }
}
