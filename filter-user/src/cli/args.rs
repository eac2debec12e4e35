//! Flags that several verbs share.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum, value_parser};
use ipnet::IpNet;

use super::config;
use super::error::Failure;
use super::output::Color;
use crate::datapath::{DEFAULT_MAX_FLOWS, DEFAULT_PIN_ROOT, Datapath};
use crate::privileges::{self, Keep};
use crate::ruleset::{Direction, Essentials, Fragments, Options, Switch};

/// Where a daemon is found unless told otherwise.
const DEFAULT_RUN_DIR: &str = "/run/nodewall";

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
pub(super) struct Global {
    /// Folder in a BPF file system that holds everything nodewall pins
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "NODEWALL_PIN_ROOT",
        default_value = DEFAULT_PIN_ROOT,
        help_heading = "Global options"
    )]
    pub pin_root: PathBuf,

    /// File with flags, as `name: value`: what neither the command line nor the
    /// environment says. Default: /etc/nodewall/nodewall.yaml, if it is there
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = config::ENVIRONMENT,
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,

    /// Folder in which `nodewall run` is found by the other verbs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "NODEWALL_RUN_DIR",
        default_value = DEFAULT_RUN_DIR,
        help_heading = "Global options"
    )]
    pub run_dir: PathBuf,

    /// Colour in messages
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "NODEWALL_COLOR",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub color: Color,
}

impl Global {
    /// The pinned state. From here on the process may do what that takes, and nothing else:
    /// what else it is to read or write has to be open.
    pub(super) fn datapath(&self) -> Result<Datapath, Failure> {
        let datapath = Datapath::open(&self.pin_root)?;
        privileges::give_up_all_but(Keep::Kernel)?;
        Ok(datapath)
    }
}

/// Where policies come from.
#[derive(Args, Clone, Debug)]
pub(super) struct Files {
    /// Policy file or folder, `-` for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    pub filenames: Vec<PathBuf>,

    /// Read the sub-folders of folders as well
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// How warnings are taken.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct WarningFlags {
    /// Treat warnings as errors
    #[arg(long, env = "NODEWALL_DENY_WARNINGS", value_parser = FalseyValueParser::new())]
    pub deny_warnings: bool,
}

/// Which endpoint is meant.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct EndpointFlags {
    /// Interface; stands for a host endpoint where the files hold none.
    /// May be repeated
    #[arg(
        long,
        value_name = "IF",
        env = "NODEWALL_INTERFACE",
        value_delimiter = ','
    )]
    pub interface: Vec<String>,

    /// This host's name in the documents: of the host endpoints in the files
    /// only those of this node are meant
    #[arg(long, value_name = "NAME", env = "NODEWALL_NODE")]
    pub node: Option<String>,

    /// Label of that endpoint, for the policies' selectors; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written KEY=VALUE, as in ibm.role=worker_public".to_owned()),
    }
}

/// What is done where rules alone don't decide.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Packets that rules alone don't decide")]
pub(super) struct OptionFlags {
    /// Ports that stay open whatever the policies say, as Calico writes them
    /// (`tcp:22,udp:10.0.0.0/8:68`), or `none`. Default: Calico's inbound list
    /// and DHCPv6
    #[arg(long, value_name = "LIST", env = "NODEWALL_FAILSAFE_INBOUND")]
    pub failsafe_inbound: Option<String>,

    /// Ports on other hosts that stay reachable, likewise. Default: Calico's
    /// outbound list and DHCPv6
    #[arg(long, value_name = "LIST", env = "NODEWALL_FAILSAFE_OUTBOUND")]
    pub failsafe_outbound: Option<String>,

