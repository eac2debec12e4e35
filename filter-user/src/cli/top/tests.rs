//! What is counted comes out right, keys do what the help says, and the picture is as
//! it was: `SNAPSHOTS=overwrite cargo test -p filter-user` takes it as it is.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use filter_common::verdict::{Reason, Verdict};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::live::{Choice, Interface, Reading, Sort};
use super::model::{Asked, Model, Panel, Reports};
use super::view::{Theme, draw};
use crate::datapath::{Count, EgressHook, Mode, Stats};
use crate::packet_text::PacketText;
use crate::ruleset::{
    Action, Direction, Essentials, Fragments, Match, Options, Rule, RuleId, Ruleset, Stage, Switch,
};
use crate::telemetry::{Event, Headers};

const DENY: Action = Action::Deny;
const ALLOW: Action = Action::Allow;

fn count(packets: u64) -> Count {
    Count {
        packets,
        bytes: packets * 60,
    }
}

fn rule(policy: &str, index: u32, action: Action) -> Rule {
    Rule {
        id: RuleId {
            stage: Stage::PreDnat,
            policy: policy.into(),
            direction: Direction::Ingress,
            index: Some(index),
        },
        tier: None,
        action,
        staged: false,
        matches: vec![Match {
            protocol: Some(6),
            ..Match::default()
        }],
        source: None,
    }
}

/// Rules with what they counted; the reasons are their sums.
fn stats(interface: &str, rules: Vec<(Rule, u64)>) -> Stats {
    let of = |action| {
        let rules = rules.iter();
        let decided = rules.filter(|(rule, _)| rule.action == action && !rule.staged);
        count(decided.map(|(_, packets)| packets).sum())
    };
    let reasons = vec![
        (Reason::PolicyDeny, Verdict::Drop, of(DENY)),
        (Reason::DefaultDeny, Verdict::Drop, count(0)),
        (Reason::PolicyAllow, Verdict::Pass, of(ALLOW)),
    ];
    let (rules, of_rules) = rules
        .into_iter()
        .map(|(rule, packets)| (rule, count(packets)))
        .unzip();
    Stats {
        interface: interface.to_owned(),
        direction: Direction::Ingress,
        ruleset: Arc::new(Ruleset {
            endpoint: interface.to_owned(),
            direction: Direction::Ingress,
            sets: Vec::new(),
            rules,
            default: ALLOW,
            options: Options {
                fragments: Fragments::Drop,
                non_ip: Switch::Pass,
                encapsulated_ip: Switch::Drop,
                essentials: Essentials::NONE,
            },
        }),
        of_rules,
        reasons,
        essentials: Vec::new(),
    }
}

fn interface(totals: Stats) -> Interface {
    Interface {
        name: totals.interface.as_str().into(),
        mode: Some(Mode::Native),
        generation: 5,
        hook: Some(EgressHook::Tcx),
        totals: vec![totals],
    }
}

/// A clock that tests turn on.
struct Clock(Instant);

impl Clock {
    fn reading(&mut self, seconds: u64, all: Vec<Stats>) -> Reading {
        self.0 += Duration::from_secs(seconds);
        Reading {
            at: self.0,
            // 2026-11-28T12:00:00Z
            time: SystemTime::UNIX_EPOCH + Duration::from_hours(498_852),
            interfaces: all.into_iter().map(interface).collect(),
        }
    }
}

fn clock() -> Clock {
    Clock(Instant::now())
}

fn begin(reading: Reading) -> Model {
    Model::new(reading, Sort::Order, Duration::from_secs(1))
}

/// The rates of the rules, in order.
fn rates(model: &Model) -> Vec<(String, Option<u64>)> {
    let choice = Choice {
        sort: Sort::Order,
        ..Choice::default()
    };
    let rules = model.shown().rules(&choice);
    let rules = rules.iter();
    rules
        .map(|row| {
            let id = &row.rule.id;
            let index = id.index.unwrap_or(99);
            (format!("{} {} {index}", row.interface, id.policy), row.rate)
        })
        .collect()
}

fn rate_of(model: &Model, name: &str) -> Option<u64> {
    let rates = rates(model);
    let found = rates.iter().find(|(rule, _)| rule == name);
    found.unwrap_or_else(|| panic!("no {name} in {rates:?}")).1
}

