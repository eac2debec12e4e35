//! Synthetic rulesets with the structure that Taylor and Turner found in real
//! ones (`ClassBench: A Packet Classification Benchmark`, 2005): five-tuple
//! rules over IPv4, IPv6 or both, seeded, the same on every machine.
//!
//! What is copied is structure, not their files:
//!
//! - **Addresses** come from *sites*: a number of networks, some of which are used
//!   far more often than others (the k-th with weight 1/k). Rules name the site,
//!   subnets or single hosts of it, or anywhere, so that prefixes nest and rules
//!   overlap. There are far fewer different prefixes than rules ([`Flavour`] says
//!   how many).
//! - **Prefix lengths** are those that networks are assigned in. What is longer than
//!   an IPv6 site stands in it as its owner would divide it. A rule has one IP
//!   version; of both, every other rule is IPv6.
//!
//!   | | sites | networks in a site |
//!   |---|---|---|
//!   | IPv4 | /16 to /22, alike | the site 7 %, /20 /22 /23 7 % each, /24 29 %, /25 to /30 7 % each |
//!   | IPv6 (`2000::/3`) | /32 25 %, /36 /40 /44 8 % each, /48 50 % | the site 8 %, /48 17 %, /52 /56 /60 8 % each, /64 33 %, /112 /126 8 % each |
//!
//! - **Ports**: each rule takes one of the classes *any*, *exact*, *high*
//!   (1024-65535), *low* (1-1023) and *range*; exact ones are mostly services
//!   (the k-th with weight 1/k), ranges come from a small stock.
//! - **Protocols**: mostly TCP, then UDP, ICMP, any.
//! - **Order**: specific rules come first, as administrators write them: by the
//!   number of bits that a rule fixes, with some disorder.
//!
//! | | `acl` (access list) | `fw` (firewall) | `ipc` (IP chain) |
//! |---|---|---|---|
//! | source: any / network / host | 3 / 27 / 70 % | 38 / 32 / 30 % | 12 / 43 / 45 % |
//! | destination: any / network / host | 1 / 49 / 50 % | 30 / 35 / 35 % | 10 / 45 / 45 % |
//! | both any | 0 | 4 % | 1 % |
//! | different sources, of n rules | n / 2 | n / 4 | n / 5 |
//! | different destinations | n / 12 | n / 4 | n / 5 |
//! | source port: any / high / range / exact | 100 / 0 / 0 / 0 % | 74 / 16 / 2 / 8 % | 80 / 8 / 2 / 10 % |
//! | destination port: any / exact / range / high / low | 27 / 60 / 10 / 2 / 1 % | 30 / 48 / 8 / 12 / 2 % | 40 / 46 / 8 / 5 / 1 % |
//! | TCP / UDP / ICMP / any | 82 / 8 / 3 / 7 % | 66 / 24 / 4 / 6 % | 60 / 25 / 5 / 10 % |

mod random;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use random::Random;

/// Whose structure a ruleset has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// A router's access list: hosts, few destinations, exact ports.
    Acl,
    /// A firewall: many wildcards.
    Fw,
    /// IP chains of Linux: between the two.
    Ipc,
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "acl" => Ok(Self::Acl),
            "fw" => Ok(Self::Fw),
            "ipc" => Ok(Self::Ipc),
            other => Err(format!("{other:?} is none of acl, fw, ipc")),
        }
    }
}

/// How often, of a hundred rules.
struct Shares {
    /// Any, network, host.
    src: [u32; 3],
    dst: [u32; 3],
    /// Rules that may have neither address, of a hundred that would.
    both_any: u32,
    /// Rules for each different prefix.
    rules_a_src: usize,
    rules_a_dst: usize,
    /// Any, exact, range, high, low.
    sport: [u32; 5],
    dport: [u32; 5],
    /// TCP, UDP, ICMP, any.
    protocol: [u32; 4],
}

