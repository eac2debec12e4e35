//! Who has to do with a worker node in a day, and what must become of them where the
//! node is closed but for what its provider's default policies open: node ports,
//! `BigFix`, ICMP, VRRP, those who manage it, and all that goes out; or where only the
//! last of these is open.
//!
//! Without a filter all of them get what they want, the attackers too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::programs::{self, Dns, Load};
use super::sockets::{self, Datagram};
use super::{Client, Expect, Family, MANAGEMENT, Machine, Policies, Site, probe};
use crate::packet::{
    Extension, Icmp, Icmpv6, Ipv4, Ipv6, Packet, Payload, Raw, Tcp, Udp, protocol,
};

use Expect::{Refused, Works};
use Machine::{Client as Neighbour, Far, Node, Pod};

/// The port at the far end where the node must not go, by [`NO_MAIL`].
const MAIL: u16 = 25;

/// A policy beside the worker node's own: it sends no mail.
pub const NO_MAIL: &str = "\
apiVersion: v1
kind: policy
metadata:
  name: no-mail
spec:
  order: 100
  selector: ibm.role == 'worker_public'
  types:
  - egress
  egress:
  - action: deny
    protocol: tcp
    destination:
      ports:
      - 25
";

/// Everybody, and what must become of them under these policies and [`NO_MAIL`].
#[must_use]
pub fn everybody(policies: Policies) -> Vec<Client> {
    let mut clients = Vec::new();
    for family in Family::BOTH {
        out(&mut clients, family);
        paths(&mut clients, family);
        configuration(&mut clients, family);
        neighbourhood(&mut clients, family, policies);
        pod(&mut clients, family);
        into_the_node(&mut clients, family, policies);
        attackers(&mut clients, family, policies);
    }
    management(&mut clients, policies);
    clients
}

/// What the node itself wants of the world.
fn out(clients: &mut Vec<Client>, family: Family) {
    let mut add = adder(clients, family);
    let (far, near) = (Far.ip(family), Neighbour.ip(family));
    for (name, to, port) in [
        ("http out", far, 80),
        ("https-like out", far, 443),
        ("http to a neighbour", near, 80),
    ] {
        add(
            name,
            Works,
            Box::new(move |site| programs::curl(site, Node, &[], to, port)),
        );
    }
    for (name, how) in [
        ("dns out", Dns::Udp),
        ("dns out over tcp", Dns::Tcp),
        ("dns out, the answer in fragments", Dns::Fragments),
    ] {
        add(
            name,
            Works,
            Box::new(move |site| programs::dig(site, Node, family, how)),
        );
    }
    add(
        "ping out",
        Works,
        Box::new(move |site| programs::ping(site, Node, far, 56)),
    );
    add(
        "ping out in fragments",
        Works,
        Box::new(move |site| programs::ping(site, Node, far, 4000)),
    );
    // Port by port, since a server of iperf3 has one client at a time.
    let ports = match family {
        Family::V4 => 5201,
        Family::V6 => 5204,
    };
    for (name, port, load) in [
        ("iperf3 download", ports, Load::Down),
        ("iperf3 udp up", ports + 1, Load::UdpUp),
    ] {
        add(
            name,
            Works,
            Box::new(move |site| programs::iperf3(site, Node, far, port, load)),
        );
    }
    let port = match family {
        Family::V4 => 5207,
        Family::V6 => 5208,
    };
    add(
        "iperf3 udp down",
        Works,
        Box::new(move |site| programs::iperf3(site, Node, near, port, Load::UdpDown)),
    );
    for (name, own_port, to, port, bytes) in [
        ("ntp-like udp out", 123, far, 123, 48),
        ("ike-like fragments both ways", 500, far, 500, 4000),
        ("nat-traversal-like udp out", 4500, far, 4500, 1200),
        ("udp to a neighbour", 0, near, 9000, 100),
    ] {
        add(
            name,
            Works,
            Box::new(move |site| sockets::udp(site, datagram(Node, own_port, to, port, bytes))),
        );
    }
    add(
        "ssh-like out, idle for long",
        Works,
        Box::new(move |site| sockets::tcp_keys(site, Node, far, 22, 3, Duration::from_secs(5))),
    );
    add(
        "tcp to where nobody listens",
        Works,
        Box::new(move |site| sockets::tcp_refused(site, Node, far, 9)),
    );
    add(
        "udp to where nobody listens",
        Works,
        Box::new(move |site| {
            let what = datagram(Node, 0, far, 9, 8);
            sockets::udp_unreachable(site, what)
        }),
    );
    add(
        "mail out (forbidden)",
        Refused,
        Box::new(move |site| sockets::tcp_keys(site, Node, far, MAIL, 1, Duration::ZERO)),
    );
}

