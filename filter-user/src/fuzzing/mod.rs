//! What the targets of `fuzz/` call, and what `cargo test` replays with their seeds and with
//! what they found. Each asks for more than that nothing panics.

mod rules;

use std::fmt::{Debug, Write as _};
use std::io::Cursor as Bytes;
use std::net::IpAddr;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Unstructured;
use filter_common::classify;
use filter_common::packet::Cursor;
use ipnet::IpNet;

use crate::cli::capture::Capture;
use crate::compile::{Combination, Image};
use crate::conversation::Conversation as OnHost;
use crate::datapath::record;
use crate::policy::list::read_bytes;
use crate::policy::print::{self, PrintOptions};
use crate::policy::selector::Selector;
use crate::policy::{
    Labels, Model, SelectOptions, Source, check, diagnostic, endpoints_for, select,
};
use crate::reference;
use crate::ruleset::{Direction, Fragments, Ruleset};
use crate::telemetry::http;

/// A target: its name, as that of its folder of seeds, and what it is called by.
pub type Target = (&'static str, fn(&[u8]));

/// All there are.
pub const TARGETS: [Target; 9] = [
    ("packet", packet),
    ("image", image),
    ("conversation", conversation),
    ("record", record),
    ("documents", documents),
    ("selector", selector),
    ("list", list),
    ("query", query),
    ("capture", capture),
];

/// Enough for any ruleset that is made here.
const MEMORY: u64 = 64 << 20;

/// Answers that must be one.
#[expect(
    clippy::needless_pass_by_value,
    reason = "answers are made for this, and for nothing else"
)]
fn same<A: Debug + PartialEq>(first: A, second: A, about: &dyn Debug) {
    assert_eq!(first, second, "about {about:?}");
}

/// The rulesets that packets meet, each by all ways to combine its classes: what all
/// formats have, each way to treat what can't be read, both directions.
static RULESETS: LazyLock<Vec<(Ruleset, Vec<Image>)>> = LazyLock::new(|| {
    let text = include_str!("packet.yaml");
    let sources = [Source::new("packet.yaml", text)];
    let checked = check(&sources);
    let shown = diagnostic::render(&checked.diagnostics, &sources, false);
    let model = checked.model.unwrap_or_else(|| panic!("{shown}"));
    let host = crate::policy::Host::default();
    let endpoints = endpoints_for(&model, &["eth0".into()], &Labels::new(), &host)
        .unwrap_or_else(|error| panic!("{error}"));
    let cases = [
        (Direction::Ingress, Fragments::Drop),
        (Direction::Ingress, Fragments::L3Only),
        (Direction::Egress, Fragments::Drop),
    ];
    cases
        .into_iter()
        .map(|(direction, fragments)| {
            let mut options = SelectOptions::default();
            options.options.fragments = fragments;
            let selected = select(&model, &endpoints[0], direction, &options);
            let images = images(&selected.ruleset);
            (selected.ruleset, images)
        })
        .collect()
});

/// A ruleset, compiled as it would be and as it must be possible too.
fn images(ruleset: &Ruleset) -> Vec<Image> {
    let mut rules = ruleset.rules.iter();
    let other = if rules.all(|rule| !rule.staged && rule.action.is_final()) {
        Combination::Parts
    } else {
        Combination::Dense
    };
    [None, Some(other)]
        .into_iter()
        .map(|combination| {
            let image = Image::compile_as(ruleset, MEMORY, combination);
            image.unwrap_or_else(|error| panic!("{error}: {ruleset:?}"))
        })
        .collect()
}

/// A frame, by all readers and evaluators that there are.
pub fn packet(frame: &[u8]) {
    let cursor = Cursor::over(frame);
    for (ruleset, images) in RULESETS.iter() {
        let expected = reference::judge(ruleset, frame);
        for image in images {
            let any = image.judgement(classify::decide_any(&cursor, image, |_, _| {}));
            same(&any, &expected, &frame);
            if let Some(plain) = classify::decide_plain(&cursor, image) {
                same(&image.judgement(plain), &expected, &frame);
            }
        }
    }
}

/// A ruleset and frames: what the compiler makes of it says the same as the reference. Of
/// tables that are damaged nothing is asked but an answer.
pub fn image(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let Ok(ruleset) = rules::ruleset(&mut data, Direction::Ingress) else {
        return;
    };
    let images = images(&ruleset);
    let damaged: Vec<Image> = images
        .iter()
        .filter_map(|image| damaged(image, &mut data).ok())
        .collect();
    while let Ok(frame) = rules::frame(&mut data, &ruleset) {
        let expected = reference::judge(&ruleset, &frame);
        for image in &images {
            same(&image.judge(&frame), &expected, &(&ruleset, &frame));
        }
        for image in &damaged {
            let _any = image.judge(&frame);
        }
        if data.is_empty() {
            break;
        }
    }
}