impl Flavour {
    const fn shares(self) -> Shares {
        match self {
            Self::Acl => Shares {
                src: [3, 27, 70],
                dst: [1, 49, 50],
                both_any: 0,
                rules_a_src: 2,
                rules_a_dst: 12,
                sport: [100, 0, 0, 0, 0],
                dport: [27, 60, 10, 2, 1],
                protocol: [82, 8, 3, 7],
            },
            Self::Fw => Shares {
                src: [38, 32, 30],
                dst: [30, 35, 35],
                both_any: 35,
                rules_a_src: 4,
                rules_a_dst: 4,
                sport: [74, 8, 2, 16, 0],
                dport: [30, 48, 8, 12, 2],
                protocol: [66, 24, 4, 6],
            },
            Self::Ipc => Shares {
                src: [12, 43, 45],
                dst: [10, 45, 45],
                both_any: 80,
                rules_a_src: 5,
                rules_a_dst: 5,
                sport: [80, 10, 2, 8, 0],
                dport: [40, 46, 8, 5, 1],
                protocol: [60, 25, 5, 10],
            },
        }
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Bits of an address.
    const fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// Which IP versions the rules are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone; rules over all addresses name no IP version.
    V4,
    /// IPv6 alone.
    V6,
    /// Half of the rules are of each.
    Both,
}

impl FromStr for Families {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "v4" => Ok(Self::V4),
            "v6" => Ok(Self::V6),
            "both" => Ok(Self::Both),
            other => Err(format!("{other:?} is none of v4, v6, both")),
        }
    }
}

/// A network; length 0 is anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    /// Its IP version.
    pub family: Family,
    /// Its first address; of IPv4 the lowest 32 bits.
    pub address: u128,
    /// Bits that are the network's.
    pub length: u8,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.length)
    }
}

impl Net {
    const fn any(family: Family) -> Self {
        Self {
            family,
            address: 0,
            length: 0,
        }
    }

    fn new(family: Family, address: u128, length: u8) -> Self {
        let host = u32::from(family.width() - length);
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        Self {
            family,
            address: address & mask,
            length,
        }
    }

    /// Whether it is anywhere.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.length == 0
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::from(Ipv4Addr::from_bits(
                u32::try_from(self.address).unwrap_or(0),
            )),
            Family::V6 => IpAddr::from(Ipv6Addr::from_bits(self.address)),
        }
    }

    /// A network within it, or an address.
    fn within(self, length: u8, random: &mut Random) -> Self {
        let host = u32::from(self.family.width() - self.length);
        let host = !u128::MAX.checked_shl(host).unwrap_or(0);
        let bits = match self.family {
            Family::V4 => u128::from(random.bits()),
            Family::V6 => random.wide(),
        };
        Self::new(
            self.family,
            self.address | bits & host,
            length.max(self.length),
        )
    }

    /// How much it says, as if it were IPv4.
    const fn bits(self) -> usize {
        match self.family {
            Family::V4 => self.length as usize,
            Family::V6 => self.length as usize / 4,
        }
    }
}

/// One rule. Ports are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Where packets come from.
    pub src: Net,
    /// Where they go.
    pub dst: Net,
    /// `None`: every protocol.
    pub protocol: Option<u8>,
    /// `None`: every port.
    pub sport: Option<(u16, u16)>,
    /// Likewise.
    pub dport: Option<(u16, u16)>,
}

/// So many different rules, in their order; fewer only where there are no
/// more.
#[must_use]
pub fn rules(flavour: Flavour, families: Families, count: usize, seed: u64) -> Vec<Rule> {
    let mut random = Random::new(seed);
    let parts: &[(Family, usize)] = match families {
        Families::V4 => &[(Family::V4, count)],
        Families::V6 => &[(Family::V6, count)],
        Families::Both => &[(Family::V4, count.div_ceil(2)), (Family::V6, count / 2)],
    };
    let mut rules = Vec::with_capacity(count);
    for &(family, count) in parts {
        rules.extend(of_family(flavour, family, count, &mut random));
    }
    // Specific ones first, with some disorder.
    let mut keyed: Vec<(usize, Rule)> = rules
        .into_iter()
        .map(|rule| (200 - rule.bits() + random.below(24), rule))
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, rule)| rule).collect()
}