/// What the node hears of the way there.
fn paths(clients: &mut Vec<Client>, family: Family) {
    let mut add = adder(clients, family);
    add(
        "traceroute out",
        Works,
        Box::new(move |site| programs::traceroute(site, Node, family)),
    );
    add(
        "path mtu by udp",
        Works,
        Box::new(move |site| programs::udp_path_mtu(site, family)),
    );
    let port = match family {
        Family::V4 => 5203,
        Family::V6 => 5206,
    };
    add(
        "iperf3 upload, path mtu by tcp",
        Works,
        Box::new(move |site| programs::tcp_path_mtu(site, family, port)),
    );
}

/// How the node comes to its addresses.
fn configuration(clients: &mut Vec<Client>, family: Family) {
    let mut add = adder(clients, family);
    add(
        "dhcp",
        Works,
        Box::new(move |site| programs::dhcp(site, family)),
    );
    if family == Family::V6 {
        add(
            "an address of its own (slaac)",
            Works,
            Box::new(programs::slaac),
        );
    }
    add(
        "neighbours anew",
        Works,
        Box::new(move |site| programs::neighbours_anew(site, family)),
    );
}

/// Groups: who takes an address over, who wants what.
fn neighbourhood(clients: &mut Vec<Client>, family: Family, policies: Policies) {
    let mut add = adder(clients, family);
    add(
        "joins a group",
        Works,
        Box::new(move |site| sockets::join_group(site, family)),
    );
    let vrrp: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(224, 0, 0, 18).into(),
        Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).into(),
    };
    for (name, expect, from, to) in [
        ("vrrp in", open(policies), Neighbour, Node),
        ("vrrp out", Works, Node, Neighbour),
    ] {
        add(
            name,
            expect,
            Box::new(move |site| {
                probe::send_to_group(site, from, to, vrrp, &Raw::new(VRRP, &ADVERTISEMENT))
            }),
        );
    }
    if family == Family::V4 {
        add(
            "igmp query in",
            Works,
            Box::new(move |site| {
                // A general query of version 3: an older one would have the node
                // report to other groups from then on.
                let query = [0x11, 100, 0xec, 0x1e, 0, 0, 0, 0, 2, 125, 0, 0];
                let query = Raw::new(protocol::IGMP, &query);
                let all = Ipv4Addr::new(224, 0, 0, 1).into();
                probe::send_to_group(site, Neighbour, Node, all, &query)
            }),
        );
    }
}

const VRRP: u8 = 112;
/// Version 3, router 51, priority 100.
const ADVERTISEMENT: [u8; 12] = [0x31, 51, 100, 1, 0, 100, 0, 0, 192, 0, 2, 200];

/// What a pod of the node's wants; it has the node's address on the wire.
fn pod(clients: &mut Vec<Client>, family: Family) {
    let mut add = adder(clients, family);
    let (far, near) = (Far.ip(family), Neighbour.ip(family));
    for (name, to) in [
        ("http out of a pod", far),
        ("http of a pod to a neighbour", near),
    ] {
        add(
            name,
            Works,
            Box::new(move |site| programs::curl(site, Pod, &[], to, 80)),
        );
    }
    add(
        "dns out of a pod",
        Works,
        Box::new(move |site| programs::dig(site, Pod, family, Dns::Udp)),
    );
    add(
        "ping out of a pod",
        Works,
        Box::new(move |site| programs::ping(site, Pod, far, 56)),
    );
}

