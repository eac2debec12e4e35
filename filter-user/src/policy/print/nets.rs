//! Lists of networks as sets of addresses.

use ipnet::IpNet;

/// The addresses of `nets` that are in none of `without`.
pub(super) fn subtract(nets: &[IpNet], without: &[IpNet]) -> Vec<IpNet> {
    let mut rest = Vec::new();
    for net in nets {
        cut(*net, without, &mut rest);
    }
    tidy(&rest)
}

fn cut(net: IpNet, without: &[IpNet], rest: &mut Vec<IpNet>) {
    if without.iter().any(|other| other.contains(&net)) {
        return;
    }
    let inside = without.iter().filter(|other| net.contains(*other));
    let inside: Vec<IpNet> = inside.copied().collect();
    if inside.is_empty() {
        rest.push(net);
        return;
    }
    for half in halves(net) {
        cut(half, &inside, rest);
    }
}

/// The two halves of a network; of a single address there are none.
pub(super) fn halves(net: IpNet) -> Vec<IpNet> {
    net.subnets(net.prefix_len() + 1)
        .map(Iterator::collect)
        .unwrap_or_default()
}

/// The addresses that both have.
pub(super) fn intersect(a: &[IpNet], b: &[IpNet]) -> Vec<IpNet> {
    let (a, b) = (tidy(a), tidy(b));
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    // Both are in order and without overlap: one walk along the two.
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.contains(y) {
            both.push(*y);
            j += 1;
        } else if y.contains(x) {
            both.push(*x);
            i += 1;
        } else if x < y {
            i += 1;
        } else {
            j += 1;
        }
    }
    tidy(&both)
}

/// The same addresses in the fewest networks, in order.
pub(super) fn tidy(nets: &[IpNet]) -> Vec<IpNet> {
    let mut nets = IpNet::aggregate(&nets.to_vec());
    nets.sort_unstable();
    nets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        let nets = texts.iter().map(|text| text.parse().expect("a network"));
        nets.collect()
    }

    #[test]
    fn the_rest_is_exact() {
        for (of, without, rest) in [
            (&["10.0.0.0/8"][..], &["10.0.0.0/8"][..], &[][..]),
            (&["10.0.0.0/8"], &["0.0.0.0/0"], &[]),
            (&["10.0.0.0/8"], &["::/0"], &["10.0.0.0/8"]),
            (
                &["10.0.0.0/30"],
                &["10.0.0.1"],
                &["10.0.0.0/32", "10.0.0.2/31"],
            ),
            (&["::/126"], &["::2/127"], &["::/127"]),
            (&["10.0.0.0/9", "10.128.0.0/9"], &[], &["10.0.0.0/8"]),
        ] {
            let without: Vec<IpNet> = without
                .iter()
                .map(|text| {
                    text.parse()
                        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
                        .expect("a network")
                })
                .collect();
            assert_eq!(subtract(&nets(of), &without), nets(rest), "{of:?}");
        }
    }

    #[test]
    fn what_both_have() {
        assert_eq!(
            intersect(
                &nets(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]),
                &nets(&["10.1.0.0/16", "10.3.0.0/16", "192.0.0.0/16", "::/0"]),
            ),
            nets(&[
                "10.1.0.0/16",
                "10.3.0.0/16",
                "192.0.2.0/24",
                "2001:db8::/32"
            ])
        );
    }
}
