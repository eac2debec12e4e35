//! Which reported packets a reader asks for, as the kernel evaluates it.

use std::borrow::{Borrow, BorrowMut};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use aya::maps::{Array, MapData};
use filter_common::event::filter::{Criteria, Filter, Net, asked};
use filter_common::parse::Address;
use filter_common::verdict::Reason;
use ipnet::IpNet;

use super::error::Error;
use super::sys;
use crate::ruleset::{Rule, Ruleset};

/// Which reported packets a reader asks for: all that is said must hold, and nothing said
/// is everything.
///
/// The kernel may report more: of rules the range is asked that has all the wanted ones,
/// and a packet is reported whose headers don't show what is asked. What it doesn't
/// report is not wanted, takes nothing from the budget, and is no loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// It has one of these reasons; any, where there are none.
    pub reasons: Vec<Reason>,
    /// A rule of this policy reports it, or dropped it.
    pub policy: Option<String>,
    /// The rule with this index in its policy does, or did.
    pub rule: Option<u32>,
    /// Its protocol.
    pub proto: Option<u8>,
    /// Its source or destination port.
    pub port: Option<u16>,
    /// Where it comes from.
    pub src: Option<IpNet>,
    /// Where it goes to.
    pub dst: Option<IpNet>,
}

impl EventFilter {
    /// What the program is to ask, over this ruleset.
    #[must_use]
    pub fn criteria(&self, ruleset: &Ruleset) -> Criteria {
        let mut criteria = Criteria::default();
        if !self.reasons.is_empty() {
            criteria.asked |= asked::REASONS;
            for reason in &self.reasons {
                criteria.reasons |= 1 << *reason as u32;
            }
        }
        if self.policy.is_some() || self.rule.is_some() {
            criteria.asked |= asked::RULES;
            (criteria.first_rule, criteria.rules) = self.range(&ruleset.rules);
        }
        if let Some(proto) = self.proto {
            criteria.asked |= asked::PROTO;
            criteria.proto = proto;
        }
        if let Some(port) = self.port {
            criteria.asked |= asked::PORT;
            criteria.port = port;
        }
        if let Some(src) = self.src {
            let family = [asked::SRC_V4, asked::SRC_V6];
            criteria.asked |= family[usize::from(src.addr().is_ipv6())];
            criteria.src = net(src);
        }
        if let Some(dst) = self.dst {
            let family = [asked::DST_V4, asked::DST_V6];
            criteria.asked |= family[usize::from(dst.addr().is_ipv6())];
            criteria.dst = net(dst);
        }
        criteria
    }

    /// The first wanted rule, and how many from there on are to be asked for. The rules of
    /// a policy stand together but for a staged tier's end, which has the name of its last
    /// policy, and policies of one name in several stages; those with an index don't.
    fn range(&self, rules: &[Rule]) -> (u32, u32) {
        let is_wanted = |rule: &Rule| {
            let policy = self.policy.as_deref();
            policy.is_none_or(|policy| policy == &*rule.id.policy)
                && (self.rule.is_none() || self.rule == rule.id.index)
        };
        let wanted = (0..).zip(rules).filter(|(_, rule)| is_wanted(rule));
        let mut wanted = wanted.map(|(index, _): (u32, _)| index);
        wanted.next().map_or((0, 0), |first| {
            let last = wanted.last().unwrap_or(first);
            (first, last - first + 1)
        })
    }
}

fn net(net: IpNet) -> Net {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => Address {
            high: u64::from(address.to_bits()) << 32,
            low: 0,
        },
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
            Address {
                high: (bits >> 64) as u64,
                low: bits as u64,
            }
        }
    };
    Net {
        address: address(net.network()),
        mask: address(net.netmask()),
    }
}

/// The map of a program that has its [`Filter`].
pub(super) struct Asked<T>(Array<T, [u64; WORDS]>);

const WORDS: usize = size_of::<Filter>() / size_of::<u64>();

impl<T: Borrow<MapData>> Asked<T> {
    pub(super) const fn new(map: Array<T, [u64; WORDS]>) -> Self {
        Self(map)
    }

    fn get(&self) -> Result<Filter, Error> {
        let words = self
            .0
            .get(&0, 0)
            .map_err(|error| Error::aya("cannot read which events are asked for", &error))?;
        Ok(bytemuck::cast(words))
    }
}

impl<T: BorrowMut<MapData>> Asked<T> {
    fn set(&mut self, filter: Filter) -> Result<(), Error> {
        let words: [u64; WORDS] = bytemuck::cast(filter);
        self.0
            .set(0, words, 0)
            .map_err(|error| Error::aya("cannot say which events are asked for", &error))
    }