fn drops(model: &Model) -> Option<u64> {
    let choice = Choice::default();
    let (_, rate) = model.shown().total(&choice, Verdict::Drop);
    rate.map(|rate| rate.packets)
}

fn event(text: &str, sampled_1_in: Option<u64>, interface: &str) -> Event {
    let packet: PacketText = text.parse().expect("a packet");
    let headers = Headers::read(&packet.frame());
    Event {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_867_199),
        node: None,
        interface: interface.into(),
        direction: Direction::Ingress,
        verdict: match sampled_1_in {
            Some(_) => Verdict::Drop,
            None => Verdict::Pass,
        },
        reason: Reason::PolicyDeny,
        action: Some(DENY),
        stage: Some(Stage::PreDnat),
        tier: None,
        policy: Some("deny-node-ports".into()),
        rule: Some(0),
        decided_by: None,
        ip: headers.ip,
        l4: headers.l4,
        icmp: headers.icmp,
        length: 60,
        sampled_1_in,
        lost: 0,
        header: None,
    }
}

fn press(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '⇊' => KeyCode::PageDown,
            '⇈' => KeyCode::PageUp,
            '⇱' => KeyCode::Home,
            '⇲' => KeyCode::End,
            letter => KeyCode::Char(letter),
        };
        assert_eq!(model.key(KeyEvent::from(code)), Asked::Nothing, "{key:?}");
    }
}

#[test]
fn rates_are_those_since_the_reading_before() {
    let mut clock = clock();
    let first = stats(
        "eth0",
        vec![(rule("p", 0, DENY), 100), (rule("p", 1, ALLOW), 5)],
    );
    let mut second = first.clone();
    second.of_rules[0] = count(300);
    second.reasons[0].2 = count(300);
    let mut model = begin(clock.reading(0, vec![first]));
    assert_eq!(rate_of(&model, "eth0 p 0"), None, "one reading has no rate");
    assert_eq!(drops(&model), None);
    model.read(clock.reading(2, vec![second.clone()]));
    assert_eq!(rate_of(&model, "eth0 p 0"), Some(100));
    assert_eq!(rate_of(&model, "eth0 p 1"), Some(0));
    assert_eq!(drops(&model), Some(100));
    let reasons = model.shown().reasons(&Choice::default());
    assert_eq!(reasons.len(), 2, "those that never came are left out");
    assert_eq!(
        (reasons[0].reason, reasons[0].rate),
        (Reason::PolicyDeny, Some(100))
    );
    model.read(clock.reading(1, vec![second]));
    assert_eq!(drops(&model), Some(0));
    let history: Vec<u64> = model
        .shown()
        .drops(&Choice::default())
        .map(|(rate, _)| rate)
        .collect();
    assert_eq!(history, [0, 100], "the newest first");
}

#[test]
fn rates_follow_rules_over_changes_of_the_policy() {
    let mut clock = clock();
    let rules = |of: &[(&str, u32, Action, u64)]| {
        let rules = of.iter();
        let rules =
            rules.map(|(policy, index, action, packets)| (rule(policy, *index, *action), *packets));
        vec![stats("eth0", rules.collect())]
    };
    let mut model = begin(clock.reading(0, rules(&[("a", 0, DENY, 1_000), ("b", 0, ALLOW, 50)])));
    // They change places, one is new, and `a 0` does something else now, so that it
    // began again.
    let now = rules(&[
        ("new", 0, ALLOW, 30),
        ("b", 0, ALLOW, 70),
        ("a", 0, ALLOW, 1_000),
    ]);
    model.read(clock.reading(1, now));
    assert_eq!(rate_of(&model, "eth0 new 0"), Some(30));
    assert_eq!(rate_of(&model, "eth0 b 0"), Some(20));
    assert_eq!(rate_of(&model, "eth0 a 0"), Some(1_000));
    // Taken off and put in force again: counted anew, and never negative.
    let anew = rules(&[("b", 0, ALLOW, 7), ("a", 0, ALLOW, 3)]);
    model.read(clock.reading(1, anew));
    assert_eq!(rate_of(&model, "eth0 b 0"), Some(7));
    assert_eq!(rate_of(&model, "eth0 a 0"), Some(3));
}