fn of_family(flavour: Flavour, family: Family, count: usize, random: &mut Random) -> Vec<Rule> {
    let shares = flavour.shares();
    let sources = Prefixes::new(family, &shares.src, count / shares.rules_a_src, random);
    let destinations = Prefixes::new(family, &shares.dst, count / shares.rules_a_dst, random);
    let ports = Ports::new(random);
    let icmp = match family {
        Family::V4 => 1,
        Family::V6 => 58,
    };
    let mut known = HashSet::with_capacity(count);
    let mut rules = Vec::with_capacity(count);
    let mut tries = 0;
    while rules.len() < count && tries < count * 50 {
        tries += 1;
        let protocol = [Some(6), Some(17), Some(icmp), None][random.share(&shares.protocol)];
        let has_ports = matches!(protocol, Some(6 | 17));
        let mut port = |shares: &[u32; 5]| {
            let class = random.share(shares);
            has_ports.then(|| ports.pick(class, random)).flatten()
        };
        let (sport, dport) = (port(&shares.sport), port(&shares.dport));
        let src = sources.pick(random);
        let dst = destinations.pick(random);
        let rule = Rule {
            src,
            dst,
            protocol,
            sport,
            dport,
        };
        if src.is_any() && dst.is_any() {
            // One without anything would hide all behind it.
            let bare = protocol.is_none() || (has_ports && dport.is_none());
            if bare || random.below(100) >= shares.both_any as usize {
                continue;
            }
        }
        if known.insert(rule) {
            rules.push(rule);
        }
    }
    rules
}

impl Rule {
    /// Bits that it fixes, about.
    fn bits(&self) -> usize {
        let port = |port: Option<(u16, u16)>| match port {
            None => 0,
            Some((first, last)) if first == last => 16,
            Some(_) => 6,
        };
        self.src.bits()
            + self.dst.bits()
            + port(self.sport)
            + port(self.dport)
            + if self.protocol.is_some() { 8 } else { 0 }
    }
}

/// The different prefixes that rules name: some by many, most by few.
struct Prefixes {
    family: Family,
    shares: [u32; 3],
    networks: Vec<Net>,
    hosts: Vec<Net>,
}

impl Prefixes {
    fn new(family: Family, shares: &[u32; 3], count: usize, random: &mut Random) -> Self {
        let sites: Vec<Net> = (0..(count / 24).clamp(4, 2_000))
            .map(|_| site(family, random))
            .collect();
        let named = shares[1] + shares[2];
        let of = |share: u32| (count * share as usize / named.max(1) as usize).max(1);
        let networks = (0..of(shares[1]))
            .map(|_| {
                let site = sites[random.zipf(sites.len())];
                // The site itself, or lengths as they are assigned in one.
                let lengths: &[u8] = match family {
                    Family::V4 => &[0, 20, 22, 23, 24, 24, 24, 24, 25, 26, 27, 28, 29, 30],
                    Family::V6 => &[0, 48, 48, 52, 56, 60, 64, 64, 64, 64, 112, 126],
                };
                site.within(lengths[random.below(lengths.len())], random)
            })
            .collect();
        let hosts = (0..of(shares[2]))
            .map(|_| sites[random.zipf(sites.len())].within(family.width(), random))
            .collect();
        Self {
            family,
            shares: *shares,
            networks,
            hosts,
        }
    }

    fn pick(&self, random: &mut Random) -> Net {
        let stock = match random.share(&self.shares) {
            0 => return Net::any(self.family),
            1 => &self.networks,
            _ => &self.hosts,
        };
        // Half of all uses are spread evenly, so that most are used at all.
        let index = if random.below(2) == 0 {
            random.below(stock.len())
        } else {
            random.zipf(stock.len())
        };
        stock[index]
    }
}

/// A network that somebody has been assigned.
fn site(family: Family, random: &mut Random) -> Net {
    match family {
        Family::V4 => {
            // 1.0.0.0 to 223.255.255.255
            let top = 1 + u32::try_from(random.below(223)).unwrap_or(0);
            let length = 16 + u8::try_from(random.below(7)).unwrap_or(0);
            let address = top << 24 | random.bits() & 0x00ff_ffff;
            Net::new(family, address.into(), length)
        }
        Family::V6 => {
            let lengths = [32, 32, 32, 36, 40, 44, 48, 48, 48, 48, 48, 48];
            let length = lengths[random.below(lengths.len())];
            let address = 1 << 125 | random.wide() >> 3;
            Net::new(family, address, length)
        }
    }
}

