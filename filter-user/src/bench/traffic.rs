//! Random traffic over a ruleset: packets that meet its rules, packets that
//! nearly do, and packets that don't, so that a measurement walks over all of
//! its tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::flow::Flow;
use super::random::Random;
use crate::ruleset::{Addresses, Family, Match, PortRange, Ruleset};

/// Makes packets for a ruleset.
///
/// Half of them are made for a rule, each rule as often as the others: from
/// one of its networks, to one, with one of its ports. Of the others, each part
/// (source, destination, protocol and port) is by itself another rule's, just
/// beside it (one bit of a network's last eight is another), or anything.
#[derive(Clone, Debug)]
pub struct Traffic<'a> {
    ruleset: &'a Ruleset,
    matches: Vec<&'a Match>,
    random: Random,
    families: Families,
}

/// Which IP versions the rules speak about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

impl<'a> Traffic<'a> {
    /// Packets for this ruleset; the same for the same seed.
    #[must_use]
    pub fn new(ruleset: &'a Ruleset, seed: u64) -> Self {
        let matches: Vec<&Match> = ruleset
            .rules
            .iter()
            .filter(|rule| rule.id.stage != crate::ruleset::Stage::Failsafe)
            .flat_map(|rule| &rule.matches)
            // What meets everything is met anyway.
            .filter(|asked| **asked != Match::default())
            .collect();
        let mut families = Families {
            v4: false,
            v6: false,
        };
        for asked in &matches {
            families.add(asked, ruleset);
        }
        // Nothing is said of addresses: both would be the same.
        if !families.v4 && !families.v6 {
            families.v4 = true;
        }
        Self {
            ruleset,
            matches,
            random: Random::new(seed),
            families,
        }
    }

    /// Whether it makes IPv6 packets.
    #[must_use]
    pub fn has_v6(&self) -> bool {
        self.families.v6
    }

    /// The next packet.
    pub fn flow(&mut self) -> Flow {
        let Some(&for_rule) = self.random.pick(&self.matches) else {
            return self.anything();
        };
        let hit = self.random.one_in(2);
        let v6 = self.family_of(for_rule);
        let src = self.address(&for_rule.src, v6, hit, |asked| &asked.src);
        let dst = self.address(&for_rule.dst, v6, hit, |asked| &asked.dst);
        let of = if hit || self.random.one_in(2) {
            for_rule
        } else {
            let other = self.random.pick(&self.matches);
            other.copied().unwrap_or(for_rule)
        };
        let proto = of.protocol.unwrap_or_else(|| self.protocol());
        let (sport, dport) = self.ports(of, proto, hit);
        Flow {
            src,
            dst,
            proto,
            sport,
            dport,
        }
    }

    fn anything(&mut self) -> Flow {
        let v6 = self.either_family();
        Flow {
            src: self.any_address(v6),
            dst: self.any_address(v6),
            proto: self.protocol(),
            sport: self.port(),
            dport: self.port(),
        }
    }

    fn either_family(&mut self) -> bool {
        match (self.families.v4, self.families.v6) {
            (true, true) => self.random.one_in(2),
            (_, v6) => v6,
        }
    }

    /// Whether a packet for this rule is an IPv6 one.
    fn family_of(&mut self, asked: &'a Match) -> bool {
        if let Some(family) = asked.family {
            return family == Family::V6;
        }
        match asked.protocol {
            Some(1) if self.families.v4 => return false,
            Some(58) if self.families.v6 => return true,
            _ => {}
        }
        let net = self.net(&asked.src).or_else(|| self.net(&asked.dst));
        match net {
            Some(net) => matches!(net, IpNet::V6(_)),
            None => self.either_family(),
        }
    }

    /// One of the networks that are asked for; `None` where none is.
    fn net(&mut self, asked: &'a Addresses) -> Option<IpNet> {
        if !asked.nets.is_empty() {
            return self.random.pick(&asked.nets).copied();
        }
        let set = *self.random.pick(&asked.sets)?;
        let set = self.ruleset.sets.get(set as usize)?;
        self.random.pick(&set.nets).copied()
    }

    fn net_of(&mut self, asked: &'a Addresses, v6: bool) -> Option<IpNet> {
        (0..16).find_map(|_| {
            self.net(asked)
                .filter(|net| matches!(net, IpNet::V6(_)) == v6)
        })
    }