#[test]
fn interfaces_come_and_go() {
    let mut clock = clock();
    let of = |name: &str, packets| stats(name, vec![(rule("p", 0, DENY), packets)]);
    let mut model = begin(clock.reading(0, vec![of("eth0", 10)]));
    model.read(clock.reading(1, vec![of("eth0", 20), of("eth1", 5_000)]));
    assert_eq!(rate_of(&model, "eth0 p 0"), Some(10));
    assert_eq!(rate_of(&model, "eth1 p 0"), None, "who knows since when");
    assert_eq!(drops(&model), Some(10));
    press(&mut model, "ii");
    assert_eq!(model.choice.scope.as_deref(), Some("eth1"));
    assert_eq!(model.shown().rules(&model.choice).len(), 1);
    model.read(clock.reading(1, vec![of("eth0", 20)]));
    assert!(model.shown().rules(&model.choice).is_empty());
    assert!(picture(&model, 80, 24).contains("eth1: not filtered any more"));
    press(&mut model, "i");
    assert_eq!(model.choice.scope, None);
    model.read(clock.reading(1, Vec::new()));
    assert!(picture(&model, 80, 24).contains("nothing is filtered any more"));
}

#[test]
fn drops_weigh_what_they_stand_for() {
    let mut clock = clock();
    let mut model = begin(clock.reading(0, vec![stats("eth0", Vec::new())]));
    let dropped = "tcp 203.0.113.7:9 > 192.0.2.10:30080";
    model.take(
        vec![
            event(dropped, Some(1_000), "eth0"),
            event("udp 203.0.113.8:9 > 192.0.2.10:53", Some(5), "eth1"),
            event("icmp 203.0.113.9 > 192.0.2.10 type 8 code 0", None, "eth0"),
        ],
        7,
    );
    let choice = Choice::default();
    let sources = model.shown().sources(&choice);
    let told: Vec<(String, u64)> = sources
        .items
        .iter()
        .map(|item| (item.key.to_string(), item.count))
        .collect();
    assert_eq!(
        told,
        [
            ("203.0.113.7".to_owned(), 1_000),
            ("203.0.113.8".to_owned(), 5)
        ],
        "a logged packet was not dropped"
    );
    let ports = model.shown().ports(&choice);
    assert_eq!(ports.items[0].key.to_string(), "tcp/30080");
    assert_eq!(model.shown().lost(), 7);
    let of_one = Choice {
        scope: Some("eth1".into()),
        ..Choice::default()
    };
    assert_eq!(model.shown().sources(&of_one).total, 5);
    // Logged packets stand among the others where they are asked for.
    assert_eq!(model.shown().recent(&model.choice).len(), 2);
    press(&mut model, "l");
    assert_eq!(model.shown().recent(&model.choice).len(), 3);
    press(&mut model, "r");
    assert!(model.shown().sources(&choice).items.is_empty());
    assert_eq!(model.shown().lost(), 0);
}

#[test]
fn a_pause_keeps_the_picture_and_loses_nothing() {
    let mut clock = clock();
    let of = |packets| vec![stats("eth0", vec![(rule("p", 0, DENY), packets)])];
    let mut model = begin(clock.reading(0, of(10)));
    press(&mut model, "p");
    model.read(clock.reading(1, of(20)));
    model.take(
        vec![event("udp 203.0.113.8:9 > 192.0.2.10:53", Some(5), "eth0")],
        0,
    );
    assert!(model.is_paused());
    assert_eq!(rate_of(&model, "eth0 p 0"), None);
    assert!(picture(&model, 80, 24).contains("PAUSED"));
    press(&mut model, " ");
    assert_eq!(rate_of(&model, "eth0 p 0"), Some(10));
    assert_eq!(model.shown().sources(&Choice::default()).total, 5);
}

