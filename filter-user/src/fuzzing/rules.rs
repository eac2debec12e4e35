//! Rulesets and frames out of bytes: legal ones, near each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::{Result, Unstructured};
use ipnet::IpNet;

use crate::packet_text::{Fields, Header, PacketText};
use crate::ruleset::{
    Action, Addresses, Direction, Essentials, Family, Fragments, Icmp, Match, NetSet, Options,
    PortRange, Rule, RuleId, Ruleset, Stage, Switch,
};

const MOST_RULES: usize = 12;

/// A ruleset, its stages and tiers in their order.
pub(super) fn ruleset(data: &mut Unstructured<'_>, direction: Direction) -> Result<Ruleset> {
    let sets = (0..data.int_in_range(0..=2)?).map(|_| {
        Ok(NetSet {
            name: "fuzzing".to_owned(),
            nets: nets(data, 3)?.into(),
        })
    });
    let sets = sets.collect::<Result<Vec<_>>>()?;
    let rules = (0..data.int_in_range(0..=MOST_RULES)?).map(|_| rule(data, sets.len(), direction));
    let mut rules = rules.collect::<Result<Vec<_>>>()?;
    rules.sort_by_key(|rule| (rule.id.stage, rule.tier.is_none(), rule.tier.clone()));
    for (index, rule) in (0..).zip(&mut rules) {
        rule.id.index = Some(index);
    }
    let mut essentials = Essentials::ALL;
    if data.ratio(1, 3)? {
        essentials = Essentials::NONE;
    }
    Ok(Ruleset {
        endpoint: "fuzzing".to_owned(),
        direction,
        sets,
        rules,
        default: *data.choose(&[Action::Allow, Action::Deny])?,
        options: Options {
            fragments: *data.choose(&[Fragments::Drop, Fragments::L3Only, Fragments::Track])?,
            non_ip: *data.choose(&[Switch::Pass, Switch::Drop])?,
            encapsulated_ip: *data.choose(&[Switch::Pass, Switch::Drop])?,
            essentials,
        },
    })
}

fn rule(data: &mut Unstructured<'_>, sets: usize, direction: Direction) -> Result<Rule> {
    let (stage, tier) = *data.choose(&[
        (Stage::Failsafe, None),
        (Stage::Untracked, Some("a")),
        (Stage::PreDnat, Some("a")),
        (Stage::Normal, Some("a")),
        (Stage::Normal, Some("b")),
        (Stage::Normal, None),
    ])?;
    let failsafe = stage == Stage::Failsafe;
    let action = *data.choose(&[
        Action::Allow,
        Action::Deny,
        Action::Allow,
        Action::Deny,
        Action::Log,
        Action::Pass,
    ])?;
    let matches = (0..data.int_in_range(1..=2)?).map(|_| matches(data, sets));
    Ok(Rule {
        matches: matches.collect::<Result<_>>()?,
        id: RuleId {
            stage,
            policy: "p".into(),
            direction,
            index: None,
        },
        tier: tier.map(Into::into),
        action: if failsafe { Action::Allow } else { action },
        staged: !failsafe && data.ratio(1, 6)?,
        source: None,
    })
}

fn matches(data: &mut Unstructured<'_>, sets: usize) -> Result<Match> {
    let protocol = match data.int_in_range(0..=8)? {
        0 | 1 => None,
        2 | 3 => Some(6),
        4 | 5 => Some(17),
        6 => Some(1),
        7 => Some(58),
        _ => Some(data.arbitrary()?),
    };
    let has_ports = matches!(protocol, Some(6 | 17 | 132 | 136));
    let is_icmp = matches!(protocol, Some(1 | 58));
    let ports = |data: &mut Unstructured<'_>| {
        if has_ports && data.ratio(1, 2)? {
            self::ports(data)
        } else {
            Ok(Vec::new())
        }
    };
    let (src_ports, not_src_ports) = (ports(data)?, ports(data)?);
    let (dst_ports, not_dst_ports) = (ports(data)?, ports(data)?);
    let icmp = |data: &mut Unstructured<'_>| {
        if is_icmp && data.ratio(1, 2)? {
            let kind = data.arbitrary()?;
            Ok(Some(Icmp {
                kind,
                code: data.arbitrary()?,
            }))
        } else {
            Ok(None)
        }
    };
    Ok(Match {
        family: *data.choose(&[None, None, Some(Family::V4), Some(Family::V6)])?,
        protocol,
        not_protocol: if data.ratio(1, 6)? {
            Some(data.arbitrary()?)
        } else {
            None
        },
        icmp: icmp(data)?,
        not_icmp: icmp(data)?,
        src: addresses(data, sets)?,
        dst: addresses(data, sets)?,
        src_ports,
        not_src_ports,
        dst_ports,
        not_dst_ports,
    })
}