/// Exact ports, the most used first.
const SERVICES: [u16; 40] = [
    80, 443, 22, 25, 53, 21, 23, 110, 143, 123, 161, 3389, 1433, 1521, 3306, 5432, 445, 139, 137,
    138, 389, 636, 8080, 8443, 514, 993, 995, 1812, 1813, 2049, 111, 179, 5060, 6379, 9200, 27017,
    11211, 88, 464, 69,
];

/// The stock of ports.
struct Ports {
    exact: Vec<u16>,
    ranges: Vec<(u16, u16)>,
}

impl Ports {
    fn new(random: &mut Random) -> Self {
        let mut port = || u16::try_from(1_024 + random.below(64_512)).unwrap_or(u16::MAX);
        let mut exact = SERVICES.to_vec();
        exact.extend((0..120).map(|_| port()));
        let ranges = (0..40)
            .map(|index| {
                let first = port();
                let width = 1 + 16 * (index % 8) * (index % 8);
                (first, first.saturating_add(width))
            })
            .collect();
        Self { exact, ranges }
    }

    fn pick(&self, class: usize, random: &mut Random) -> Option<(u16, u16)> {
        match class {
            1 => {
                let port = self.exact[random.zipf(self.exact.len())];
                Some((port, port))
            }
            2 => Some(self.ranges[random.zipf(self.ranges.len())]),
            3 => Some((1_024, u16::MAX)),
            4 => Some((1, 1_023)),
            _ => None,
        }
    }
}

/// Rules of a policy: Calico takes 1024 in a list.
const RULES_A_POLICY: usize = 1_000;

/// The rules as Calico policies, in their order: every other one allows, and
/// what none of them meets is denied.
#[must_use]
pub fn policy(rules: &[Rule]) -> String {
    let mut text = String::new();
    // One alone needs not be said.
    let says_family = rules.iter().any(|rule| rule.src.family == Family::V6);
    for (number, part) in rules.chunks(RULES_A_POLICY).enumerate() {
        let _ = write!(
            text,
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: \
             synthetic-{number}\nspec:\n  order: {number}\n  selector: all()\n  preDNAT: true\n  \
             applyOnForward: true\n  types: [Ingress]\n  ingress:\n"
        );
        for (index, rule) in part.iter().enumerate() {
            let action = if index % 2 == 0 { "Allow" } else { "Deny" };
            rule.write(action, says_family, &mut text);
        }
        if (number + 1) * RULES_A_POLICY < rules.len() {
            text.push_str("---\n");
        }
    }
    text.push_str("  - action: Deny\n");
    text
}

impl Rule {
    fn write(&self, action: &str, says_family: bool, text: &mut String) {
        let _ = writeln!(text, "  - action: {action}");
        if says_family && self.src.is_any() && self.dst.is_any() {
            let version = match self.src.family {
                Family::V4 => 4,
                Family::V6 => 6,
            };
            let _ = writeln!(text, "    ipVersion: {version}");
        }
        match self.protocol {
            Some(6) => text.push_str("    protocol: TCP\n"),
            Some(17) => text.push_str("    protocol: UDP\n"),
            Some(1) => text.push_str("    protocol: ICMP\n"),
            Some(58) => text.push_str("    protocol: ICMPv6\n"),
            Some(other) => {
                let _ = writeln!(text, "    protocol: {other}");
            }
            None => {}
        }
        for (name, net, port) in [
            ("source", self.src, self.sport),
            ("destination", self.dst, self.dport),
        ] {
            let mut fields = Vec::new();
            if !net.is_any() {
                fields.push(format!("nets: [{net}]"));
            }
            match port {
                Some((first, last)) if first == last => fields.push(format!("ports: [{first}]")),
                Some((first, last)) => fields.push(format!("ports: ['{first}:{last}']")),
                None => {}
            }
            if !fields.is_empty() {
                let _ = writeln!(text, "    {name}: {{{}}}", fields.join(", "));
            }
        }
    }
}

