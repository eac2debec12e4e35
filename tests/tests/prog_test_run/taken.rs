//! Which frames the kernel runs at all: `TestBench::takes` says so of each, and neither too
//! many nor too few.

use filter_user::datapath::TestBench;
use filter_user::ruleset::{Action, Direction};

use crate::Filter;
use crate::egress::egress;
use crate::rules::ruleset;

/// A frame of so many bytes, of this `EtherType`, if it is long enough for one.
fn frame(ethertype: [u8; 2], length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    for (byte, value) in frame.iter_mut().skip(12).zip(ethertype) {
        *byte = value;
    }
    // A version and a length of its header, where it is IP.
    if let (Some(byte), [0x08, 0x00]) = (frame.get_mut(14), ethertype) {
        *byte = 0x45;
    }
    frame
}

const ETHERTYPES: [[u8; 2]; 5] = [
    [0x08, 0x00],
    [0x86, 0xdd],
    [0x08, 0x06],
    [0x81, 0x00],
    [0x88, 0xb5],
];

#[test]
fn what_is_taken_is_run_and_nothing_else_is() {
    let directions = [
        (Direction::Ingress, ruleset(Action::Allow, [])),
        (Direction::Egress, egress(Action::Allow, [])),
    ];
    for (direction, ruleset) in directions {
        let Some(mut filter) = Filter::load(&ruleset) else {
            return;
        };
        // Up to whole headers, ordinary ones, and about what a page has room for. Between 3,456
        // bytes and 3,776 it is up to the machine, and nothing is asked.
        let lengths = (0..=80).chain([576, 1_514, 3_400, 3_455, 3_456, 4_097, 9_014]);
        for length in lengths {
            for ethertype in ETHERTYPES {
                let frame = frame(ethertype, length);
                let taken = TestBench::takes(direction, &frame);
                let run = filter.0.judge(&frame);
                assert_eq!(
                    taken,
                    run.is_ok(),
                    "{direction:?}, {length} bytes of {ethertype:02x?}: {run:?}"
                );
            }
        }
    }
}
