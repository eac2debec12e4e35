//! Synthetic rulesets with the structure that Taylor and Turner found in real
//! ones (`ClassBench: A Packet Classification Benchmark`, 2005): five-tuple
//! rules over IPv4, seeded, the same on every machine.
//!
//! What is copied is structure, not their files:
//!
//! - **Addresses** come from *sites*: a number of networks of 16 to 22 bits, some
//!   of which are used far more often than others (the k-th with weight 1/k).
//!   Rules name the site, subnets or single hosts of it, or anywhere, so that
//!   prefixes nest and rules overlap. There are far fewer different prefixes than
//!   rules ([`Flavour`] says how many).
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

/// An IPv4 network; length 0 is anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    /// Its first address.
    pub address: u32,
    /// Bits that are the network's.
    pub length: u8,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv4Addr::from_bits(self.address);
        write!(f, "{address}/{}", self.length)
    }
}

impl Net {
    const ANY: Self = Self {
        address: 0,
        length: 0,
    };

    fn new(address: u32, length: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Self {
            address: address & mask,
            length,
        }
    }

    /// A network within it, or an address.
    fn within(self, length: u8, random: &mut Random) -> Self {
        let host = u32::MAX.checked_shr(self.length.into()).unwrap_or(0);
        Self::new(self.address | random.bits() & host, length.max(self.length))
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
pub fn rules(flavour: Flavour, count: usize, seed: u64) -> Vec<Rule> {
    let shares = flavour.shares();
    let mut random = Random::new(seed);
    let sources = Prefixes::new(&shares.src, count / shares.rules_a_src, &mut random);
    let destinations = Prefixes::new(&shares.dst, count / shares.rules_a_dst, &mut random);
    let ports = Ports::new(&mut random);
    let mut known = HashSet::with_capacity(count);
    let mut rules = Vec::with_capacity(count);
    let mut tries = 0;
    while rules.len() < count && tries < count * 50 {
        tries += 1;
        let protocol = [Some(6), Some(17), Some(1), None][random.share(&shares.protocol)];
        let has_ports = matches!(protocol, Some(6 | 17));
        let mut port = |shares: &[u32; 5]| {
            let class = random.share(shares);
            has_ports.then(|| ports.pick(class, &mut random)).flatten()
        };
        let (sport, dport) = (port(&shares.sport), port(&shares.dport));
        let src = sources.pick(&mut random);
        let dst = destinations.pick(&mut random);
        let rule = Rule {
            src,
            dst,
            protocol,
            sport,
            dport,
        };
        if src == Net::ANY && dst == Net::ANY {
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
    // Specific ones first, with some disorder.
    let mut keyed: Vec<(usize, Rule)> = rules
        .into_iter()
        .map(|rule| (200 - rule.bits() + random.below(24), rule))
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, rule)| rule).collect()
}

impl Rule {
    /// Bits that it fixes, about.
    fn bits(&self) -> usize {
        let port = |port: Option<(u16, u16)>| match port {
            None => 0,
            Some((first, last)) if first == last => 16,
            Some(_) => 6,
        };
        usize::from(self.src.length)
            + usize::from(self.dst.length)
            + port(self.sport)
            + port(self.dport)
            + if self.protocol.is_some() { 8 } else { 0 }
    }
}

/// The different prefixes that rules name: some by many, most by few.
struct Prefixes {
    shares: [u32; 3],
    networks: Vec<Net>,
    hosts: Vec<Net>,
}

impl Prefixes {
    fn new(shares: &[u32; 3], count: usize, random: &mut Random) -> Self {
        let sites: Vec<Net> = (0..(count / 24).clamp(4, 2_000))
            .map(|_| {
                // 1.0.0.0 to 223.255.255.255
                let top = 1 + u32::try_from(random.below(223)).unwrap_or(0);
                let length = 16 + u8::try_from(random.below(7)).unwrap_or(0);
                Net::new(top << 24 | random.bits() & 0x00ff_ffff, length)
            })
            .collect();
        let named = shares[1] + shares[2];
        let of = |share: u32| (count * share as usize / named.max(1) as usize).max(1);
        let networks = (0..of(shares[1]))
            .map(|_| {
                let site = sites[random.zipf(sites.len())];
                // The site itself, or lengths as they are assigned in one.
                let length = [0, 20, 22, 23, 24, 24, 24, 24, 25, 26, 27, 28, 29, 30];
                site.within(length[random.below(length.len())], random)
            })
            .collect();
        let hosts = (0..of(shares[2]))
            .map(|_| sites[random.zipf(sites.len())].within(32, random))
            .collect();
        Self {
            shares: *shares,
            networks,
            hosts,
        }
    }

    fn pick(&self, random: &mut Random) -> Net {
        let stock = match random.share(&self.shares) {
            0 => return Net::ANY,
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
    for (number, part) in rules.chunks(RULES_A_POLICY).enumerate() {
        let _ = write!(
            text,
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: \
             synthetic-{number}\nspec:\n  order: {number}\n  selector: all()\n  preDNAT: true\n  \
             applyOnForward: true\n  types: [Ingress]\n  ingress:\n"
        );
        for (index, rule) in part.iter().enumerate() {
            rule.write(if index % 2 == 0 { "Allow" } else { "Deny" }, &mut text);
        }
        if (number + 1) * RULES_A_POLICY < rules.len() {
            text.push_str("---\n");
        }
    }
    text.push_str("  - action: Deny\n");
    text
}

impl Rule {
    fn write(&self, action: &str, text: &mut String) {
        let _ = writeln!(text, "  - action: {action}");
        match self.protocol {
            Some(6) => text.push_str("    protocol: TCP\n"),
            Some(17) => text.push_str("    protocol: UDP\n"),
            Some(1) => text.push_str("    protocol: ICMP\n"),
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
            if net != Net::ANY {
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
        count(&|rule| (rule.src, Net::ANY)),
        count(&|rule| (rule.dst, Net::ANY)),
        count(&|rule| (rule.src, rule.dst)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_many_different_and_the_same_again() {
        for flavour in [Flavour::Acl, Flavour::Fw, Flavour::Ipc] {
            let all = rules(flavour, 5_000, 1);
            assert_eq!(all.len(), 5_000, "{flavour:?}");
            let set: HashSet<_> = all.iter().collect();
            assert_eq!(set.len(), all.len());
            assert!(all == rules(flavour, 5_000, 1));
            assert!(all != rules(flavour, 5_000, 2));
        }
    }

    #[test]
    fn there_are_fewer_prefixes_than_rules() {
        let [sources, destinations, pairs] = different(&rules(Flavour::Acl, 10_000, 1));
        assert!((2_500..5_500).contains(&sources), "{sources}");
        assert!((500..1_000).contains(&destinations), "{destinations}");
        assert!(pairs > 7_000, "{pairs}");
        let [sources, destinations, _] = different(&rules(Flavour::Fw, 10_000, 1));
        assert!((1_000..2_600).contains(&sources), "{sources}");
        assert!((1_000..2_600).contains(&destinations), "{destinations}");
    }

    #[test]
    fn wildcards_are_as_often_as_said() {
        let all = rules(Flavour::Fw, 10_000, 3);
        let any = all.iter().filter(|rule| rule.src == Net::ANY).count();
        assert!((2_800..4_200).contains(&any), "{any}");
        let ports = all.iter().filter(|rule| rule.sport.is_some()).count();
        assert!((1_500..3_000).contains(&ports), "{ports}");
    }

    #[test]
    fn a_policy_has_a_rule_a_line() {
        let text = policy(&rules(Flavour::Ipc, 100, 1));
        assert_eq!(text.matches("- action: ").count(), 101);
        let long = policy(&rules(Flavour::Ipc, 2_000, 1));
        assert_eq!(long.matches("- action: ").count(), 2_001);
        assert_eq!(long.matches("\n---\n").count(), 1);
        assert!(text.contains("protocol: TCP"));
        assert!(text.contains("nets: ["));
    }
}
