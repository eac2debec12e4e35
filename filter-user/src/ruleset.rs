//! The ruleset: for one endpoint and direction, the ordered flat list of
//! rules that decides every packet.
//!
//! It is what policies come down to and what the compiler, the reference
//! evaluator, `explain` and `get rules` read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use filter_common::verdict::{Essential, Reason};
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

impl Direction {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
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
    /// Report it, and go on with the next rule.
    Log,
    /// Go on behind the rule's tier.
    Pass,
}

impl Action {
    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Log => "log",
            Self::Pass => "pass",
        }
    }

    /// Whether it decides: it is not followed by another rule.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Allow | Self::Deny)
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

/// An ICMP type, with or without a code. Code 0 is a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Icmp {
    /// The type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// The code; `None` matches every code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => write!(f, "type {}", self.kind),
            Some(code) => write!(f, "type {} code {code}", self.kind),
        }
    }
}

/// What is asked of an address: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// It lies in one of these networks, canonical (no host bits). Empty: no
    /// condition. An IPv4-mapped IPv6 address is an IPv6 address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<IpNet>,
    /// It lies in none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_nets: Vec<IpNet>,
    /// It lies in every one of these sets, by their index in
    /// [`Ruleset::sets`]. A set without networks contains no address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<u32>,
    /// It lies in none of these sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_sets: Vec<u32>,
}

impl Addresses {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.nets.is_empty()
            && self.not_nets.is_empty()
            && self.sets.is_empty()
            && self.not_sets.is_empty()
    }
}

impl From<Vec<IpNet>> for Addresses {
    /// In one of these networks; anywhere, if there are none.
    fn from(nets: Vec<IpNet>) -> Self {
        Self {
            nets,
            ..Self::default()
        }
    }
}

/// The conditions of a rule, or one alternative of them: all of them must
/// hold. In a list one member must match; an empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// The IP version. `None` matches both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The IP protocol number. `None` matches every protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Any protocol but this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<u8>,
    /// The ICMP type and code. Only with the protocol ICMP or `ICMPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// Any ICMP type and code but these. Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<Icmp>,
    /// The source address.
    #[serde(default, skip_serializing_if = "Addresses::is_any")]
    pub src: Addresses,
    /// The destination address.
    #[serde(default, skip_serializing_if = "Addresses::is_any")]
    pub dst: Addresses,
    /// Source ports. All four only with a protocol that has ports: TCP, UDP,
    /// SCTP (and UDP-Lite, where a format allows it).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub src_ports: Vec<PortRange>,
    /// Not these source ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_src_ports: Vec<PortRange>,
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst_ports: Vec<PortRange>,
    /// Not these destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_dst_ports: Vec<PortRange>,
}

impl Match {
    /// Whether the rule asks for something that only the L4 header says.
    #[must_use]
    pub fn needs_l4(&self) -> bool {
        self.icmp.is_some()
            || self.not_icmp.is_some()
            || [
                &self.src_ports,
                &self.not_src_ports,
                &self.dst_ports,
                &self.not_dst_ports,
            ]
            .iter()
            .any(|ports| !ports.is_empty())
    }
}

/// The name of a protocol, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        other => return Cow::Owned(format!("protocol {other}")),
    })
}

/// The number of a protocol that is written as [`protocol_name`] does, or as a number.
#[must_use]
pub fn protocol_number(text: &str) -> Option<u8> {
    let number = text.strip_prefix("protocol ").unwrap_or(text).parse();
    number
        .ok()
        .or_else(|| (0..=u8::MAX).find(|number| protocol_name(*number).eq_ignore_ascii_case(text)))
}

/// Members that are shown of a list.
const SHOWN: usize = 4;

fn list<T: fmt::Display>(members: &[T]) -> String {
    let mut text: Vec<String> = members.iter().take(SHOWN).map(T::to_string).collect();
    if members.len() > SHOWN {
        text.push(format!("… ({} in all)", members.len()));
    }
    text.join(", ")
}

/// A condition in words: `tcp from 192.0.2.0/24 to ports 80, 30000:32767`.
struct InWords<'a> {
    condition: &'a Match,
    sets: &'a [NetSet],
}