/// The same image with some of its words changed: where its tables are, what is in them, or
/// both, so that an index leads anywhere.
fn damaged(image: &Image, data: &mut Unstructured<'_>) -> arbitrary::Result<Image> {
    let changes = (0..data.int_in_range(1..=3)?)
        .map(|_| Ok((data.arbitrary()?, data.arbitrary()?, data.arbitrary()?)))
        .collect::<arbitrary::Result<Vec<(bool, u32, u32)>>>()?;
    Ok(image.spoilt(|layout, lines| {
        for (in_layout, place, word) in changes {
            let words = if in_layout {
                bytemuck::cast_slice_mut(std::slice::from_mut(layout))
            } else {
                bytemuck::cast_slice_mut::<_, u32>(lines)
            };
            let place = place as usize % words.len().max(1);
            if let Some(there) = words.get_mut(place) {
                *there = word;
            }
        }
    }))
}

/// Rulesets of both directions, and who talks to whom: what is remembered is the same.
pub fn conversation(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let ingress = rules::ruleset(&mut data, Direction::Ingress);
    let egress = rules::ruleset(&mut data, Direction::Egress);
    let (Ok(ingress), Ok(egress)) = (ingress, egress) else {
        return;
    };
    let compile = |ruleset| {
        let image = Image::compile(ruleset, MEMORY);
        image.unwrap_or_else(|error| panic!("{error}: {ruleset:?}"))
    };
    let (of_ingress, of_egress) = (compile(&ingress), compile(&egress));
    let mut expected = reference::Conversation::new(&ingress, &egress);
    let host = OnHost::new((&ingress, &of_ingress), (&egress, &of_egress));
    let mut now = Duration::ZERO;
    let mut step = |data: &mut Unstructured<'_>| -> arbitrary::Result<()> {
        let (direction, ruleset) = if data.arbitrary()? {
            (Direction::Ingress, &ingress)
        } else {
            (Direction::Egress, &egress)
        };
        now += Duration::from_secs(data.int_in_range(0..=400)?);
        let frame = rules::frame(data, ruleset)?;
        let judgement = expected.judge(now, direction, &frame);
        same(
            host.judge(now, direction, &frame),
            judgement,
            &(&ingress, &egress, now, direction, &frame),
        );
        same(
            host.flows(now).len(),
            expected.flows(now).len(),
            &(&ingress, &egress, now, direction, &frame),
        );
        Ok(())
    };
    while !data.is_empty() && step(&mut data).is_ok() {}
}

/// The bytes of a record: what is read is written and read again as it was, and a record with
/// some of its bytes changed is never more than an error.
pub fn record(data: &[u8]) {
    let round = |bytes: &[u8]| {
        let Ok((ruleset, described)) = record::from_bytes(bytes) else {
            return;
        };
        let written = record::to_bytes(&ruleset, &described);
        let written = written.unwrap_or_else(|error| panic!("{error}"));
        let again = record::from_bytes(&written).unwrap_or_else(|error| panic!("{error}"));
        same(again, (ruleset, described), &bytes);
    };
    round(data);
    let mut data = Unstructured::new(data);
    let Ok(ruleset) = rules::ruleset(&mut data, Direction::Ingress) else {
        return;
    };
    let written = record::to_bytes(&ruleset, &crate::datapath::Described::default());
    let mut written = written.unwrap_or_else(|error| panic!("{error}"));
    round(&written);
    while let (Ok(place), Ok(byte)) = (data.int_in_range(0..=written.len() - 1), data.arbitrary()) {
        written[place] = byte;
        round(&written);
        if data.is_empty() {
            break;
        }
    }
}

/// A file of documents: its diagnostics can be shown, and what is valid is printed as
/// documents that are valid and are printed likewise.
pub fn documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(model) = valid(text) else {
        return;
    };
    let Some(printed) = printed(&model) else {
        return;
    };
    let again = valid(&printed).unwrap_or_else(|| panic!("printed, and not valid:\n{printed}"));
    same(self::printed(&again).as_deref(), Some(&*printed), &text);
}

fn valid(text: &str) -> Option<Model> {
    let sources = [Source::new("documents", text)];
    let checked = check(&sources);
    for color in [false, true] {
        let _shown = diagnostic::render(&checked.diagnostics, &sources, color);
    }
    checked.model
}

/// The documents of a model, where they can say all of it.
fn printed(model: &Model) -> Option<String> {
    let printed = print::print(model, &PrintOptions::default());
    printed
        .diagnostics
        .is_empty()
        .then(|| print::to_yaml(&printed.complete()))
}