/// What the world wants of the node.
fn into_the_node(clients: &mut Vec<Client>, family: Family, policies: Policies) {
    let mut add = adder(clients, family);
    let (node, open) = (Node.ip(family), open(policies));
    for (name, expect, from, options, port) in [
        ("node port of a pod in", open, Far, &[][..], 30080),
        ("node port of a pod in, near", open, Neighbour, &[], 30080),
        ("node port of the node in", open, Far, &[], 30443),
        ("bigfix in", open, Far, &[], 52311),
        ("closed port in", Refused, Far, &[], 8081),
        ("closed port in, near", Refused, Neighbour, &[], 8081),
        // Whom a filter without memory has to let in.
        (
            "closed port in, from port 443",
            Refused,
            Neighbour,
            &["--local-port", "443"],
            8081,
        ),
    ] {
        add(
            name,
            expect,
            Box::new(move |site| programs::curl(site, from, options, node, port)),
        );
    }
    for (name, expect, from, own_port, port, bytes) in [
        ("node port of a pod in, udp", open, Far, 0, 30080, 100),
        ("node port in, udp in fragments", open, Far, 0, 30500, 4000),
        ("bigfix in, udp", open, Neighbour, 0, 52311, 100),
        ("closed port in, udp", Refused, Far, 0, 8081, 100),
        (
            "closed port in, udp from port 53",
            Refused,
            Neighbour,
            53,
            8081,
            100,
        ),
        (
            "closed port in, udp in fragments",
            Refused,
            Far,
            0,
            8081,
            4000,
        ),
    ] {
        add(
            name,
            expect,
            Box::new(move |site| sockets::udp(site, datagram(from, own_port, node, port, bytes))),
        );
    }
    for (name, from) in [
        ("ssh in (closed)", Far),
        ("ssh in (closed), near", Neighbour),
    ] {
        add(
            name,
            Refused,
            Box::new(move |site| sockets::tcp_keys(site, from, node, 22, 1, Duration::ZERO)),
        );
    }
    // By the provider's policy, which is about IPv4 alone.
    let pings = match family {
        Family::V4 => open,
        Family::V6 => Refused,
    };
    add(
        "ping in",
        pings,
        Box::new(move |site| programs::ping(site, Far, node, 56)),
    );
    let port = match family {
        Family::V4 => 30201,
        Family::V6 => 30202,
    };
    add(
        "iperf3 to a node port",
        open,
        Box::new(move |site| programs::iperf3(site, Far, node, port, Load::Up)),
    );
}

/// Those who manage the node reach all of it.
fn management(clients: &mut Vec<Client>, policies: Policies) {
    clients.push(Client::new(
        "management in v4",
        open(policies),
        |site: &Site| {
            let own = ["--interface", MANAGEMENT];
            programs::curl(site, Far, &own, Node.ip(Family::V4), 8081)
        },
    ));
}

