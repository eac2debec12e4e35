//! A policy and the packets that something is wrong with: what each of the three says of
//! them, how little of it is enough, and how it is kept.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use filter_user::compile::{Combination, Image};
use filter_user::conversation::Conversation as OnHost;
use filter_user::datapath::{Compiled, TestBench};
use filter_user::decision::Judgement;
use filter_user::reference::{self, Conversation};
use filter_user::ruleset::{Addresses, Direction, Match, Rule, Ruleset};
use serde_json::{Value, json};

use crate::known::{Loaded, known_to_host, known_to_reference, unclear};
use crate::random::Frame;
use crate::talk::{self, Talk};

/// The rulesets of one direction, or of both, and packets one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    /// Of whom nothing is remembered where there is but one.
    pub(crate) rulesets: Vec<Ruleset>,
    pub(crate) forced: Option<Combination>,
    pub(crate) steps: Vec<Step>,
}

/// Why an example is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The three don't say the same.
    Differs(String),
    /// They can't be asked: such a ruleset is none, or can't be loaded.
    Unable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Differs(text) | Self::Unable(text)) = self;
        f.write_str(text)
    }
}

/// So that who shrinks does not take what is no ruleset for what is wrong.
fn unable(error: impl fmt::Display) -> Failure {
    Failure::Unable(error.to_string())
}

fn differs(error: impl fmt::Display) -> Failure {
    Failure::Differs(error.to_string())
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Seconds since the one before.
    pub(crate) wait: u64,
    pub(crate) direction: Direction,
    pub(crate) frame: Vec<u8>,
}

const BUDGET: u64 = 256 << 20;

impl Example {
    /// One packet, and one ruleset.
    pub(crate) fn of(ruleset: Ruleset, forced: Option<Combination>, frame: Vec<u8>) -> Self {
        Self {
            steps: vec![Step {
                wait: 0,
                direction: ruleset.direction,
                frame,
            }],
            rulesets: vec![ruleset],
            forced,
        }
    }

    /// What of a talk the kernel can be asked about.
    pub(crate) fn of_talk(talk: &Talk) -> Self {
        let takes = |step: &&talk::Step| TestBench::takes(step.direction, &step.frame.0);
        let steps = talk.steps.iter().filter(takes).map(|step| Step {
            wait: step.wait,
            direction: step.direction,
            frame: step.frame.0.clone(),
        });
        Self {
            rulesets: vec![talk.ingress.clone(), talk.egress.clone()],
            forced: None,
            steps: steps.collect(),
        }
    }

    /// Where the three don't say the same; what the reference says of each packet, where they
    /// do. How many packets the kernel was asked about is added to `cases`.
    pub(crate) fn compare(&self, cases: &mut u64) -> Result<Vec<String>, Failure> {
        let images = self.rulesets.iter();
        let images = images.map(|ruleset| Image::compile_as(ruleset, BUDGET, self.forced));
        let images = images.collect::<Result<Vec<_>, _>>();
        let images = images.map_err(unable)?;
        match (&self.rulesets[..], &images[..]) {
            ([ruleset], [image]) => self.one_by_one(ruleset, image, cases),
            ([ingress, egress], [inward, outward]) => {
                self.in_a_row([(ingress, inward), (egress, outward)], cases)
            }
            _ => Err(unable("an example is of one ruleset or of two")),
        }
    }

    fn one_by_one(
        &self,
        ruleset: &Ruleset,
        image: &Image,
        cases: &mut u64,
    ) -> Result<Vec<String>, Failure> {
        let mut bench = TestBench::load(ruleset, image).map_err(unable)?;
        let mut answers = Vec::new();
        for Step { frame, .. } in &self.steps {
            let expected = reference::judge(ruleset, frame);
            same("host", &image.judge(frame), &expected, frame)?;
            if TestBench::takes(ruleset.direction, frame) {
                let kernel = bench.judge(frame).map_err(differs)?;
                same("kernel", &kernel, &expected, frame)?;
                *cases += 1;
            }
            answers.push(in_words(&expected));
        }
        Ok(answers)
    }