/// A selector: printed, it is the same, and selects the same.
pub fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for read in [
        Selector::parse,
        Selector::of_namespaces,
        Selector::of_service_accounts,
    ] {
        let Ok(selector) = read(text) else {
            continue;
        };
        let printed = selector.to_string();
        let again = Selector::parse(&printed);
        let again = again.unwrap_or_else(|error| panic!("{printed:?} of {text:?}: {error:?}"));
        same(again.to_string(), printed, &text);
        let words: Vec<&str> = text
            .split(['\'', '"', ' ', '(', ')', ',', '{', '}'])
            .collect();
        let labels = words.chunks(2).map(|pair| {
            let value = pair.get(1).copied().unwrap_or_default();
            (pair[0].to_owned(), value.to_owned())
        });
        let labels: Labels = labels.collect();
        for labels in [Labels::new(), labels] {
            same(
                again.matches(&labels),
                selector.matches(&labels),
                &(&text, &labels),
            );
        }
    }
}

/// A list of networks: what is taken is what a line says, in its order.
pub fn list(data: &[u8]) {
    let read = read_bytes(data, data.len() as u64, 1 << 20);
    let Ok(Ok(text)) = read else {
        return;
    };
    let set = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: list\n  \
               labels: {list: 'yes'}\n  annotations: {nodewall.io/nets-from: list.txt}\n";
    let sources = [
        Source::new("set.yaml", set),
        Source::list("list.txt", &*text),
    ];
    let checked = check(&sources);
    let _shown = diagnostic::render(&checked.diagnostics, &sources, false);
    let Some(model) = checked.model else {
        return;
    };
    // Some editors put a mark of the encoding before it.
    let naive: Vec<IpNet> = text
        .trim_start_matches('\u{feff}')
        .split('\n')
        .map(|line| line.split(['#', ';']).next().unwrap_or_default())
        .map(|line| line.trim_matches(|letter: char| letter.is_ascii_whitespace()))
        .filter(|line| !line.is_empty())
        .map(|line| {
            IpNet::from_str(line)
                .or_else(|_| IpAddr::from_str(line).map(IpNet::from))
                .unwrap_or_else(|_| panic!("{line:?} was taken for a network"))
        })
        .map(|net| net.trunc())
        .collect();
    same(model.sets()[0].nets.to_vec(), naive, &text);
}

/// What stands behind the `?` of a request.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(pairs) = http::parameters(text) {
        // Written with all that may be escaped, it is the same.
        let escaped = |text: &str| {
            let mut escaped = String::new();
            for byte in text.bytes() {
                let _ = write!(escaped, "%{byte:02X}");
            }
            escaped
        };
        let written: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        same(http::parameters(&written.join("&")), Ok(pairs), &text);
    }
    let _wanted = http::events_wanted(text);
}

/// A capture: as many frames as it has room for, none longer than all of it.
pub fn capture(data: &[u8]) {
    let input = Box::new(Bytes::new(data.to_vec()));
    let Ok(mut capture) = Capture::read("fuzzing".to_owned(), input) else {
        return;
    };
    let mut frames = 0;
    while let Ok(Some(frame)) = capture.next_frame() {
        frames += 1;
        assert!(frames <= data.len(), "more frames than bytes");
        assert!(
            frame.bytes.len() <= data.len(),
            "a frame of more bytes than there are"
        );
        if frame.cut {
            continue;
        }
        packet(&frame.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Every seed, and every input that was once too much.
    #[test]
    fn what_was_kept_is_replayed() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        for (name, target) in TARGETS {
            let mut seeds = 0;
            for folder in ["corpus", "crashes"] {
                let Ok(files) = fs::read_dir(fuzz.join(folder).join(name)) else {
                    continue;
                };
                for file in files {
                    let path = file.expect("an entry").path();
                    let bytes = fs::read(&path).expect("a readable input");
                    println!("{}", path.display());
                    target(&bytes);
                    seeds += 1;
                }
            }
            assert!(seeds > 2, "{name} has {seeds} inputs");
        }
    }

    /// A target that compares nothing finds nothing.
    #[test]
    fn rulesets_and_frames_come_of_bytes() {
        let mut state = 7_u64;
        let mut bytes = vec![0; 4_096];
        let (mut rules, mut frames, mut dropped) = (0, 0, 0);
        for _ in 0..200 {
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            image(&bytes);
            conversation(&bytes);
            let mut data = Unstructured::new(&bytes);
            let ruleset = rules::ruleset(&mut data, Direction::Ingress).expect("a ruleset");
            rules += ruleset.rules.len();
            while let Ok(frame) = super::rules::frame(&mut data, &ruleset) {
                frames += 1;
                let decision = reference::judge(&ruleset, &frame).decision;
                dropped += usize::from(decision.verdict == filter_common::verdict::Verdict::Drop);
                if data.is_empty() {
                    break;
                }
            }
        }
        assert!(rules > 600, "{rules} rules");
        assert!(frames > 5_000, "{frames} frames");
        assert!(
            (frames / 10..frames * 9 / 10).contains(&dropped),
            "{dropped} of {frames} dropped"
        );
    }
}