impl InWords<'_> {
    fn addresses(
        &self,
        f: &mut fmt::Formatter<'_>,
        preposition: &str,
        asked: &Addresses,
    ) -> fmt::Result {
        let name = |set: &u32| match self.sets.get(*set as usize) {
            Some(set) => set.name.clone(),
            None => format!("set {set}"),
        };
        let names = |sets: &[u32], joint: &str| {
            let names: Vec<_> = sets.iter().map(name).collect();
            names.join(joint)
        };
        if asked.is_any() {
            return Ok(());
        }
        write!(f, " {preposition}")?;
        match (asked.nets.as_slice(), asked.sets.as_slice()) {
            ([], []) => f.write_str(" anywhere")?,
            (nets, []) => write!(f, " {}", list(nets))?,
            ([], sets) => write!(f, " {}", names(sets, " and "))?,
            (nets, sets) => write!(f, " {} within {}", list(nets), names(sets, " and "))?,
        }
        if !asked.not_nets.is_empty() {
            write!(f, " except {}", list(&asked.not_nets))?;
        }
        if !asked.not_sets.is_empty() {
            write!(f, " except {}", names(&asked.not_sets, " or "))?;
        }
        Ok(())
    }
}

fn ports(
    f: &mut fmt::Formatter<'_>,
    preposition: &str,
    ports: &[PortRange],
    not: &[PortRange],
) -> fmt::Result {
    match ports {
        [] => {}
        [one] if one.first == one.last => write!(f, " {preposition} port {one}")?,
        ports => write!(f, " {preposition} ports {}", list(ports))?,
    }
    match (ports, not) {
        (_, []) => Ok(()),
        ([], not) => write!(f, " {preposition} all ports but {}", list(not)),
        (_, not) => write!(f, " but {}", list(not)),
    }
}

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.condition;
        match (asked.protocol, asked.not_protocol) {
            (None, None) => f.write_str("everything")?,
            (None, Some(not)) => write!(f, "everything but {}", protocol_name(not))?,
            (Some(protocol), None) => f.write_str(&protocol_name(protocol))?,
            (Some(protocol), Some(not)) => {
                write!(
                    f,
                    "{} but not {}",
                    protocol_name(protocol),
                    protocol_name(not)
                )?;
            }
        }
        if let Some(icmp) = asked.icmp {
            write!(f, " {icmp}")?;
        }
        if let Some(icmp) = asked.not_icmp {
            write!(f, " but {icmp}")?;
        }
        match asked.family {
            Some(Family::V4) => f.write_str(" over IPv4")?,
            Some(Family::V6) => f.write_str(" over IPv6")?,
            None => {}
        }
        self.addresses(f, "from", &asked.src)?;
        ports(f, "from", &asked.src_ports, &asked.not_src_ports)?;
        self.addresses(f, "to", &asked.dst)?;
        ports(f, "to", &asked.dst_ports, &asked.not_dst_ports)
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
    /// The index in that list, from 0. `None` for what happens at the end of
    /// a tier or of the profiles.
    pub index: Option<u32>,
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

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Who it is.
    pub id: RuleId,
    /// The tier it belongs to: a Pass goes on with the first later rule of
    /// another stage or tier. `None` for failsafe rules and profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
    /// Whether it is only counted, and enforced by nobody.
    #[serde(default, skip_serializing_if = "is_false")]
    pub staged: bool,
    /// When it applies: one of these must match. Without any it never does.
    pub matches: Vec<Match>,
    /// Where it was written. `None` for what no document says: a failsafe
    /// rule, the end of a tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLine>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Rule {
    /// The reason of the packets that this rule decides; `None` if it decides
    /// none, as it is staged, logs or passes: it is then counted beside the
    /// verdict.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        if self.staged || !self.action.is_final() {
            return None;
        }
        Some(match (self.action, self.id.stage, self.id.index) {
            (Action::Deny, _, None) => Reason::DefaultDeny,
            (Action::Deny, _, Some(_)) => Reason::PolicyDeny,
            (_, Stage::Failsafe, _) => Reason::Failsafe,
            (_, _, None) => Reason::DefaultAllow,
            (_, _, Some(_)) => Reason::PolicyAllow,
        })
    }

    /// Whether it is no rule of a document, but what happens where a tier, or
    /// the profiles, end.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.id.index.is_none()
    }

    /// Whether flows are asked about the packets that it drops, and those that it
    /// lets pass may begin one.
    #[must_use]
    pub const fn is_stateful(&self) -> bool {
        !matches!(self.id.stage, Stage::Untracked)
    }

    /// Whether a Pass of this rule goes beyond `other`.
    #[must_use]
    pub fn same_tier(&self, other: &Self) -> bool {
        self.id.stage == other.id.stage && self.tier == other.tier
    }
}