    fn address(
        &mut self,
        asked: &'a Addresses,
        v6: bool,
        hit: bool,
        part: impl Fn(&'a Match) -> &'a Addresses,
    ) -> IpAddr {
        if hit {
            return match self.net_of(asked, v6) {
                Some(net) => self.within(net),
                None => self.any_address(v6),
            };
        }
        let from = if self.random.one_in(2) {
            asked
        } else {
            let other = self.random.pick(&self.matches);
            other.map_or(asked, |other| part(other))
        };
        match (self.net_of(from, v6), self.random.below(4)) {
            (Some(net), 0) => self.within(net),
            (Some(net), 1 | 2) => self.beside(net),
            _ => self.any_address(v6),
        }
    }

    /// An address of the network.
    fn within(&mut self, net: IpNet) -> IpAddr {
        match net {
            IpNet::V4(net) => self.within_v4(net).into(),
            IpNet::V6(net) => self.within_v6(net).into(),
        }
    }

    fn within_v4(&mut self, net: Ipv4Net) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(net.prefix_len().into()).unwrap_or(0);
        let bits = u32::try_from(self.random.bits() >> 32).unwrap_or(0);
        Ipv4Addr::from_bits(net.network().to_bits() | bits & host)
    }

    fn within_v6(&mut self, net: Ipv6Net) -> Ipv6Addr {
        let host = u128::MAX.checked_shr(net.prefix_len().into()).unwrap_or(0);
        Ipv6Addr::from_bits(net.network().to_bits() | self.random.wide() & host)
    }

    /// An address of which one of the last eight bits of the network is
    /// another.
    fn beside(&mut self, net: IpNet) -> IpAddr {
        let length = usize::from(net.prefix_len());
        let bit = self.random.below(length.min(8));
        let position = net.max_prefix_len() as usize - length + bit;
        match self.within(net) {
            _ if length == 0 => self.any_address(matches!(net, IpNet::V6(_))),
            IpAddr::V4(address) => {
                let bits = address.to_bits() ^ 1_u32.checked_shl(shift(position)).unwrap_or(0);
                Ipv4Addr::from_bits(bits).into()
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits() ^ 1_u128.checked_shl(shift(position)).unwrap_or(0);
                Ipv6Addr::from_bits(bits).into()
            }
        }
    }

    /// Any unicast address.
    fn any_address(&mut self, v6: bool) -> IpAddr {
        if v6 {
            // 2000::/3
            let bits = self.random.wide() >> 3 | 1 << 125;
            return Ipv6Addr::from_bits(bits).into();
        }
        loop {
            let bits = u32::try_from(self.random.bits() >> 32).unwrap_or(0);
            let address = Ipv4Addr::from_bits(bits);
            if (1..224).contains(&address.octets()[0]) && !address.is_loopback() {
                return address.into();
            }
        }
    }

    fn protocol(&mut self) -> u8 {
        if self.random.one_in(2) { 17 } else { 6 }
    }

    fn port(&mut self) -> u16 {
        u16::try_from(self.random.below(65_536)).unwrap_or(0)
    }

    fn ports(&mut self, asked: &Match, proto: u8, hit: bool) -> (u16, u16) {
        if matches!(proto, 1 | 58) {
            let asked = asked.icmp.filter(|_| hit || self.random.one_in(2));
            let any = u8::try_from(self.random.below(256)).unwrap_or(0);
            let (kind, code) = asked.map_or((any, 0), |icmp| (icmp.kind, icmp.code.unwrap_or(any)));
            return (0, u16::from_be_bytes([kind, code]));
        }
        let mut one = |ranges: &[PortRange]| {
            let any = self.port();
            let wanted = hit || self.random.one_in(2);
            match self.random.pick(ranges) {
                Some(range) if wanted => {
                    let width = usize::from(range.last - range.first) + 1;
                    range.first + u16::try_from(self.random.below(width)).unwrap_or(0)
                }
                _ => any,
            }
        };
        (one(&asked.src_ports), one(&asked.dst_ports))
    }
}