fn ports(data: &mut Unstructured<'_>) -> Result<Vec<PortRange>> {
    let ranges = (0..data.int_in_range(1..=2)?).map(|_| {
        let (a, b): (u16, u16) = (data.arbitrary()?, data.arbitrary()?);
        Ok(PortRange {
            first: a.min(b),
            last: a.max(b),
        })
    });
    ranges.collect()
}

fn addresses(data: &mut Unstructured<'_>, sets: usize) -> Result<Addresses> {
    let set = |data: &mut Unstructured<'_>| {
        if sets > 0 && data.ratio(1, 4)? {
            let set = data.int_in_range(0..=sets - 1)?;
            Ok(vec![u32::try_from(set).unwrap_or(0)])
        } else {
            Ok(Vec::new())
        }
    };
    Ok(Addresses {
        nets: if data.ratio(1, 2)? {
            nets(data, 2)?
        } else {
            Vec::new()
        },
        not_nets: if data.ratio(1, 6)? {
            nets(data, 2)?
        } else {
            Vec::new()
        },
        sets: set(data)?,
        not_sets: set(data)?,
    })
}

fn nets(data: &mut Unstructured<'_>, most: usize) -> Result<Vec<IpNet>> {
    let nets = (0..data.int_in_range(0..=most)?).map(|_| {
        let address = address(data, None)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = data.int_in_range(0..=longest)?;
        IpNet::new(address, length)
            .map(|net| net.trunc())
            .map_err(|_| arbitrary::Error::IncorrectFormat)
    });
    nets.collect()
}

/// Few bits differ, so that networks nest, and packets meet them.
fn address(data: &mut Unstructured<'_>, family: Option<bool>) -> Result<IpAddr> {
    let v4 = match family {
        Some(v4) => v4,
        None => data.arbitrary()?,
    };
    let bits: u8 = data.arbitrary()?;
    Ok(if v4 {
        let base = *data.choose(&[0x0a01_0203_u32, 0xc000_020a, 0, u32::MAX])?;
        IpAddr::V4(Ipv4Addr::from_bits(
            base ^ (1_u32.rotate_right(bits.into()) & u32::from(bits)),
        ))
    } else {
        let base = *data.choose(&[0x2001_0db8_u128 << 96 | 7, 0, u128::MAX])?;
        IpAddr::V6(Ipv6Addr::from_bits(base ^ 1_u128.rotate_right(bits.into())))
    })
}

/// A frame that may meet the rules: as a rule asks for it, some bytes changed, cut.
pub(super) fn frame(data: &mut Unstructured<'_>, ruleset: &Ruleset) -> Result<Vec<u8>> {
    if data.ratio(1, 8)? {
        return data.arbitrary();
    }
    let v4 = data.arbitrary()?;
    let mut fields = Fields {
        protocol: Some(*data.choose(&[6, 17, 1, 58, 47, 132])?),
        src: address(data, Some(v4))?,
        dst: address(data, Some(v4))?,
        sport: data.arbitrary()?,
        selector: data.arbitrary()?,
        header: if data.ratio(1, 10)? {
            Header::LaterFragment
        } else {
            Header::Whole
        },
        hop_limit: None,
    };
    if !ruleset.rules.is_empty() {
        let rule = data.choose(&ruleset.rules)?;
        if let Some(asked) = rule.matches.first() {
            fields.protocol = asked.protocol.or(fields.protocol);
            if let Some(range) = asked.dst_ports.first() {
                fields.selector = *data.choose(&[
                    range.first,
                    range.last,
                    range.first.wrapping_sub(1),
                    range.last.wrapping_add(1),
                ])?;
            }
            for (net, place) in [
                (&asked.src.nets, &mut fields.src),
                (&asked.dst.nets, &mut fields.dst),
            ] {
                if let Some(net) = net.iter().find(|net| net.addr().is_ipv4() == v4) {
                    *place = *data.choose(&[net.network(), net.broadcast()])?;
                }
            }
        }
    }
    let mut frame = PacketText::new(fields).frame();
    for _ in 0..data.int_in_range(0..=2)? {
        let place = data.int_in_range(0..=frame.len() - 1)?;
        frame[place] = data.arbitrary()?;
    }
    if data.ratio(1, 6)? {
        let length = data.int_in_range(0..=frame.len())?;
        frame.truncate(length);
    }
    Ok(frame)
}
