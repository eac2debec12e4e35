//! What the kernel's verifier walks of the programs, and what it leaves of them. It
//! refuses a program of which it walks more than 1,000,000 instructions, and loading takes
//! as long as it walks: none may grow unseen.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "common/rules.rs"]
mod rules;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use filter_common::event::Rate;
use filter_user::compile::{Combination, Image};
use filter_user::datapath::{Compiled, ProgramSize, TestPair};
use filter_user::ruleset::{
    Action, Direction, Fragments, Match, Options, PortRange, Rule, Ruleset, Stage, Switch,
};
use ipnet::IpNet;

use rules::{allow, deny, failsafe, from, in_stage, log, ports, protocol, ruleset, staged};

const BUDGET: u64 = 64 << 20;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// More than was measured, of a hundred: other builds of a kernel walk a little more.
const SLACK: u64 = 10;

/// Of one program.
#[derive(Clone, Copy)]
struct Cost {
    verified_instructions: u64,
    xlated_bytes: u64,
}

const fn cost(verified_instructions: u64, xlated_bytes: u64) -> Cost {
    Cost {
        verified_instructions,
        xlated_bytes,
    }
}

/// What was measured of a shape: on the way in, and on the way out.
struct Measured {
    shape: &'static str,
    /// As of [`KERNELS`].
    on: [[Cost; 2]; 3],
}

/// The kernels that were measured, the oldest first. One that is between them is held
/// against the next older one.
const KERNELS: [(u32, u32); 3] = [(6, 1), (6, 12), (6, 18)];

/// `cargo test -p tests --features bpf --test verifier -- --nocapture` prints this on the
/// machine's own kernel, `cargo xtask kernels` on the others.
const MEASURED: &[Measured] = &[
    Measured {
        shape: "empty",
        on: [
            [cost(9_852, 27_504), cost(9_609, 27_440)],
            [cost(5_535, 19_280), cost(5_630, 19_224)],
            [cost(5_770, 18_824), cost(5_841, 18_768)],
        ],
    },
    Measured {
        shape: "node ports",
        on: [
            [cost(9_852, 27_504), cost(9_609, 27_440)],
            [cost(5_535, 19_280), cost(5_630, 19_224)],
            [cost(5_770, 18_824), cost(5_841, 18_768)],
        ],
    },
    Measured {
        shape: "blocklist",
        on: [
            [cost(11_307, 32_904), cost(9_609, 27_440)],
            [cost(7_181, 24_680), cost(5_630, 19_224)],
            [cost(7_537, 24_224), cost(5_841, 18_768)],
        ],
    },
    Measured {
        shape: "nested networks",
        on: [
            [cost(12_467, 39_288), cost(11_979, 38_832)],
            [cost(8_748, 31_088), cost(8_479, 30_640)],
            [cost(8_732, 30_632), cost(8_716, 30_184)],
        ],
    },
    Measured {
        shape: "acl by parts",
        on: [
            [cost(15_826, 42_576), cost(17_331, 42_080)],
            [cost(15_828, 34_376), cost(15_602, 33_888)],
            [cost(16_061, 33_920), cost(15_995, 33_432)],
        ],
    },
    Measured {
        shape: "acl with source ports",
        on: [
            [cost(17_758, 47_968), cost(19_018, 47_168)],
            [cost(18_566, 39_768), cost(18_166, 38_976)],
            [cost(18_963, 39_312), cost(18_728, 38_520)],
        ],
    },
    Measured {
        shape: "return traffic",
        on: [
            [cost(20_732, 45_552), cost(21_183, 45_432)],
            [cost(19_468, 42_832), cost(20_034, 42_720)],
            [cost(29_904, 41_840), cost(31_896, 41_728)],
        ],
    },
    Measured {
        shape: "log and staged",
        on: [
            [cost(13_467, 31_520), cost(15_337, 31_592)],
            [cost(12_326, 30_304), cost(14_059, 30_376)],
            [cost(12_507, 29_648), cost(14_173, 29_720)],
        ],
    },
    Measured {
        shape: "sampled drops",
        on: [
            [cost(10_907, 28_880), cost(10_660, 28_816)],
            [cost(8_754, 26_264), cost(8_743, 26_208)],
            [cost(8_655, 25_608), cost(8_820, 25_552)],
        ],
    },
    Measured {
        shape: "all, small",
        on: [
            [cost(38_273, 55_528), cost(41_398, 55_512)],
            [cost(47_422, 60_328), cost(53_635, 60_312)],
            [cost(47_463, 59_008), cost(53_579, 58_992)],
        ],
    },
    Measured {
        shape: "all, by parts",
        on: [
            [cost(48_549, 79_952), cost(51_248, 79_552)],
            [cost(64_403, 83_288), cost(69_623, 82_896)],
            [cost(64_691, 81_968), cost(69_758, 81_576)],
        ],
    },
];