    fn in_a_row(
        &self,
        [ingress, egress]: [(&Ruleset, &Image); 2],
        cases: &mut u64,
    ) -> Result<Vec<String>, Failure> {
        let mut reference = Conversation::new(ingress.0, egress.0);
        let host = OnHost::new(ingress, egress);
        let compiled = |(ruleset, image)| Compiled { ruleset, image };
        let mut kernel = Loaded::new(compiled(ingress), compiled(egress)).map_err(unable)?;
        let mut now = Duration::ZERO;
        let mut answers = Vec::new();
        for step in &self.steps {
            now = time(&reference, now, step);
            let (direction, frame) = (step.direction, &step.frame[..]);
            let expected = reference.judge(now, direction, frame);
            let flows = known_to_reference(&reference, now);
            same("host", &host.judge(now, direction, frame), &expected, frame)?;
            same(
                "host, about flows,",
                &known_to_host(host.flows(now)),
                &flows,
                frame,
            )?;
            // What is too short to be run can't be read, and changes nothing.
            if TestBench::takes(direction, frame) {
                kernel.advance(now);
                let judgement = kernel.pair.judge(direction, frame);
                let judgement = judgement.map_err(differs)?;
                same("kernel", &judgement, &expected, frame)?;
                same("kernel, about flows,", &kernel.known(), &flows, frame)?;
                *cases += 1;
            }
            answers.push(in_words(&expected));
        }
        Ok(answers)
    }

    /// As little of it as still `fails`, or what was come to by then.
    pub(crate) fn shrunk(mut self, until: Instant, fails: impl Fn(&Self) -> bool) -> Self {
        let fails = |example: &Self| Instant::now() < until && fails(example);
        loop {
            let before = format!("{self:?}");
            self.thin(&fails, |example| Some(&mut example.steps));
            for side in [ingress, egress] {
                self.thin(&fails, side);
            }
            self.thin_rules(&fails);
            self.thin_frames(&fails);
            if format!("{self:?}") == before {
                return self;
            }
        }
    }