    /// Asks for everything.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        let filter = self.get()?;
        if Filter::asks(filter.head) {
            self.set(filter.next(filter.criteria))?;
        }
        Ok(())
    }
}

/// Asks for what these criteria say, each in its map. A program asks for everything
/// meanwhile, and never for a part of the new ones and a part of the old ones.
pub(super) fn ask<'m, T: BorrowMut<MapData> + 'm>(
    wanted: impl IntoIterator<Item = (&'m mut Asked<T>, Criteria)>,
) -> Result<(), Error> {
    let mut changed = Vec::new();
    for (map, criteria) in wanted {
        let filter = map.get()?;
        if criteria.asked == 0 {
            map.reset()?;
        } else if !(Filter::asks(filter.head) && filter.criteria == criteria) {
            map.reset()?;
            changed.push((map, criteria));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    wait();
    for (map, criteria) in &mut changed {
        let filter = map.get()?.next(*criteria);
        map.set(filter)?;
    }
    wait();
    for (map, _) in changed {
        let filter = map.get()?.armed();
        map.set(filter)?;
    }
    Ok(())
}

/// Waits until no program runs that began before.
fn wait() {
    // Kernels with CPUs without a tick don't wait for all (`EINVAL`); a program that runs
    // takes microseconds.
    if sys::wait_for_readers().is_err() {
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use filter_common::packet::Cursor;
    use proptest::prelude::*;

    use super::*;
    use crate::packet_text::PacketText;
    use crate::ruleset::{Action, Direction, Options, RuleId, Stage};
    use crate::telemetry::Headers;

    fn rule(stage: Stage, policy: &str, index: Option<u32>) -> Rule {
        Rule {
            id: RuleId {
                stage,
                policy: Arc::from(policy),
                direction: Direction::Ingress,
                index,
            },
            tier: None,
            action: Action::Deny,
            staged: false,
            matches: Vec::new(),
            source: None,
        }
    }

    fn ruleset(rules: Vec<Rule>) -> Ruleset {
        Ruleset {
            endpoint: "eth0".to_owned(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules,
            default: Action::Deny,
            options: Options::default(),
        }
    }

    #[test]
    fn the_rules_of_a_policy_are_a_range() {
        let ruleset = ruleset(vec![
            rule(Stage::PreDnat, "a", Some(0)),
            rule(Stage::Normal, "b", Some(0)),
            rule(Stage::Normal, "b", Some(1)),
            rule(Stage::Normal, "c", Some(0)),
            rule(Stage::Normal, "b", None),
            rule(Stage::Normal, "d", Some(0)),
        ]);
        let range = |policy: Option<&str>, rule| {
            let filter = EventFilter {
                policy: policy.map(str::to_owned),
                rule,
                ..EventFilter::default()
            };
            let criteria = filter.criteria(&ruleset);
            assert_eq!(criteria.asked, asked::RULES);
            (criteria.first_rule, criteria.rules)
        };
        assert_eq!(range(Some("a"), None), (0, 1));
        assert_eq!(range(Some("c"), None), (3, 1));
        // The end of a tier has others before it: they are let through.
        assert_eq!(range(Some("b"), None), (1, 4));
        assert_eq!(range(Some("b"), Some(1)), (2, 1));
        assert_eq!(range(None, Some(0)), (0, 6));
        assert_eq!(range(None, Some(1)), (2, 1));
        // Nothing.
        assert_eq!(range(Some("e"), None), (0, 0));
        assert_eq!(range(Some("a"), Some(7)), (0, 0));
    }

    #[test]
    fn what_is_said_is_asked() {
        let ruleset = ruleset(Vec::new());
        assert_eq!(
            EventFilter::default().criteria(&ruleset),
            Criteria::default()
        );
        let filter = EventFilter {
            reasons: vec![Reason::PolicyDeny, Reason::Malformed],
            proto: Some(17),
            port: Some(53),
            src: Some("192.0.2.7/24".parse().expect("a network")),
            dst: Some("2001:db8::1/65".parse().expect("a network")),
            ..EventFilter::default()
        };
        let found = filter.criteria(&ruleset);
        let wanted = Criteria {
            asked: asked::REASONS | asked::PROTO | asked::PORT | asked::SRC_V4 | asked::DST_V6,
            reasons: 0b101,
            proto: 17,
            port: 53,
            src: Net {
                address: Address {
                    high: 0xc000_0200_0000_0000,
                    low: 0,
                },
                mask: Address {
                    high: 0xffff_ff00_0000_0000,
                    low: 0,
                },
            },
            dst: Net {
                address: Address {
                    high: 0x2001_0db8_0000_0000,
                    low: 0,
                },
                mask: Address {
                    high: u64::MAX,
                    low: 1 << 63,
                },
            },
            ..Criteria::default()
        };
        assert_eq!(found, wanted);
    }

    /// What a reader sees of a packet: addresses and protocol, and ports.
    type Seen = (Option<(IpAddr, IpAddr, u8)>, Option<(u16, u16)>);

    fn seen(frame: &[u8]) -> Seen {
        let captured = &frame[..frame.len().min(filter_common::event::HEADER)];
        let headers = Headers::read(captured);
        let proto = headers.l4.map(|l4| l4.proto);
        let ip = headers.ip.zip(proto);
        let ports = headers.l4.and_then(|l4| l4.sport.zip(l4.dport));
        (ip.map(|(ip, proto)| (ip.src, ip.dst, proto)), ports)
    }

    /// Frames to begin with, that headers are changed in.
    fn frames() -> Vec<Vec<u8>> {
        let texts = [
            "tcp 203.0.113.7:51515 > 192.0.2.10:30080",
            "udp [2001:db8::7]:53 > [2001:db8::10]:32767",
            "icmp 203.0.113.7 > 192.0.2.10 type 8 code 0",
            "udp 203.0.113.7 > 192.0.2.10 frag",
            "udp 2001:db8::7 > 2001:db8::10 frag",
            "tcp 203.0.113.7:1 > 192.0.2.10:80 vlan 10",
            "tcp [2001:db8::7]:1 > [2001:db8::10]:80 vlan 10",
        ];
        let frame = |text: &str| text.parse::<PacketText>().expect("a packet").frame();
        let mut frames = texts.map(frame).to_vec();
        // Behind an authentication header, and behind hop-by-hop options.
        let mut authentic = frame("udp 203.0.113.7:53 > 192.0.2.10:9");
        let header = [17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        authentic[14 + 9] = 51;
        authentic.splice(14 + 20..14 + 20, header);
        let mut options = frame("udp [2001:db8::7]:53 > [2001:db8::10]:9");
        options[14 + 6] = 0;
        options.splice(14 + 40..14 + 40, [17, 0, 1, 4, 0, 0, 0, 0]);
        frames.extend([authentic, options]);
        frames
    }

    fn changed() -> impl Strategy<Value = Vec<u8>> {
        // Numbers that mean something: tags, versions, protocols, extension headers.
        const BYTES: [u8; 20] = [
            0, 1, 2, 6, 8, 17, 43, 44, 45, 46, 51, 58, 60, 69, 70, 96, 129, 135, 136, 229,
        ];
        // The last one is MACsec, of what is not encrypted.
        const TAGS: [&[u8]; 4] = [
            &[0x81, 0, 0, 7],
            &[0x88, 0xa8, 0, 7],
            &[0x91, 0, 0, 7],
            &[0x88, 0xe5, 0, 0, 0, 0, 0, 1],
        ];
        let byte = prop_oneof![prop::sample::select(BYTES.to_vec()), any::<u8>()];
        let change = (12_usize..80, byte);
        (
            prop::sample::select(frames()),
            prop::collection::vec(change, 0..6),
            // More tags before what is there, and more bytes behind it.
            prop::collection::vec(prop::sample::select(TAGS.to_vec()), 0..5),
            prop::collection::vec(any::<u8>(), 0..40),
            0_usize..400,
        )
            .prop_map(|(mut frame, changes, tags, more, length)| {
                frame.extend(more);
                for (at, byte) in changes {
                    if let Some(place) = frame.get_mut(at) {
                        *place = byte;
                    }
                }
                for tag in tags {
                    frame.splice(12..12, tag.iter().copied());
                }
                frame.truncate(length);
                frame
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whatever a reader sees in a packet, it is told of it when it asks for that.
        #[test]
        fn nothing_is_missing_that_a_reader_sees(
            frame in changed(),
            bits in 0_u8..=32,
            of in prop::collection::vec(any::<bool>(), 4),
            first in any::<bool>(),
        ) {
            let (ip, ports) = seen(&frame);
            let net = |address: IpAddr| {
                let bits = if address.is_ipv6() { bits * 4 } else { bits };
                IpNet::new(address, bits).expect("a network")
            };
            let filter = EventFilter {
                src: ip.filter(|_| of[0]).map(|(src, _, _)| net(src)),
                dst: ip.filter(|_| of[1]).map(|(_, dst, _)| net(dst)),
                proto: ip.filter(|_| of[2]).map(|(_, _, proto)| proto),
                port: ports.filter(|_| of[3]).map(|(src, dst)| if first { src } else { dst }),
                ..EventFilter::default()
            };
            let criteria = filter.criteria(&ruleset(Vec::new()));
            prop_assert!(
                criteria.wants_packet(&Cursor::over(&frame)),
                "{filter:?} of {frame:02x?}"
            );
        }
    }
}
