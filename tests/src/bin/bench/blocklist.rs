//! Lists of networks: random ones, of lengths as published blocklists have
//! them, and real ones.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use filter_user::bench::Random;
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// Prefix lengths, each with how many of a hundred have it.
const V4_LENGTHS: [(u8, usize); 9] = [
    (32, 55),
    (24, 24),
    (22, 6),
    (23, 4),
    (21, 3),
    (20, 3),
    (19, 2),
    (28, 2),
    (16, 1),
];
const V6_LENGTHS: [(u8, usize); 6] = [(128, 25), (64, 30), (48, 25), (56, 10), (32, 8), (40, 2)];

/// `count` different networks, none of which lies in another's place by
/// chance more often than random ones do.
pub(crate) fn random(count: usize, v6: bool, seed: u64) -> Vec<IpNet> {
    let mut random = Random::new(seed);
    let mut nets = HashSet::with_capacity(count);
    // So many /32 that the networks of that length cover a small part of them.
    let sites = count.max(40_000);
    while nets.len() < count {
        nets.insert(if v6 {
            let length = length(&V6_LENGTHS, &mut random);
            // In 2000::/3.
            let top = (random.below(sites) as u128) << 96 | 1 << 125;
            let bits = top | random.wide() >> 32;
            net_v6(Ipv6Addr::from_bits(bits), length)
        } else {
            let length = length(&V4_LENGTHS, &mut random);
            let first = 1 + random.below(222);
            let bits = u32::try_from(first << 24 | random.below(1 << 24)).unwrap_or(0);
            net_v4(Ipv4Addr::from_bits(bits), length)
        });
    }
    let mut nets: Vec<_> = nets.into_iter().collect();
    nets.sort_unstable();
    nets
}

fn length(lengths: &[(u8, usize)], random: &mut Random) -> u8 {
    let mut at = random.below(100);
    for (length, share) in lengths {
        if at < *share {
            return *length;
        }
        at -= share;
    }
    lengths[0].0
}

fn net_v4(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, length).trunc())
}

fn net_v6(address: Ipv6Addr, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, length).trunc())
}

/// A line for each network.
pub(crate) fn lines(nets: &[IpNet], line: impl Fn(&IpNet) -> String) -> String {
    let mut text = String::new();
    for net in nets {
        text.push_str(&line(net));
        text.push('\n');
    }
    text
}

/// An address in each network.
pub(crate) fn addresses(nets: &[IpNet], seed: u64) -> Vec<IpAddr> {
    let mut random = Random::new(seed);
    let mut address = |net: &IpNet| match net {
        IpNet::V4(net) => {
            let host = u32::from(net.hostmask()) & u32::try_from(random.bits() >> 32).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from_bits(net.network().to_bits() | host))
        }
        IpNet::V6(net) => {
            let host = net.hostmask().to_bits() & random.wide();
            IpAddr::from(Ipv6Addr::from_bits(net.network().to_bits() | host))
        }
    };
    nets.iter().map(&mut address).collect()
}

const GEOIP: &str = "/usr/share/tor/geoip";

/// Debian's `tor-geoipdb`: each country with its networks.
pub(crate) fn countries(v6: bool) -> Result<Vec<(String, Vec<IpNet>)>> {
    let path = if v6 {
        format!("{GEOIP}6")
    } else {
        GEOIP.to_owned()
    };
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}: `apt-get install tor-geoipdb`"))?;
    let mut countries: Vec<(String, Vec<IpNet>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(',');
        let mut next = || fields.next().with_context(|| format!("{path}: {line:?}"));
        let (first, last, country) = (next()?, next()?, next()?);
        let known = countries.iter().position(|(name, _)| name == country);
        let place = known.unwrap_or_else(|| {
            countries.push((country.to_owned(), Vec::new()));
            countries.len() - 1
        });
        let nets = &mut countries[place].1;
        if v6 {
            let range = Ipv6Subnets::new(first.parse()?, last.parse()?, 0);
            nets.extend(range.map(IpNet::V6));
        } else {
            let address = |text: &str| text.parse().map(Ipv4Addr::from_bits);
            let range = Ipv4Subnets::new(address(first)?, address(last)?, 0);
            nets.extend(range.map(IpNet::V4));
        }
    }
    Ok(countries)
}