/// A set of networks that rules refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSet {
    /// What it is: `selector role == 'blocked'`, `this node's addresses`.
    pub name: String,
    /// Its networks, canonical. There may be a million of them, which all that
    /// have them share.
    pub nets: Arc<Vec<IpNet>>,
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
    /// As [`Self::Drop`], but a later fragment passes where the first one of its
    /// datagram did shortly before.
    Track,
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

/// The essentials profile: kinds of packets that pass under default deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Essentials(u8);

impl Essentials {
    /// Every kind.
    pub const ALL: Self = Self(u8::MAX);
    /// No kind.
    pub const NONE: Self = Self(0);

    /// Whether packets of this kind pass.
    #[must_use]
    pub const fn has(self, kind: Essential) -> bool {
        self.0 >> kind as u8 & 1 != 0
    }

    /// The same, and this kind.
    #[must_use]
    pub const fn with(self, kind: Essential) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// The kinds.
    pub fn kinds(self) -> impl Iterator<Item = Essential> {
        let all = Essential::ALL.iter().copied();
        all.filter(move |kind| self.has(*kind))
    }
}

impl fmt::Display for Essentials {
    /// As the flag takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            Self::NONE => f.write_str("none"),
            some => {
                let names: Vec<&str> = some.kinds().map(Essential::name).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for Essentials {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::ALL),
            "none" => Ok(Self::NONE),
            _ => text
                .split(',')
                .map(str::trim)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .try_into(),
        }
    }
}

impl TryFrom<Vec<String>> for Essentials {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        names.iter().try_fold(Self::NONE, |kinds, name| {
            let known = Essential::ALL.iter();
            if let Some(kind) = known.clone().find(|kind| kind.name() == name) {
                return Ok(kinds.with(*kind));
            }
            let names: Vec<&str> = known.map(|kind| kind.name()).collect();
            Err(format!(
                "`{name}` is no kind of essentials: write `all`, `none`, or some of {}",
                names.join(",")
            ))
        })
    }
}

impl From<Essentials> for Vec<String> {
    fn from(kinds: Essentials) -> Self {
        kinds.kinds().map(|kind| kind.name().to_owned()).collect()
    }
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
    /// What passes under default deny: ARP, neighbour discovery, path-MTU ICMP, DHCP,
    /// IGMP, MLD, or some of these.
    pub essentials: Essentials,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fragments: Fragments::Drop,
            non_ip: Switch::Pass,
            encapsulated_ip: Switch::Drop,
            essentials: Essentials::ALL,
        }
    }
}

/// The ordered rules of one endpoint and direction.
///
/// A packet meets them from the first to the last, but for the staged ones. A
/// rule that matches and allows or denies decides; one that logs is noted, and
/// the next one follows; one that passes is noted, and the first later rule of
/// another stage or tier follows. Where none decides, [`Self::default`] does.
/// Staged rules are met on a second walk, that enforces nothing: it takes them
/// like the others, notes those that match, and ends where one of them, or
/// a rule that is enforced, decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// The endpoint's name.
    pub endpoint: String,
    /// The direction.
    pub direction: Direction,
    /// The sets that rules refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<NetSet>,
    /// The rules, first to last.
    pub rules: Vec<Rule>,
    /// What happens where no rule decides: allow or deny.
    pub default: Action,
    /// What happens where rules don't apply.
    pub options: Options,
}

impl Ruleset {
    /// Whether packets are denied because nothing allows them: then the
    /// essentials pass all the same.
    #[must_use]
    pub fn denies_by_default(&self) -> bool {
        self.default == Action::Deny
            || self
                .rules
                .iter()
                .any(|rule| rule.is_default() && rule.action == Action::Deny && !rule.staged)
    }

