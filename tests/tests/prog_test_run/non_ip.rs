//! What isn't IP, and IP that is wrapped: two switches.

use filter_common::verdict::Reason;
use filter_user::ruleset::{Action, Ruleset, Switch};
use tests::packet::{Ipv4, Packet, Tcp, ethertype, llc, mpls, pppoe, snap};

use crate::rules::ruleset;
use crate::{Filter, plain};

fn switched(non_ip: Switch, encapsulated_ip: Switch) -> Ruleset {
    let mut ruleset = ruleset(Action::Allow, []);
    ruleset.options.non_ip = non_ip;
    ruleset.options.encapsulated_ip = encapsulated_ip;
    ruleset
}

fn not_ip() -> [Vec<u8>; 4] {
    [
        plain(&Packet::new(ethertype::LLDP, &[2, 7])),
        plain(&llc(0x42, 0x42, &[0; 35])),
        plain(&Packet::new(ethertype::PPPOE_DISCOVERY, &[0x11, 9])),
        plain(&mpls(&[16], &[0; 4])),
    ]
}

fn wrapped() -> [Vec<u8>; 4] {
    let packet = Ipv4::default().carry(&Tcp::to(80));
    [
        plain(&snap([0; 3], &packet)),
        plain(&llc(6, 6, &packet.bytes)),
        plain(&pppoe(0x21, false, &packet.bytes)),
        plain(&mpls(&[16, 17], &packet.bytes)),
    ]
}

#[test]
fn every_position_of_the_switches() {
    use Switch::{Drop, Pass};
    for (non_ip, encapsulated) in [(Pass, Drop), (Pass, Pass), (Drop, Drop), (Drop, Pass)] {
        let Some(mut filter) = Filter::load(&switched(non_ip, encapsulated)) else {
            return;
        };
        for frame in not_ip() {
            match non_ip {
                Pass => filter.passes(Reason::NotIp, &frame),
                Drop => filter.drops(Reason::NotIp, &frame),
            }
        }
        for frame in wrapped() {
            match (encapsulated, non_ip) {
                (Drop, _) => filter.drops(Reason::Encapsulated, &frame),
                (Pass, Pass) => filter.passes(Reason::NotIp, &frame),
                (Pass, Drop) => filter.drops(Reason::NotIp, &frame),
            }
        }
    }
}
