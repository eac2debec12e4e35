//! The ruleset: for one endpoint and direction, the ordered flat list of
//! rules that decides every packet.
//!
//! It is what policies come down to and what the compiler, the reference
//! evaluator, `explain` and `get rules` read. Rules are tried from the first to the
//! last; the first match decides; if none matches, [`Ruleset::default`] does.

use std::fmt;
use std::sync::Arc;

use filter_common::verdict::Reason;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which way the packet crosses the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the wire to the host.
    Ingress,
    /// From the host to the wire.
    Egress,
}

/// The stage of the evaluation that a rule belongs to, in evaluation order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Ports that stay open whatever the policies say.
    #[serde(rename = "failsafe")]
    Failsafe,
    /// `doNotTrack` policies.
    #[serde(rename = "untracked")]
    Untracked,
    /// `preDNAT` policies.
    #[serde(rename = "preDNAT")]
    PreDnat,
    /// All other policies.
    #[serde(rename = "normal")]
    Normal,
    /// What happens where no rule decides.
    #[serde(rename = "default")]
    Default,
}

impl Stage {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failsafe => "failsafe",
            Self::Untracked => "untracked",
            Self::PreDnat => "preDNAT",
            Self::Normal => "normal",
            Self::Default => "default",
        }
    }
}

/// What a rule, or the default, does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Drop it.
    Deny,
}

impl Action {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "4")]
    V4,
    /// IPv6.
    #[serde(rename = "6")]
    V6,
}

/// An inclusive range of ports. `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port in the range.
    pub first: u16,
    /// The highest port in the range; it belongs to the range.
    pub last: u16,
}

impl PortRange {
    /// Whether `port` lies in the range, both ends included.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

/// The conditions of a rule: all of them must hold. In a list one member
/// must match; an empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// The IP version. `None` matches both.
    pub family: Option<Family>,
    /// The IP protocol number. `None` matches every protocol.
    pub protocol: Option<u8>,
    /// Source networks, canonical (no host bits). An IPv4-mapped IPv6 address
    /// is an IPv6 address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub src_nets: Vec<IpNet>,
    /// Destination networks, canonical.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst_nets: Vec<IpNet>,
    /// Destination ports. Only with a protocol that has ports: TCP, UDP, SCTP
    /// (and UDP-Lite, where a format allows it).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst_ports: Vec<PortRange>,
}

impl Match {
    /// Whether the rule asks for something that only the L4 header says.
    #[must_use]
    pub fn needs_l4(&self) -> bool {
        !self.dst_ports.is_empty()
    }
}

impl fmt::Display for Match {
    /// In words: `tcp from 192.0.2.0/24 to ports 80, 30000:32767`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(members: &[T]) -> String {
            const SHOWN: usize = 4;
            let mut text: Vec<String> = members.iter().take(SHOWN).map(T::to_string).collect();
            if members.len() > SHOWN {
                text.push(format!("… ({} in all)", members.len()));
            }
            text.join(", ")
        }
        let protocol = match self.protocol {
            None => "everything".to_owned(),
            Some(1) => "icmp".to_owned(),
            Some(6) => "tcp".to_owned(),
            Some(17) => "udp".to_owned(),
            Some(58) => "icmpv6".to_owned(),
            Some(132) => "sctp".to_owned(),
            Some(136) => "udplite".to_owned(),
            Some(number) => format!("protocol {number}"),
        };
        f.write_str(&protocol)?;
        match self.family {
            Some(Family::V4) => f.write_str(" over IPv4")?,
            Some(Family::V6) => f.write_str(" over IPv6")?,
            None => {}
        }
        if !self.src_nets.is_empty() {
            write!(f, " from {}", list(&self.src_nets))?;
        }
        if !self.dst_nets.is_empty() {
            write!(f, " to {}", list(&self.dst_nets))?;
        }
        match self.dst_ports.as_slice() {
            [] => Ok(()),
            [one] if one.first == one.last => write!(f, " to port {one}"),
            ports => write!(f, " to ports {}", list(ports)),
        }
    }
}

/// Who a rule is, stable over changes of other policies: counters carry over
/// by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId {
    /// The stage. A failsafe rule has the policy name `failsafe`.
    pub stage: Stage,
    /// The policy's name.
    pub policy: Arc<str>,
    /// The list in the policy that holds the rule.
    pub direction: Direction,
    /// The index in that list, from 0.
    pub index: u32,
}

/// Where a rule stands in its document.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceLine {
    /// The file, as it was named on the command line.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One rule: if the packet matches, the action is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Who it is.
    pub id: RuleId,
    /// What it does.
    pub action: Action,
    /// When it applies.
    pub matches: Match,
    /// Where it was written. `None` for a failsafe rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLine>,
}

impl Rule {
    /// The reason of the packets that this rule decides.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match (self.action, self.id.stage) {
            (Action::Deny, _) => Reason::PolicyDeny,
            (Action::Allow, Stage::Failsafe) => Reason::Failsafe,
            (Action::Allow, _) => Reason::PolicyAllow,
        }
    }
}

/// What happens to a later fragment when a rule with L4 conditions is the
/// first whose L3 part matches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fragments {
    /// Such a rule can't be decided: the fragment is dropped (`fragment`).
    #[default]
    Drop,
    /// Rules with L4 conditions are passed over: L3-only rules and the
    /// default decide.
    L3Only,
}

/// Pass or drop, for a kind of frame that no rule speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Let such frames pass.
    Pass,
    /// Drop them.
    Drop,
}

/// How packets are treated that rules alone don't decide.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Options {
    /// Later fragments.
    pub fragments: Fragments,
    /// Frames that are not IP and don't wrap IP (reason `not_ip`). ARP passes
    /// as an essential even where this drops.
    pub non_ip: Switch,
    /// IP wrapped in LLC/SNAP, `PPPoE` or MPLS (`encapsulated`; `not_ip` where
    /// this passes).
    pub encapsulated_ip: Switch,
    /// Whether ARP, neighbour discovery, path-MTU ICMP, DHCP, IGMP and MLD
    /// pass under default deny.
    pub essentials: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fragments: Fragments::Drop,
            non_ip: Switch::Pass,
            encapsulated_ip: Switch::Drop,
            essentials: true,
        }
    }
}

/// The ordered rules of one endpoint and direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// The endpoint's name.
    pub endpoint: String,
    /// The direction.
    pub direction: Direction,
    /// The rules, first to last.
    pub rules: Vec<Rule>,
    /// What happens where no rule decides.
    pub default: Action,
    /// What happens where rules don't apply.
    pub options: Options,
}