/// Different sources, destinations and pairs of both.
#[must_use]
pub fn different(rules: &[Rule]) -> [usize; 3] {
    let count =
        |of: &dyn Fn(&Rule) -> (Net, Net)| rules.iter().map(of).collect::<HashSet<_>>().len();
    [
        count(&|rule| (rule.src, Net::any(rule.src.family))),
        count(&|rule| (rule.dst, Net::any(rule.dst.family))),
        count(&|rule| (rule.src, rule.dst)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_many_different_and_the_same_again() {
        for flavour in [Flavour::Acl, Flavour::Fw, Flavour::Ipc] {
            let all = rules(flavour, Families::V4, 5_000, 1);
            assert_eq!(all.len(), 5_000, "{flavour:?}");
            let set: HashSet<_> = all.iter().collect();
            assert_eq!(set.len(), all.len());
            assert!(all == rules(flavour, Families::V4, 5_000, 1));
            assert!(all != rules(flavour, Families::V4, 5_000, 2));
            let both = rules(flavour, Families::Both, 5_000, 1);
            assert!(both == rules(flavour, Families::Both, 5_000, 1));
        }
    }

    #[test]
    fn there_are_fewer_prefixes_than_rules() {
        let [sources, destinations, pairs] =
            different(&rules(Flavour::Acl, Families::V4, 10_000, 1));
        assert!((2_500..5_500).contains(&sources), "{sources}");
        assert!((500..1_000).contains(&destinations), "{destinations}");
        assert!(pairs > 7_000, "{pairs}");
        let [sources, destinations, _] = different(&rules(Flavour::Fw, Families::V4, 10_000, 1));
        assert!((1_000..2_600).contains(&sources), "{sources}");
        assert!((1_000..2_600).contains(&destinations), "{destinations}");
    }

    #[test]
    fn wildcards_are_as_often_as_said() {
        let all = rules(Flavour::Fw, Families::V4, 10_000, 3);
        let any = all.iter().filter(|rule| rule.src.is_any()).count();
        assert!((2_800..4_200).contains(&any), "{any}");
        let ports = all.iter().filter(|rule| rule.sport.is_some()).count();
        assert!((1_500..3_000).contains(&ports), "{ports}");
    }

    #[test]
    fn a_policy_has_a_rule_a_line() {
        let text = policy(&rules(Flavour::Ipc, Families::V4, 100, 1));
        assert_eq!(text.matches("- action: ").count(), 101);
        let long = policy(&rules(Flavour::Ipc, Families::V4, 2_000, 1));
        assert_eq!(long.matches("- action: ").count(), 2_001);
        assert_eq!(long.matches("\n---\n").count(), 1);
        assert!(text.contains("protocol: TCP"));
        assert!(text.contains("nets: ["));
    }

    #[test]
    fn half_of_the_rules_are_of_each_ip_version() {
        let all = rules(Flavour::Fw, Families::Both, 2_001, 1);
        assert_eq!(all.len(), 2_001);
        let v6 = all.iter().filter(|rule| rule.src.family == Family::V6);
        assert_eq!(v6.count(), 1_000);
        assert!(all.iter().all(|rule| rule.src.family == rule.dst.family));
        // Among each other, not one behind the other.
        let head = all[..500].iter();
        let v6 = head.filter(|rule| rule.src.family == Family::V6).count();
        assert!((100..400).contains(&v6), "{v6}");
        let text = policy(&all);
        assert!(text.contains("ipVersion: 6") && text.contains("ipVersion: 4"));
        assert!(text.contains("protocol: ICMPv6"));
        assert!(!policy(&rules(Flavour::Fw, Families::V4, 2_000, 1)).contains("ipVersion"));
    }

    #[test]
    fn ipv6_prefixes_are_as_long_as_said() {
        let all = rules(Flavour::Acl, Families::V6, 10_000, 1);
        assert_eq!(all.len(), 10_000);
        let nets: HashSet<Net> = all.iter().map(|rule| rule.src).collect();
        let some = nets.iter().filter(|net| !net.is_any());
        assert!(some.clone().all(|net| net.address >> 125 == 1));
        let inner = some.filter(|net| net.length < 128);
        let longest = inner.clone().filter(|net| net.length == 64).count();
        let part = longest * 100 / inner.count();
        assert!((25..42).contains(&part), "{part} % are /64");
    }
}