    /// This node's own addresses; packets to others are forwarded, and only
    /// policies with applyOnForward, preDNAT or doNotTrack apply to those.
    /// `auto`: ask the kernel (`apply`, where the interface forwards); `any`:
    /// none is forwarded
    #[arg(
        long = "node-address",
        value_name = "ADDRESS",
        value_delimiter = ',',
        env = "NODEWALL_NODE_ADDRESS",
        value_parser = node_address
    )]
    pub node_addresses: Vec<NodeAddress>,

    /// Later fragments that a rule with ports could match
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "drop",
        env = "NODEWALL_FRAGMENTS"
    )]
    pub fragments: FragmentsFlag,

    /// Frames that are not IP (ARP passes as long as it is an essential)
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "pass",
        env = "NODEWALL_NON_IP"
    )]
    pub non_ip: SwitchFlag,

    #[arg(
        long,
        help = "IP wrapped in LLC/SNAP, PPPoE or MPLS, where no rule sees it",
        value_name = "WHAT",
        value_enum,
        default_value = "drop",
        env = "NODEWALL_ENCAPSULATED_IP"
    )]
    pub encapsulated_ip: SwitchFlag,

    /// What passes under default deny, each kind with a counter of its own: `all`,
    /// `none`, or some of arp,nd,mld,igmp,pmtu,icmpv6-errors,dhcp,dhcpv6
    #[arg(
        long,
        value_name = "KINDS",
        default_value = "all",
        env = "NODEWALL_ESSENTIALS",
        conflicts_with = "no_essentials"
    )]
    pub essentials: Essentials,

    /// The same as `--essentials none`
    #[arg(long, env = "NODEWALL_NO_ESSENTIALS", value_parser = FalseyValueParser::new())]
    pub no_essentials: bool,

    /// Most memory that the tables and counters of one interface may take
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "512M",
        value_parser = size,
        env = "NODEWALL_MAX_MEMORY"
    )]
    pub max_memory: u64,
}

/// What is remembered of allowed packets.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Return traffic")]
pub(super) struct FlowFlags {
    /// Flows of each direction that are remembered, so that their return traffic
    /// passes; beyond that the ones seen least recently are forgotten. 0: none,
    /// and return traffic needs rules of its own
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_MAX_FLOWS,
        env = "NODEWALL_MAX_FLOWS",
        value_parser = value_parser!(u32).range(..=MOST_FLOWS)
    )]
    pub max_flows: u32,
}

/// Beyond it a table would take more memory than any host should give for it.
const MOST_FLOWS: i64 = 1 << 24;

impl OptionFlags {
    /// As the ruleset knows them.
    #[must_use]
    pub(super) fn options(&self) -> Options {
        Options {
            fragments: match self.fragments {
                FragmentsFlag::Drop => Fragments::Drop,
                FragmentsFlag::L3Only => Fragments::L3Only,
                FragmentsFlag::Track => Fragments::Track,
            },
            non_ip: self.non_ip.switch(),
            encapsulated_ip: self.encapsulated_ip.switch(),
            essentials: if self.no_essentials {
                Essentials::NONE
            } else {
                self.essentials
            },
        }
    }
}

/// `--fragments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FragmentsFlag {
    /// Drop them
    Drop,
    /// Let rules without ports, and the default, decide
    L3Only,
    /// Let those pass whose first fragment did, at most 10 seconds before
    Track,
}

/// Pass or drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SwitchFlag {
    /// Let them pass
    Pass,
    /// Drop them
    Drop,
}

impl SwitchFlag {
    const fn switch(self) -> Switch {
        match self {
            Self::Pass => Switch::Pass,
            Self::Drop => Switch::Drop,
        }
    }
}

/// `--node-address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeAddress {
    /// Ask the kernel.
    Auto,
    /// All of them.
    Any,
    /// This one, or this network.
    Net(IpNet),
}

fn node_address(text: &str) -> Result<NodeAddress, String> {
    match text {
        "auto" => Ok(NodeAddress::Auto),
        "any" => Ok(NodeAddress::Any),
        _ => text
            .parse::<IpAddr>()
            .map(IpNet::from)
            .or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
            .map(NodeAddress::Net)
            .map_err(|_| "write an address, a network, `auto` or `any`".to_owned()),
    }
}

/// `--direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DirectionFlag {
    /// From the wire to the host
    Ingress,
    /// From the host to the wire
    Egress,
}

impl DirectionFlag {
    /// As the ruleset knows it.
    pub(super) const fn direction(self) -> Direction {
        match self {
            Self::Ingress => Direction::Ingress,
            Self::Egress => Direction::Egress,
        }
    }
}

/// `512M`, `1GiB`, `65536`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let scale = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => 0,
    };
    digits
        .parse::<u64>()
        .ok()
        .filter(|_| scale != 0)
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(|| "a size is written like 512M, 1G or 1048576".to_owned())
}

/// Table or JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TableOrJson {
    /// Aligned columns
    #[default]
    Table,
    /// One JSON document
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("7"), Ok(7));
        assert!(size("M").is_err());
        assert!(size("1T").is_err());
        assert!(size("-1").is_err());
        assert!(size("99999999999999999999").is_err());
    }

    #[test]
    fn labels_have_a_key() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert!(label("a").is_err());
        assert!(label("=b").is_err());
    }
}
