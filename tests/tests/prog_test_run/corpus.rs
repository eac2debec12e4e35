//! A corpus behind the shim: every frame is decided as it would be alone.

use std::net::Ipv4Addr;

use filter_user::compile::Image;
use filter_user::datapath::{Corpus, Count, Shape, Target, TestBench};
use filter_user::ruleset::{Action, Match, Ruleset};
use tests::packet::{Ethernet, Extension, Icmp, Ipv4, Payload, Tcp, Udp, protocol};

use crate::rules::{allow, deny, from, log, ports, ruleset};
use crate::{BUDGET, plain, v4, v6, v6_with};

fn rules() -> Ruleset {
    ruleset(
        Action::Deny,
        [
            log(crate::rules::protocol(17)),
            deny(from(&["10.0.0.0/8", "2001:db8::/32"])),
            allow(ports(6, &[(80, 80), (8000, 8999)])),
            deny(ports(17, &[(53, 53)])),
            allow(Match::default()),
        ],
    )
}

/// Frames of all lengths and kinds, and cut at every byte.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for payload in [
        &Tcp::to(80) as &dyn Payload,
        &Tcp::to(22),
        &Udp::to(53),
        &Udp::to(5353),
        &Icmp::new(8, 0),
    ] {
        frames.push(v4(payload));
        frames.push(v6(payload));
        frames.push(v6_with(
            [
                Extension::hop_by_hop(),
                Extension::units(protocol::DESTINATION, 6),
            ],
            payload,
        ));
        frames.push(Ethernet::default().tagged(&[0x88a8, 0x8100]).carry(&{
            Ipv4 {
                src: Ipv4Addr::new(10, 1, 2, 3),
                ..Ipv4::default()
            }
            .carry(payload)
        }));
    }
    let whole = frames.clone();
    for frame in whole {
        frames.extend((14..frame.len()).map(|length| frame[..length].to_vec()));
        let mut padded = frame;
        padded.resize(1_514, 0);
        frames.push(padded);
    }
    frames
}

fn expected(image: &Image, frames: &[Vec<u8>]) -> Vec<Count> {
    let mut counts = vec![Count::default(); image.counters() as usize];
    for frame in frames {
        for counter in image.judge(frame).counters() {
            let count = &mut counts[counter as usize];
            count.packets += 1;
            count.bytes += frame.len() as u64;
        }
    }
    counts
}

fn times(factor: u64, counts: &[Count]) -> Vec<Count> {
    let times = |count: &Count| Count {
        packets: count.packets * factor,
        bytes: count.bytes * factor,
    };
    counts.iter().map(times).collect()
}

#[test]
fn cases_are_decided_as_they_are_alone() {
    if !tests::require::root_and_bpf() {
        return;
    }
    let ruleset = rules();
    let image = Image::compile(&ruleset, BUDGET).unwrap();
    let mut bench = TestBench::load(&ruleset, &image).unwrap();
    let frames = frames();
    let mut corpus = Corpus::new(Shape::Cases, 2_000).unwrap();
    for frame in &frames {
        corpus.push(frame).unwrap();
    }
    let all = corpus.len();
    assert_eq!(all as usize, frames.len());

    let (counts, took) = bench.run_corpus(&mut corpus, 0..all, all).unwrap();
    assert_eq!(counts, expected(&image, &frames));
    assert_eq!(took.packets, all);
    // In another order, and three times.
    corpus.scatter(true);
    let (counts, _) = bench.run_corpus(&mut corpus, 0..all, 3 * all).unwrap();
    assert_eq!(counts, times(3, &expected(&image, &frames)));
    // A part of them.
    let part = &frames[17..400];
    let (counts, _) = bench.run_corpus(&mut corpus, 17..400, 383).unwrap();
    assert_eq!(counts, expected(&image, part));
    // The empty program counts nothing.
    corpus.run(Target::EMPTY).unwrap();
    let nothing = bench.run_corpus(&mut corpus, 0..1, 1).unwrap().0;
    assert_eq!(nothing, expected(&image, &frames[..1]));

    // Other frames in the same corpus.
    corpus.clear();
    assert!(bench.run_corpus(&mut corpus, 0..1, 1).is_err());
    let short = [v4(&Udp::to(53)), v6(&Tcp::to(80))];
    for frame in &short {
        corpus.push(frame).unwrap();
    }
    let (counts, _) = bench.run_corpus(&mut corpus, 0..2, 2).unwrap();
    assert_eq!(counts, expected(&image, &short));
    // And one alone afterwards.
    assert_eq!(bench.judge(&short[0]).unwrap(), image.judge(&short[0]));
}

#[test]
fn flows_are_decided_as_they_are_alone() {
    if !tests::require::root_and_bpf() {
        return;
    }
    let ruleset = rules();
    let image = Image::compile(&ruleset, BUDGET).unwrap();
    let mut bench = TestBench::load(&ruleset, &image).unwrap();
    let v4_flows = |length| {
        let frame = move |index: u32| {
            let packet = Ipv4 {
                src: Ipv4Addr::from_bits(0x0900_0000 + index * 0x1_0101),
                ..Ipv4::default()
            };
            let port = u16::try_from(index % 60_000).unwrap();
            let mut frame = plain(&packet.carry(&Tcp::to(port)));
            frame.resize(length, 0);
            frame
        };
        (0..1_000).map(frame).collect::<Vec<_>>()
    };
    let v6_flows: Vec<_> = (1..2_000_u16)
        .map(|port| {
            let mut frame = v6(&Udp::to(port));
            frame.resize(80, 0);
            frame
        })
        .collect();
    for (header, frames) in [(54, v4_flows(60)), (54, v4_flows(1_500)), (62, v6_flows)] {
        let shape = Shape::Flows {
            header,
            frame: frames[0].len(),
        };
        let count = u32::try_from(frames.len()).unwrap();
        let mut corpus = Corpus::new(shape, count).unwrap();
        for frame in &frames {
            corpus.push(frame).unwrap();
        }
        let (counts, _) = bench.run_corpus(&mut corpus, 0..count, count).unwrap();
        assert_eq!(counts, expected(&image, &frames));
        corpus.scatter(true);
        let (counts, _) = bench.run_corpus(&mut corpus, 0..count, 2 * count).unwrap();
        assert_eq!(counts, times(2, &expected(&image, &frames)));
        // No room, another length, another payload.
        assert!(corpus.push(&frames[0]).is_err());
        corpus.clear();
        corpus.push(&frames[0]).unwrap();
        let mut other = frames[1].clone();
        other.push(0);
        assert!(corpus.push(&other).is_err());
    }
}

#[test]
fn a_frame_that_cannot_be_run_is_refused() {
    if !tests::require::root_and_bpf() {
        return;
    }
    let mut corpus = Corpus::new(Shape::Cases, 4).unwrap();
    for length in [0, 13, Corpus::MAX_CASE + 1] {
        assert!(corpus.push(&vec![0; length]).is_err(), "{length}");
    }
    let mut far = vec![0; 1_000];
    far[Corpus::CASE_BYTES] = 1;
    assert!(corpus.push(&far).is_err());
    for length in [14, Corpus::CASE_BYTES, Corpus::MAX_CASE] {
        corpus.push(&vec![0; length]).unwrap();
    }
    corpus.run(Target::EMPTY).unwrap();
    corpus.run(Target::EMPTY_LINEAR).unwrap();
}
