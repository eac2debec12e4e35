//! `nodewall flows`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use filter_common::flow::State;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::args::{DirectionFlag, Global, TableOrJson};
use super::error::Failure;
use super::output::{columns, count, grouped};
use crate::datapath::{Datapath, Flow};
use crate::ruleset::protocol_name;
use crate::telemetry::wanted::{network, protocol};

/// Show, count or forget the flows whose return traffic passes
///
/// A flow is remembered where one direction's rules allowed a packet whose answer
/// the other direction's rules would drop. IDLE is the time since its last packet,
/// LEFT how long it is remembered if none comes. Exit code 3 where nothing is
/// attached.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall flows --proto tcp --dst 192.0.2.0/24
  nodewall flows --count --begun ingress
  nodewall flows --flush --src 203.0.113.7
  nodewall flows -o json | jq '.flows[] | select(.state == \"syn_sent\")'")]
pub(super) struct Flows {
    /// This interface alone
    #[arg(long, value_name = "IF")]
    interface: Option<String>,

    /// Flows whose first packet went this way
    #[arg(long, value_enum, value_name = "DIRECTION")]
    begun: Option<DirectionFlag>,

    /// Flows whose first packet came from there
    #[arg(long, value_name = "CIDR", value_parser = network)]
    src: Option<IpNet>,

    /// Flows whose first packet went there
    #[arg(long, value_name = "CIDR", value_parser = network)]
    dst: Option<IpNet>,

    /// Flows of this protocol, by name or number
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    proto: Option<u8>,

    /// Flows with this port on either side
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Flows in this state, such as `established`
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<State>,

    /// Show as well what is over and was not pushed out yet
    #[arg(long)]
    all: bool,

    /// Show only how many there are
    #[arg(long, conflicts_with = "flush")]
    count: bool,

    /// Forget them: their return traffic does not pass any more, until they are
    /// seen again
    #[arg(long)]
    flush: bool,

    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    output: TableOrJson,
}

fn state(text: &str) -> Result<State, String> {
    let known = State::ALL.iter().copied();
    known
        .clone()
        .find(|state| state.name() == text)
        .ok_or_else(|| {
            let names: Vec<&str> = known.map(State::name).collect();
            format!("a flow is in one of {}", names.join(", "))
        })
}

/// The flows of an interface.
struct OfInterface {
    interface: String,
    /// `None` where none are remembered.
    flows: Option<Vec<Flow>>,
}

impl Flows {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let datapath = global.datapath()?;
        let mut interfaces = datapath.interfaces()?;
        if let Some(wanted) = &self.interface {
            interfaces = vec![wanted.clone()];
        }
        if interfaces.is_empty() {
            return Err(Failure::NotAttached(
                "nothing is attached, so no flow is remembered. `nodewall apply -f POLICY \
                 --interface IF` attaches a filter."
                    .to_owned(),
            ));
        }
        if self.flush {
            return self.forget(&datapath, &interfaces);
        }
        let mut all = Vec::new();
        for interface in interfaces {
            let mut flows = datapath.flows(&interface)?;
            if let Some(flows) = &mut flows {
                flows.retain(|flow| self.wants(flow));
            }
            all.push(OfInterface { interface, flows });
        }
        match (self.output, self.count) {
            (TableOrJson::Table, false) => write!(stdout(), "{}", table(&all))?,
            (TableOrJson::Table, true) => write!(stdout(), "{}", counts(&all))?,
            (TableOrJson::Json, count) => writeln!(stdout(), "{:#}", json(&all, count))?,
        }
        Ok(())
    }

    fn forget(&self, datapath: &Datapath, interfaces: &[String]) -> Result<(), Failure> {
        let mut gone = Vec::new();
        for interface in interfaces {
            let forgotten = datapath.forget_flows(interface, |flow| self.wants(flow))?;
            gone.push((interface, forgotten));
        }
        match self.output {
            TableOrJson::Table => {
                for (interface, forgotten) in gone {
                    let flows = count(forgotten, "flow", "flows");
                    writeln!(stdout(), "{interface}: {flows} forgotten")?;
                }
            }
            TableOrJson::Json => {
                let interfaces: Vec<Value> = gone
                    .iter()
                    .map(|(interface, forgotten)| {
                        json!({"interface": interface, "forgotten": forgotten})
                    })
                    .collect();
                let document = json!({"schema": 1, "interfaces": interfaces});
                writeln!(stdout(), "{document:#}")?;
            }
        }
        Ok(())
    }

    fn wants(&self, flow: &Flow) -> bool {
        let within =
            |net: Option<IpNet>, address: IpAddr| net.is_none_or(|net| net.contains(&address));
        (self.all || flow.left.is_some())
            && self
                .begun
                .is_none_or(|begun| begun.direction() == flow.begun)
            && within(self.src, flow.src)
            && within(self.dst, flow.dst)
            && self.proto.is_none_or(|proto| proto == flow.protocol)
            && self.port.is_none_or(|port| flow.numbers.contains(&port))
            && self.state.is_none_or(|state| state == flow.state)
    }
}