#[test]
fn keys_choose_panels_rows_and_orders() {
    let mut model = full();
    picture(&model, 80, 24);
    press(&mut model, "\t");
    assert_eq!(model.panel, Panel::Reasons);
    press(&mut model, "1");
    model.key(KeyCode::BackTab.into());
    assert_eq!(model.panel, Panel::Recent);
    press(&mut model, "1");
    // Down and up again, never beyond an end.
    let rows = model.shown().rules(&model.choice).len();
    let row = |model: &Model| {
        picture(model, 80, 24);
        model.window(Panel::Rules, rows, 7).1
    };
    press(&mut model, "↓↓↓↑");
    assert_eq!(row(&model), Some(2));
    press(&mut model, "⇊");
    assert_eq!(row(&model), Some(9));
    press(&mut model, "⇲⇊↓");
    assert_eq!(row(&model), Some(rows - 1));
    let (seen, _) = model.window(Panel::Rules, rows, 7);
    assert_eq!(seen, rows - 7..rows);
    press(&mut model, "⇱⇈↑");
    assert_eq!(row(&model), Some(0));
    // Rows that are gone take the selection with them.
    press(&mut model, "⇲");
    assert_eq!(model.window(Panel::Rules, 3, 7), (0..3, Some(2)));

    model.choice.sort = Sort::Rate;
    press(&mut model, "sss");
    assert_eq!(model.choice.sort, Sort::Order);
    press(&mut model, ">s<<<<");
    assert_eq!(model.choice.sort, Sort::Packets);
    let most = |model: &Model| model.shown().rules(&model.choice)[0].count.packets;
    assert_eq!(most(&model), 4_000_001_234);
    press(&mut model, "S");
    assert_eq!(most(&model), 0);
    press(&mut model, "z");
    assert!(most(&model) > 0);
    press(&mut model, "sssS");
    let first = model.shown().rules(&model.choice)[0]
        .rule
        .id
        .policy
        .to_string();
    assert_eq!(first, "a-policy-with-a-name-that-is-longer-than-its-column");

    let before = model.interval;
    press(&mut model, "++-");
    assert_eq!((before.as_secs(), model.interval.as_secs()), (1, 2));
    press(&mut model, "-----");
    assert_eq!(model.interval, Duration::from_millis(500));
    press(&mut model, "+++++++++");
    assert_eq!(model.interval, Duration::from_mins(1));
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut model = full();
    press(&mut model, "/NODE-porTx\x08q");
    assert!(model.is_typing, "q is a letter here");
    press(&mut model, "\x08\n");
    assert_eq!(model.choice.filter, "node-port");
    let rules = model.shown().rules(&model.choice).len();
    assert_eq!(rules, 2);
    assert!(picture(&model, 80, 24).contains("2 rules with \"node-port\""));
    // Sources are none of that name.
    assert!(model.shown().sources(&model.choice).items.is_empty());
    press(&mut model, "/\x1b/203.0.113.7\n");
    assert_eq!(model.shown().sources(&model.choice).items.len(), 1);
    press(&mut model, "\x1b");
    assert_eq!(model.choice.filter, "");
    press(&mut model, "/abc");
    model.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
    assert_eq!(model.choice.filter, "");
}

#[test]
fn ways_out() {
    let quits = |keys: &str, code: KeyCode, modifiers| {
        let mut model = full();
        press(&mut model, keys);
        model.key(KeyEvent::new(code, modifiers)) == Asked::Quit
    };
    let none = KeyModifiers::NONE;
    assert!(quits("", KeyCode::Char('q'), none));
    assert!(quits("", KeyCode::Esc, none));
    assert!(quits("?", KeyCode::Char('q'), none));
    // What is open is closed first.
    for open in ["?", "\n", "/", "/x", "/x\n"] {
        assert!(!quits(open, KeyCode::Esc, none), "{open:?}");
        assert!(
            quits(open, KeyCode::Char('c'), KeyModifiers::CONTROL),
            "{open:?}"
        );
        let mut model = full();
        press(&mut model, open);
        press(&mut model, "\x1b");
        assert_eq!(model.key(KeyCode::Esc.into()), Asked::Quit, "{open:?}");
    }
}

/// All panels have something to show.
fn full() -> Model {
    let mut clock = clock();
    let with = |packets: u64| {
        let mut rules = vec![
            (rule("deny-node-ports", 0, DENY), 12_300_000 + packets * 37),
            (rule("deny-node-ports", 1, DENY), 1_200 + packets),
            (rule("web", 0, ALLOW), 99_000 + packets * 3),
            (
                Rule {
                    staged: true,
                    ..rule(
                        "a-policy-with-a-name-that-is-longer-than-its-column",
                        7,
                        DENY,
                    )
                },
                500 + packets * 2,
            ),
            (rule("logs", 0, Action::Log), 17),
        ];
        rules.extend((0..12).map(|index| (rule("never", index, ALLOW), 0)));
        vec![
            stats("eth0", rules),
            stats(
                "eth1",
                vec![(rule("web", 0, ALLOW), 4_000_000_000 + packets)],
            ),
        ]
    };
    let mut model = begin(clock.reading(0, with(0)));
    for (second, packets) in [0, 10, 40, 90, 90, 300, 700, 1_234].into_iter().enumerate() {
        model.read(clock.reading(1 + second as u64 / 100, with(packets)));
    }
    let mut events = Vec::new();
    for host in 1..=12_u64 {
        let text = format!(
            "tcp 203.0.113.{host}:51515 > 192.0.2.10:{}",
            30_080 + host % 3
        );
        events.push(event(&text, Some(host * host * 100), "eth0"));
    }
    events.push(event(
        "udp [2001:db8:1234:5678:9abc:def0:1234:5678]:9 > [2001:db8::10]:53",
        Some(1_000_000),
        "eth1",
    ));
    model.take(events, 98_765);
    model.choice.sort = Sort::Rate;
    model
}