impl Families {
    fn add(&mut self, asked: &Match, ruleset: &Ruleset) {
        for addresses in [&asked.src, &asked.dst] {
            let sets = addresses
                .sets
                .iter()
                .filter_map(|set| ruleset.sets.get(*set as usize));
            let sets = sets.map(|set| set.nets.as_slice());
            for nets in std::iter::once(addresses.nets.as_slice()).chain(sets) {
                self.v4 |= nets.iter().any(|net| matches!(net, IpNet::V4(_)));
                self.v6 |= nets.iter().any(|net| matches!(net, IpNet::V6(_)));
            }
        }
        self.v4 |= asked.family == Some(Family::V4) && asked.src.is_any() && asked.dst.is_any();
        self.v6 |= asked.family == Some(Family::V6) && asked.src.is_any() && asked.dst.is_any();
    }
}

fn shift(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Action, Direction, Options, Rule, RuleId, Stage};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ruleset(matches: Vec<Match>) -> Ruleset {
        Ruleset {
            endpoint: String::new(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules: vec![Rule {
                id: RuleId {
                    stage: Stage::Normal,
                    policy: "p".into(),
                    direction: Direction::Ingress,
                    index: Some(0),
                },
                tier: None,
                action: Action::Deny,
                staged: false,
                matches,
                source: None,
            }],
            default: Action::Allow,
            options: Options::default(),
        }
    }

    fn from(nets: &[&str]) -> Match {
        Match {
            src: nets.iter().map(|text| net(text)).collect::<Vec<_>>().into(),
            ..Match::default()
        }
    }

    #[test]
    fn half_of_it_meets_the_rules() {
        let nets = ["192.0.2.0/24", "198.51.100.7/32", "10.0.0.0/8"];
        let ruleset = ruleset(vec![from(&nets), Match::default()]);
        let mut traffic = Traffic::new(&ruleset, 1);
        assert!(!traffic.has_v6());
        let mut met = [0_u32; 3];
        for _ in 0..30_000 {
            let flow = traffic.flow();
            for (count, net) in met.iter_mut().zip(&nets) {
                *count += u32::from(self::net(net).contains(&flow.src));
            }
        }
        // A sixth each, and some of what is not made for them.
        assert!(
            met.iter().all(|count| (5_000..8_000).contains(count)),
            "{met:?}"
        );
    }

    #[test]
    fn both_versions_come_where_both_are_asked_for() {
        let ruleset = ruleset(vec![from(&["192.0.2.0/24", "2001:db8::/32"])]);
        let mut traffic = Traffic::new(&ruleset, 1);
        assert!(traffic.has_v6());
        let flows: Vec<_> = (0..1_000).map(|_| traffic.flow()).collect();
        let v6 = flows.iter().filter(|flow| flow.src.is_ipv6()).count();
        assert!((300..700).contains(&v6), "{v6}");
        assert!(
            flows
                .iter()
                .all(|flow| flow.src.is_ipv6() == flow.dst.is_ipv6())
        );
    }

    #[test]
    fn ports_and_protocols_are_the_rules() {
        let asked = Match {
            protocol: Some(6),
            dst_ports: vec![PortRange {
                first: 80,
                last: 89,
            }],
            ..Match::default()
        };
        let ruleset = ruleset(vec![asked]);
        let mut traffic = Traffic::new(&ruleset, 1);
        let flows: Vec<_> = (0..1_000).map(|_| traffic.flow()).collect();
        assert!(flows.iter().all(|flow| flow.proto == 6));
        let met = flows
            .iter()
            .filter(|flow| (80..90).contains(&flow.dport))
            .count();
        assert!((600..900).contains(&met), "{met}");
    }

    #[test]
    fn a_ruleset_without_rules_gets_traffic_too() {
        let ruleset = ruleset(Vec::new());
        let flow = Traffic::new(&ruleset, 1).flow();
        assert!(flow.src.is_ipv4());
    }

    #[test]
    fn everything_and_a_host_have_neighbours() {
        let ruleset = ruleset(vec![from(&["0.0.0.0/0", "203.0.113.9/32"])]);
        let mut traffic = Traffic::new(&ruleset, 3);
        let near = (0..1_000).filter(|_| {
            let IpAddr::V4(src) = traffic.flow().src else {
                return false;
            };
            src.to_bits() ^ 0xcb00_7109 < 256 && src.to_bits() != 0xcb00_7109
        });
        assert!(near.count() > 20);
    }
}