    /// Whether it drops packets that may be return traffic.
    #[must_use]
    pub fn denies_statefully(&self) -> bool {
        let denies =
            |rule: &Rule| rule.action == Action::Deny && !rule.staged && rule.is_stateful();
        self.default == Action::Deny || self.rules.iter().any(denies)
    }

    /// Whether each set that a rule asks for is there, as it is in all rulesets that are
    /// selected; one that is read may be damaged.
    #[must_use]
    pub(crate) fn has_the_sets_of_its_rules(&self) -> bool {
        let matches = self.rules.iter().flat_map(|rule| &rule.matches);
        matches
            .flat_map(|asked| [&asked.src, &asked.dst])
            .flat_map(|addresses| addresses.sets.iter().chain(&addresses.not_sets))
            .all(|set| (*set as usize) < self.sets.len())
    }

    /// When a rule applies, in words: `tcp from 192.0.2.0/24 to port 80`.
    #[must_use]
    pub fn words(&self, rule: &Rule) -> String {
        let mut words: Vec<String> = rule
            .matches
            .iter()
            .take(SHOWN)
            .map(|condition| {
                InWords {
                    condition,
                    sets: &self.sets,
                }
                .to_string()
            })
            .collect();
        if rule.matches.is_empty() {
            return "nothing".to_owned();
        }
        if rule.matches.len() > SHOWN {
            words.push(format!("… ({} alternatives in all)", rule.matches.len()));
        }
        words.join(", or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(matches: Vec<Match>) -> Ruleset {
        let rule = Rule {
            id: RuleId {
                stage: Stage::Normal,
                policy: "p".into(),
                direction: Direction::Ingress,
                index: Some(0),
            },
            tier: None,
            action: Action::Allow,
            staged: false,
            matches,
            source: None,
        };
        Ruleset {
            endpoint: String::new(),
            direction: Direction::Ingress,
            sets: vec![NetSet {
                name: "selector a == 'b'".into(),
                nets: Arc::default(),
            }],
            rules: vec![rule],
            default: Action::Deny,
            options: Options::default(),
        }
    }

    #[test]
    fn essentials_are_written_as_they_are_read() {
        for text in ["all", "none", "arp,nd", "dhcpv6"] {
            let kinds: Essentials = text.parse().expect("kinds");
            assert_eq!(kinds.to_string(), text);
            let json = serde_json::to_string(&kinds).expect("JSON");
            assert_eq!(
                serde_json::from_str::<Essentials>(&json).expect("back"),
                kinds
            );
        }
        let every: Vec<&str> = Essential::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(every.join(",").parse(), Ok(Essentials::ALL));
        assert!(
            "arp,ntp"
                .parse::<Essentials>()
                .is_err_and(|error| error.contains("`ntp`"))
        );
    }

    #[test]
    fn rules_in_words() {
        let range = |first, last| vec![PortRange { first, last }];
        let nets = |text: &str| vec![text.parse().expect("a network")];
        for (matches, words) in [
            (vec![], "nothing"),
            (vec![Match::default()], "everything"),
            (
                vec![
                    Match {
                        protocol: Some(6),
                        src: Addresses {
                            nets: nets("10.0.0.0/8"),
                            not_nets: nets("10.1.0.0/16"),
                            sets: vec![0],
                            not_sets: Vec::new(),
                        },
                        src_ports: range(1, 9),
                        not_dst_ports: range(80, 80),
                        ..Match::default()
                    },
                    Match {
                        family: Some(Family::V6),
                        protocol: Some(58),
                        icmp: Some(Icmp {
                            kind: 128,
                            code: Some(0),
                        }),
                        dst: Addresses {
                            not_sets: vec![0],
                            ..Addresses::default()
                        },
                        ..Match::default()
                    },
                ],
                "tcp from 10.0.0.0/8 within selector a == 'b' except 10.1.0.0/16 from ports 1:9 \
                 to all ports but 80, or icmpv6 type 128 code 0 over IPv6 to anywhere except \
                 selector a == 'b'",
            ),
        ] {
            let ruleset = ruleset(matches);
            assert_eq!(ruleset.words(&ruleset.rules[0]), words);
            let json = serde_json::to_string(&ruleset).expect("JSON");
            assert_eq!(
                serde_json::from_str::<Ruleset>(&json).expect("back"),
                ruleset
            );
        }
    }
}