fn buffer(model: &Model, width: u16, height: u16, theme: Theme) -> ratatui::buffer::Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, theme)).unwrap();
    terminal.backend().buffer().clone()
}

/// The picture as text.
fn picture(model: &Model, width: u16, height: u16) -> String {
    let buffer = buffer(model, width, height, Theme { color: false });
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn is_as_before(name: &str, picture: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/pictures");
    let path = path.join(name).with_extension("txt");
    if std::env::var_os("SNAPSHOTS").is_some_and(|what| what == "overwrite") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, picture).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(before == picture, "{name} was\n{before}\nand is\n{picture}");
}

#[test]
fn pictures() {
    let mut model = full();
    for (width, height) in [(80, 24), (120, 40), (40, 10)] {
        is_as_before(
            &format!("{width}x{height}"),
            &picture(&model, width, height),
        );
    }
    press(&mut model, "3\n");
    is_as_before("sources-80x24", &picture(&model, 80, 24));
    press(&mut model, "\n?");
    is_as_before("help-80x24", &picture(&model, 80, 24));
    is_as_before("help-40x10", &picture(&model, 40, 10));
    is_as_before("too-small-39x9", &picture(&model, 39, 9));
    let mut model = full();
    model.reports = Reports::Nowhere("another `nodewall observe` reads the events".to_owned());
    press(&mut model, "i");
    is_as_before("counters-alone-80x24", &picture(&model, 80, 24));
}

/// At no size is anything drawn outside, or does it panic; and what is essential is there.
#[test]
fn every_size() {
    let mut models = [full(), full(), full()];
    press(&mut models[1], "\n?");
    press(&mut models[2], "5/x");
    for model in &models {
        for width in [1, 39, 40, 41, 59, 69, 70, 77, 78, 80, 109, 110, 200] {
            for height in [1, 2, 9, 10, 11, 13, 19, 20, 24, 31, 32, 60] {
                let picture = picture(model, width, height);
                if width < 40 || height < 10 {
                    continue;
                }
                assert!(
                    picture.contains("nodewall top"),
                    "{width}x{height}: {picture}"
                );
            }
        }
    }
    for (width, height) in [(80, 24), (78, 20), (100, 30), (200, 60)] {
        let picture = picture(&models[0], width, height);
        for essential in [
            "deny-node-ports",
            "policy_deny",
            "203.0.113.12",
            "tcp/30080",
            "udp/53",
            "passed",
            "dropped",
        ] {
            assert!(
                picture.contains(essential),
                "{width}x{height}, {essential}: {picture}"
            );
        }
    }
}

/// With colours there are the eight that every terminal has, without none at all; and
/// what they say is said without them.
#[test]
fn colours() {
    let model = full();
    let colored = buffer(&model, 120, 40, Theme { color: true });
    let plain = buffer(&model, 120, 40, Theme { color: false });
    let basic = [Color::Reset, Color::Red, Color::Green, Color::Magenta];
    let mut seen = 0;
    for (with, without) in colored.content().iter().zip(plain.content()) {
        assert_eq!(with.symbol(), without.symbol());
        assert!(
            basic.contains(&with.fg) && with.bg == Color::Reset,
            "{with:?}"
        );
        assert_eq!((without.fg, without.bg), (Color::Reset, Color::Reset));
        seen += usize::from(with.fg != Color::Reset);
    }
    assert!(seen > 0);
    // The selected row has a mark, and is reversed.
    let marked: Vec<u16> = (0..40).filter(|y| plain[(0, *y)].symbol() == ">").collect();
    assert_eq!(marked.len(), 1);
    assert!(plain[(5, marked[0])].modifier.contains(Modifier::REVERSED));
}