fn table(all: &[OfInterface]) -> String {
    let mut text = String::new();
    for (place, of) in all.iter().enumerate() {
        if all.len() > 1 {
            let gap = if place > 0 { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{}:", of.interface);
        }
        let Some(flows) = &of.flows else {
            text += nothing_remembered();
            continue;
        };
        let rows: Vec<Vec<String>> = flows.iter().map(row).collect();
        text += &columns(
            &[
                "BEGUN", "PROTO", "FROM", "TO", "STATE", ">IDLE", ">LEFT", ">FORWARD", ">BACK",
            ],
            &rows,
        );
    }
    text
}

const fn nothing_remembered() -> &'static str {
    "no flow is remembered: no rule drops return traffic, or --max-flows is 0\n"
}

fn row(flow: &Flow) -> Vec<String> {
    let [from, to] = ends(flow);
    vec![
        flow.begun.name().to_owned(),
        protocol_name(flow.protocol).into_owned(),
        from,
        to,
        flow.state.name().to_owned(),
        seconds(flow.idle),
        flow.left.map_or_else(|| "over".to_owned(), seconds),
        grouped(flow.forward),
        grouped(flow.back),
    ]
}

/// Who talks to whom; an identifier stands where a port would.
fn ends(flow: &Flow) -> [String; 2] {
    let at = |address: IpAddr, number: u16| match (address, number) {
        (_, 0) => address.to_string(),
        (IpAddr::V4(_), _) => format!("{address}:{number}"),
        (IpAddr::V6(_), _) => format!("[{address}]:{number}"),
    };
    [at(flow.src, flow.numbers[0]), at(flow.dst, flow.numbers[1])]
}

fn seconds(time: Duration) -> String {
    format!("{} s", grouped(time.as_secs()))
}

fn counts(all: &[OfInterface]) -> String {
    let mut text = String::new();
    for of in all {
        let _ = match &of.flows {
            Some(flows) => {
                let flows = count(flows.len() as u64, "flow", "flows");
                writeln!(text, "{}: {flows}", of.interface)
            }
            None => write!(text, "{}: {}", of.interface, nothing_remembered()),
        };
    }
    text
}

fn json(all: &[OfInterface], count: bool) -> Value {
    if count {
        let interfaces: Vec<Value> = all
            .iter()
            .map(|of| {
                let flows = of.flows.as_ref().map(Vec::len);
                json!({"interface": of.interface, "flows": flows})
            })
            .collect();
        return json!({"schema": 1, "interfaces": interfaces});
    }
    let mut flows = Vec::new();
    for of in all {
        flows.extend(of.flows.iter().flatten().map(|flow| {
            json!({
                "interface": of.interface,
                "begun": flow.begun,
                "proto": protocol_name(flow.protocol),
                "src": flow.src,
                "dst": flow.dst,
                "sport": flow.numbers[0],
                "dport": flow.numbers[1],
                "state": flow.state.name(),
                "age_seconds": flow.age.as_secs(),
                "idle_seconds": flow.idle.as_secs(),
                "left_seconds": flow.left.map(|left| left.as_secs()),
                "forward_packets": flow.forward,
                "back_packets": flow.back,
            })
        }));
    }
    json!({"schema": 1, "flows": flows})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Direction;

    fn flow(src: &str, dst: &str) -> Flow {
        Flow {
            begun: Direction::Egress,
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
            protocol: 6,
            numbers: [40_000, 443],
            state: State::Established,
            forward: 10,
            back: 12_345,
            age: Duration::from_secs(7),
            idle: Duration::from_secs(3),
            left: Some(Duration::from_secs(431_997)),
        }
    }

    #[test]
    fn a_flow_is_a_line() {
        let all = [OfInterface {
            interface: "eth0".to_owned(),
            flows: Some(vec![
                flow("192.0.2.10", "198.51.100.1"),
                flow("2001:db8::10", "2001:db8::1"),
            ]),
        }];
        let text = table(&all);
        assert!(text.contains("192.0.2.10:40000"), "{text}");
        assert!(text.contains("[2001:db8::1]:443"), "{text}");
        assert!(text.contains("431,997 s"), "{text}");
        let document = json(&all, false);
        assert_eq!(document["flows"][0]["state"], "established");
        assert_eq!(document["flows"][1]["back_packets"], 12_345);
        assert_eq!(json(&all, true)["interfaces"][0]["flows"], 2);
    }

    #[test]
    fn states_have_names() {
        assert_eq!(state("syn_sent"), Ok(State::SynSent));
        assert!(state("open").is_err_and(|error| error.contains("established")));
    }
}