    /// Leaves out of a list what it fails without: halves first, then less.
    fn thin<T>(
        &mut self,
        fails: &impl Fn(&Self) -> bool,
        list: impl Fn(&mut Self) -> Option<&mut Vec<T>>,
    ) {
        let Some(length) = list(self).map(|list| list.len()) else {
            return;
        };
        let mut size = length.div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while list(self).is_some_and(|list| at < list.len()) {
                let mut fewer = self.clone();
                if let Some(list) = list(&mut fewer) {
                    let end = list.len().min(at + size);
                    list.drain(at..end);
                }
                if fails(&fewer) {
                    *self = fewer;
                } else {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    fn thin_rules(&mut self, fails: &impl Fn(&Self) -> bool) {
        const LESS: [fn(&mut Match); 12] = [
            |matches| matches.family = None,
            |matches| matches.not_protocol = None,
            |matches| matches.icmp = None,
            |matches| matches.not_icmp = None,
            |matches| matches.src = Match::default().src,
            |matches| matches.dst = Match::default().dst,
            |matches| shorten(&mut matches.src_ports),
            |matches| shorten(&mut matches.not_src_ports),
            |matches| shorten(&mut matches.dst_ports),
            |matches| shorten(&mut matches.not_dst_ports),
            |matches| shorten(&mut matches.src.nets),
            |matches| shorten(&mut matches.dst.nets),
        ];
        for side in 0..self.rulesets.len() {
            let is_free = |side: &Addresses| side.sets.is_empty() && side.not_sets.is_empty();
            let rules = self.rulesets[side].rules.iter();
            let mut alternatives = rules.flat_map(|rule| &rule.matches);
            if alternatives.all(|matches| is_free(&matches.src) && is_free(&matches.dst)) {
                self.thin(fails, |example| Some(&mut example.rulesets[side].sets));
            }
            for rule in 0..self.rulesets[side].rules.len() {
                self.thin(fails, |example| {
                    Some(&mut example.rulesets[side].rules[rule].matches)
                });
                for alternative in 0..self.rulesets[side].rules[rule].matches.len() {
                    for less in LESS {
                        let mut fewer = self.clone();
                        let rule = &mut fewer.rulesets[side].rules[rule];
                        let before = rule.matches[alternative].clone();
                        less(&mut rule.matches[alternative]);
                        if rule.matches[alternative] != before && fails(&fewer) {
                            *self = fewer;
                        }
                    }
                }
            }
        }
    }

    fn thin_frames(&mut self, fails: &impl Fn(&Self) -> bool) {
        for step in 0..self.steps.len() {
            let mut length = self.steps[step].frame.len();
            while length > 0 {
                let cut = length.div_ceil(2).min(64);
                let mut fewer = self.clone();
                fewer.steps[step].frame.truncate(length - cut);
                if !fails(&fewer) {
                    break;
                }
                *self = fewer;
                length -= cut;
            }
            for place in 0..self.steps[step].frame.len().min(128) {
                let mut fewer = self.clone();
                if std::mem::take(&mut fewer.steps[step].frame[place]) != 0 && fails(&fewer) {
                    *self = fewer;
                }
            }
        }
    }

    /// Writes it into a folder; `about` says what was wrong.
    pub(crate) fn keep(&self, folder: &Path, about: &str) -> Result<PathBuf, String> {
        let value = self.to_json(about);
        let mut hasher = DefaultHasher::new();
        value["rulesets"].to_string().hash(&mut hasher);
        value["packets"].to_string().hash(&mut hasher);
        let path = folder.join(format!("{:016x}.json", hasher.finish()));
        let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text + "\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    fn to_json(&self, about: &str) -> Value {
        let answers = self.answers();
        let packets = self.steps.iter().zip(answers).map(|(step, answer)| {
            json!({
                "wait": step.wait,
                "direction": step.direction,
                "frame": format!("{:?}", Frame(step.frame.clone())),
                "answer": answer,
            })
        });
        json!({
            "about": about,
            "combination": self.forced,
            "rulesets": self.rulesets,
            "packets": packets.collect::<Vec<_>>(),
        })
    }

    /// What the reference says of the packets.
    fn answers(&self) -> Vec<String> {
        match &self.rulesets[..] {
            [ingress, egress] => {
                let mut conversation = Conversation::new(ingress, egress);
                let mut now = Duration::ZERO;
                let judge = |step: &Step| {
                    now = time(&conversation, now, step);
                    in_words(&conversation.judge(now, step.direction, &step.frame))
                };
                self.steps.iter().map(judge).collect()
            }
            [ruleset, ..] => {
                let judge = |step: &Step| in_words(&reference::judge(ruleset, &step.frame));
                self.steps.iter().map(judge).collect()
            }
            [] => Vec::new(),
        }
    }

    /// Reads what was kept, and what the right answers were said to be.
    pub(crate) fn read(text: &str) -> Result<(Self, Vec<String>), serde_json::Error> {
        let mut value: Value = serde_json::from_str(text)?;
        let mut steps = Vec::new();
        let mut answers = Vec::new();
        for packet in value["packets"].as_array_mut().into_iter().flatten() {
            let frame: String = serde_json::from_value(packet["frame"].take())?;
            steps.push(Step {
                wait: serde_json::from_value(packet["wait"].take())?,
                direction: serde_json::from_value(packet["direction"].take())?,
                frame: bytes(&frame),
            });
            answers.push(serde_json::from_value(packet["answer"].take())?);
        }
        let example = Self {
            rulesets: serde_json::from_value(value["rulesets"].take())?,
            forced: serde_json::from_value(value["combination"].take())?,
            steps,
        };
        Ok((example, answers))
    }
}

fn ingress(example: &mut Example) -> Option<&mut Vec<Rule>> {
    example
        .rulesets
        .first_mut()
        .map(|ruleset| &mut ruleset.rules)
}

fn egress(example: &mut Example) -> Option<&mut Vec<Rule>> {
    example
        .rulesets
        .get_mut(1)
        .map(|ruleset| &mut ruleset.rules)
}

fn shorten<T>(list: &mut Vec<T>) {
    list.pop();
}

/// When a step is: not at the very end of something's time, since the kernel has a clock of
/// its own.
fn time(reference: &Conversation<'_>, now: Duration, step: &Step) -> Duration {
    let mut now = now + Duration::from_secs(step.wait);
    while unclear(reference, now, step.direction, &step.frame) {
        now += Duration::from_secs(1);
    }
    now
}

/// Of hex digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    let (pairs, _) = hex.as_bytes().as_chunks();
    let byte = |[high, low]: &[u8; 2]| digit(*high) << 4 | digit(*low);
    pairs.iter().map(byte).collect()
}

fn in_words(judgement: &Judgement) -> String {
    let decision = judgement.decision;
    let rule = decision.rule.map(|rule| format!(", rule {rule}"));
    let essential = judgement.essential.map(|kind| format!(", {kind:?}"));
    let noted = Some(&judgement.noted).filter(|noted| !noted.is_empty());
    let noted = noted.map(|noted| format!(", noted {noted:?}"));
    let more = [rule, essential, noted]
        .into_iter()
        .flatten()
        .collect::<String>();
    format!(
        "{} {}{more}",
        decision.verdict.name(),
        decision.reason.name()
    )
}

fn same<A: std::fmt::Debug + PartialEq>(
    who: &str,
    answer: &A,
    expected: &A,
    frame: &[u8],
) -> Result<(), Failure> {
    if answer == expected {
        return Ok(());
    }
    let frame = Frame(frame.to_vec());
    Err(differs(format_args!(
        "of {frame:?} the {who} says {answer:?}, and the reference {expected:?}"
    )))
}