/// Packets that belong to nothing that the node ever asked for. Each is from a
/// source of its own.
fn attackers(clients: &mut Vec<Client>, family: Family, policies: Policies) {
    let mut add = adder(clients, family);
    let tcp = |flags: u8, sport: u16| {
        Box::new(Tcp {
            sport,
            flags,
            ..Tcp::to(45000)
        }) as Box<dyn Payload + Send + Sync>
    };
    let udp = |sport: u16| {
        Box::new(Udp {
            sport,
            ..Udp::to(45000)
        }) as Box<_>
    };
    let echo_reply: Box<dyn Payload + Send + Sync> = match family {
        Family::V4 => Box::new(Icmp::new(0, 0)),
        Family::V6 => Box::new(Icmpv6::new(129, 0)),
    };
    // The provider's policy lets all ICMP in.
    let icmp = match family {
        Family::V4 => open(policies),
        Family::V6 => Refused,
    };
    for (number, name, expect, payload) in [
        (
            1,
            "syn, ack that nobody asked for",
            Refused,
            tcp(Tcp::SYN | Tcp::ACK, 443),
        ),
        (2, "ack that nobody asked for", Refused, tcp(Tcp::ACK, 443)),
        (
            3,
            "rst that nobody asked for",
            Refused,
            tcp(Tcp::RST | Tcp::ACK, 443),
        ),
        (4, "fin that nobody asked for", Refused, tcp(Tcp::FIN, 443)),
        (5, "udp as if from a resolver", Refused, udp(53)),
        (6, "udp as if from a clock", Refused, udp(123)),
        (7, "echo reply that nobody asked for", icmp, echo_reply),
        (
            8,
            "gre that nobody asked for",
            Refused,
            Box::new(Raw::new(protocol::GRE, &[0; 16])),
        ),
        (
            9,
            "esp that nobody asked for",
            Refused,
            Box::new(Raw::new(protocol::ESP, &[7; 40])),
        ),
    ] {
        let source = probe::source(number, family);
        let packet = probe::packet(source, payload.as_ref());
        add(
            name,
            expect,
            Box::new(move |site| probe::send(site, Far, source, &packet)),
        );
    }
    let source = probe::source(10, family);
    let packet = error_about_nothing(source);
    // Over IPv4 by the policy, over IPv6 as an essential.
    let error = match family {
        Family::V4 => open(policies),
        Family::V6 => Works,
    };
    add(
        "icmp error that nobody asked for",
        error,
        Box::new(move |site| probe::send(site, Far, source, &packet)),
    );
    let source = probe::source(11, family);
    let packet = later_fragment(source);
    add(
        "later fragment of nothing",
        Refused,
        Box::new(move |site| probe::send(site, Far, source, &packet)),
    );
}

/// "Port unreachable", about a datagram that the node never sent.
fn error_about_nothing(source: IpAddr) -> Packet {
    let never = Udp {
        sport: 45001,
        ..Udp::to(53)
    };
    match source {
        IpAddr::V4(dst) => {
            let sent = Ipv4 {
                src: Node.v4(),
                dst,
                ..Ipv4::default()
            }
            .carry(&never);
            let rest = [&[0; 4][..], &sent.bytes].concat();
            probe::packet(
                source,
                &Icmp {
                    rest,
                    ..Icmp::new(3, 3)
                },
            )
        }
        IpAddr::V6(dst) => {
            let sent = Ipv6 {
                src: Node.v6(),
                dst,
                ..Ipv6::default()
            }
            .carry(&never);
            let rest = [&[0; 4][..], &sent.bytes].concat();
            probe::packet(
                source,
                &Icmpv6 {
                    rest,
                    ..Icmpv6::new(1, 4)
                },
            )
        }
    }
}

fn later_fragment(source: IpAddr) -> Packet {
    let rest = Raw::new(protocol::UDP, &[7; 64]);
    match source {
        IpAddr::V4(src) => Ipv4 {
            src,
            ..Ipv4::fragment(100, false)
        }
        .carry(&rest),
        IpAddr::V6(src) => {
            let header = Extension::fragment(100, false);
            Ipv6 {
                src,
                ..Ipv6::with([header])
            }
            .carry(&rest)
        }
    }
}

/// What becomes of what the provider's policies open to the world.
const fn open(policies: Policies) -> Expect {
    match policies {
        Policies::Provider => Works,
        Policies::Outbound => Refused,
    }
}

/// Of so many bytes; from any port where its own is 0.
const fn datagram(from: Machine, own_port: u16, to: IpAddr, port: u16, bytes: usize) -> Datagram {
    Datagram {
        from,
        own_port,
        to,
        port,
        bytes,
    }
}

type Action = Box<dyn Fn(&Site) -> anyhow::Result<super::Outcome> + Send + Sync>;

/// Adds clients whose names end with the family's.
fn adder(clients: &mut Vec<Client>, family: Family) -> impl FnMut(&str, Expect, Action) + '_ {
    move |name, expect, action| {
        clients.push(Client::new(format!("{name} {family}"), expect, action));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_client_has_a_name_of_its_own() {
        let clients = everybody(Policies::Provider);
        let names: HashSet<&str> = clients.iter().map(|client| client.name.as_str()).collect();
        assert_eq!(names.len(), clients.len());
    }
}