/// Rulesets that make the programs what they are, whatever their addresses.
struct Shape {
    name: &'static str,
    both: [Ruleset; 2],
    combination: Option<Combination>,
    /// Whether the smaller program is taken for it.
    is_small: bool,
    max_flows: u32,
    sampling: Rate,
}

impl Shape {
    fn new(name: &'static str, ingress: Ruleset, egress: Ruleset) -> Self {
        Self {
            name,
            both: [ingress, outward(egress)],
            combination: None,
            is_small: true,
            max_flows: 0,
            sampling: Rate::OFF,
        }
    }

    /// Of rulesets that need the whole program.
    fn large(self) -> Self {
        Self {
            is_small: false,
            ..self
        }
    }

    fn by_parts(self) -> Self {
        Self {
            combination: Some(Combination::Parts),
            ..self.large()
        }
    }

    fn with_flows(self) -> Self {
        Self {
            max_flows: 1_024,
            ..self
        }
    }

    fn with_samples(self) -> Self {
        Self {
            sampling: Rate {
                events: 100,
                jiffies: 250,
            },
            ..self
        }
    }

    fn with_options(mut self, change: fn(&mut Options)) -> Self {
        for ruleset in &mut self.both {
            change(&mut ruleset.options);
        }
        self
    }

    fn load(&self) -> [ProgramSize; 2] {
        let images = self.both.each_ref().map(|ruleset| {
            let image = Image::compile_as(ruleset, BUDGET, self.combination).unwrap();
            assert_eq!(image.layout().is_small(), self.is_small, "{}", self.name);
            image
        });
        let side = |which: usize| Compiled {
            ruleset: &self.both[which],
            image: &images[which],
        };
        let loaded = TestPair::load_sampling(side(0), side(1), self.max_flows, self.sampling);
        let sizes = loaded.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        sizes.program_sizes().unwrap()
    }
}

fn outward(mut ruleset: Ruleset) -> Ruleset {
    ruleset.direction = Direction::Egress;
    for rule in &mut ruleset.rules {
        rule.id.direction = Direction::Egress;
    }
    ruleset
}

fn shapes() -> Vec<Shape> {
    let open = || ruleset(Action::Allow, []);
    let node_ports = || {
        let rules = [TCP, UDP].map(|number| deny(ports(number, &[(30000, 32767)])));
        ruleset(
            Action::Allow,
            rules.map(|rule| in_stage(Stage::PreDnat, rule)),
        )
    };
    let closed = |port: u16| {
        let rules = [
            allow(ports(TCP, &[(port, port)])),
            failsafe(ports(UDP, &[(68, 68)])),
        ];
        ruleset(Action::Deny, rules)
    };
    let noted = || {
        let rules = [
            log(ports(TCP, &[(80, 80)])),
            staged(deny(from(&["203.0.113.0/24"]))),
            log(Match::default()),
            deny(ports(TCP, &[(80, 80)])),
        ];
        ruleset(Action::Allow, rules)
    };
    vec![
        Shape::new("empty", open(), open()),
        Shape::new("node ports", node_ports(), open()),
        Shape::new("blocklist", blocklist(), open()),
        Shape::new("nested networks", nested(), nested()).large(),
        Shape::new("acl by parts", acl(false), acl(false)).by_parts(),
        Shape::new("acl with source ports", acl(true), acl(true)).by_parts(),
        Shape::new("return traffic", closed(22), closed(53)).with_flows(),
        Shape::new("log and staged", noted(), noted()),
        Shape::new("sampled drops", node_ports(), node_ports()).with_samples(),
        Shape::new("all, small", all(noted().rules), all(noted().rules))
            .with_flows()
            .with_samples()
            .with_options(every_switch),
        Shape::new("all, by parts", all(acl(true).rules), all(acl(true).rules))
            .by_parts()
            .with_flows()
            .with_samples()
            .with_options(every_switch),
    ]
}

fn every_switch(options: &mut Options) {
    options.fragments = Fragments::Track;
    options.non_ip = Switch::Drop;
    options.encapsulated_ip = Switch::Pass;
}

/// The rules, and nothing else passes.
fn all(rules: Vec<Rule>) -> Ruleset {
    let others = [failsafe(ports(TCP, &[(22, 22)])), allow(protocol(TCP))];
    ruleset(Action::Deny, rules.into_iter().chain(others))
}

/// Networks alone, as of a list: of both IP versions, and so many that it takes tables
/// and lines.
fn blocklist() -> Ruleset {
    let mut random = Random(1);
    let mut matches = Match::default();
    for _ in 0..20_000 {
        matches.src.nets.push(random.net(4, 24));
        matches.src.nets.push(random.net(6, 48));
    }
    ruleset(Action::Allow, [deny(matches)])
}

/// One network in another, of each length: the longest ways through the tries.
fn nested() -> Ruleset {
    let v4 = Ipv4Addr::new(203, 0, 113, 77);
    let v6 = Ipv6Addr::new(
        0x2001, 0xdb8, 0x1234, 0x5678, 0x9abc, 0xdef0, 0x1357, 0x9bdf,
    );
    let mut rules = Vec::new();
    for length in (8..=32).rev() {
        rules.push(IpNet::new(v4.into(), length).unwrap());
    }
    for length in (16..=128).rev() {
        rules.push(IpNet::new(v6.into(), length).unwrap());
    }
    let nets = rules.into_iter().map(|net| net.trunc());
    let rules = (0..).zip(nets).map(|(index, net): (u16, IpNet)| {
        let mut matches = ports(TCP, &[(index, index)]);
        matches.src.nets.push(net);
        deny(matches)
    });
    ruleset(Action::Allow, rules)
}

/// Rules over both addresses, with and without source ports.
fn acl(source_ports: bool) -> Ruleset {
    let mut random = Random(2);
    let rules = (0..200_u16).map(|index| {
        let version = if index % 2 == 0 { 4 } else { 6 };
        let mut matches = ports(TCP, &[(index, index + index % 7)]);
        if index % 5 != 0 {
            matches.src.nets.push(random.net(version, 24));
        }
        if index % 3 != 0 {
            matches.dst.nets.push(random.net(version, 28));
        }
        if source_ports && index % 4 == 0 {
            let (first, last) = (1024, 2048 + index);
            matches.src_ports.push(PortRange { first, last });
        }
        deny(matches)
    });
    ruleset(Action::Allow, rules.collect::<Vec<_>>())
}

/// Numbers that are the same on each machine (a linear congruence, of which the high
/// half is taken).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u32::try_from(self.0 >> 32).unwrap()
    }

    fn net(&mut self, version: u8, length: u8) -> IpNet {
        let address = if version == 4 {
            Ipv4Addr::from_bits(self.next()).into()
        } else {
            let site = u128::from(self.next()) << 64;
            Ipv6Addr::from_bits(0x2001_u128 << 112 | site | u128::from(self.next())).into()
        };
        IpNet::new(address, length).unwrap().trunc()
    }
}

/// What is wrong with a program, if anything.
fn complaint(what: &impl fmt::Display, found: u64, measured: u64) -> Option<String> {
    let most = measured + measured * SLACK / 100;
    (found > most).then(|| {
        format!(
            "{what}: {found}, which is {} more than the {measured} that were measured; at most \
             {most} are allowed",
            found - measured
        )
    })
}

#[test]
fn programs_do_not_grow_unseen() {
    if !tests::require::root_and_bpf() {
        return;
    }
    let running = tests::require::linux();
    let kernel = KERNELS.iter().rposition(|kernel| *kernel <= running);
    let kernel = kernel.expect("a kernel that is not older than all that were measured");
    let mut complaints = Vec::new();
    for shape in shapes() {
        let found = shape.load();
        let costs = found.map(|size| {
            format!(
                "cost({}, {})",
                size.verified_instructions, size.xlated_bytes
            )
        });
        println!("{running:?} {:?}: [{}]", shape.name, costs.join(", "));
        let Some(measured) = MEASURED.iter().find(|of| of.shape == shape.name) else {
            complaints.push(format!("{:?} was not measured", shape.name));
            continue;
        };
        for ((way, found), measured) in ["in", "out"].iter().zip(found).zip(measured.on[kernel]) {
            let name = |what| format!("{:?} on the way {way}, {what}", shape.name);
            let verified = name("instructions verified");
            let left = name("bytes left of the program");
            complaints.extend(complaint(
                &verified,
                found.verified_instructions,
                measured.verified_instructions,
            ));
            complaints.extend(complaint(&left, found.xlated_bytes, measured.xlated_bytes));
        }
    }
    assert!(
        complaints.is_empty(),
        "on Linux {}.{}, measured on {}.{}:\n{}",
        running.0,
        running.1,
        KERNELS[kernel].0,
        KERNELS[kernel].1,
        complaints.join("\n")
    );
}

#[test]
fn what_grows_is_a_complaint() {
    assert_eq!(complaint(&"this", 110, 100), None);
    assert_eq!(complaint(&"this", 3, 100), None);
    let said = complaint(&"this", 111, 100).unwrap();
    assert!(said.starts_with("this: 111, which is 11 more"), "{said}");
}

/// The kernel's own limit is far away, in each kernel that was measured.
#[test]
fn there_is_room_up_to_the_limit_of_the_kernel() {
    const LIMIT: u64 = 1_000_000;
    let all = MEASURED.iter().flat_map(|of| of.on.iter().flatten());
    let most = all.map(|cost| cost.verified_instructions).max().unwrap();
    assert!(most > 0 && most * 2 < LIMIT, "{most}");
}
