//! The golden corpus of policy documents: what each good file comes down to,
//! and what an administrator is told about each bad one.
//!
//! The expectations stand beside the documents as `NAME.expect`. After a
//! change that was meant, rewrite them with `UPDATE_EXPECT=1` and read every
//! line of the difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use filter_user::compile::Analysis;
use filter_user::lint;
use filter_user::policy::diagnostic::{Code, render};
use filter_user::policy::{
    Diagnostic, Failsafe, Host, Labels, SelectOptions, Selected, Severity, Source, check,
    endpoints_for, select, unselected,
};
use filter_user::ruleset::{Action, Direction, Essentials, Rule, Ruleset, Stage};
use serde_json::{Value, json};

fn corpus(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/policy")
        .join(folder);
    let entries = fs::read_dir(&folder).expect("the corpus is part of the repository");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the corpus").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension != "expect")
        })
        .collect();
    files.sort();
    files
}

/// A document, with the lists that it may name.
fn sources(path: &Path) -> Vec<Source> {
    let text = |path: &Path| fs::read_to_string(path).expect("readable text");
    let name = path.file_name().expect("a file").to_string_lossy();
    let mut sources = vec![Source::new(&*name, text(path))];
    for list in corpus("lists") {
        let name = list.file_name().expect("a file").to_string_lossy();
        sources.push(Source::list(&*name, text(&list)));
        sources.push(Source::list(format!("../lists/{name}"), text(&list)));
    }
    sources
}

/// Compares with the expectation of a document, and says whether it is met.
fn expect(document: &Path, actual: &str) -> bool {
    let path = PathBuf::from(format!("{}.expect", document.display()));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, actual).expect("the corpus is writable");
        return true;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return true;
    }
    eprintln!(
        "{} is not met. Expected:\n{expected}\nActual:\n{actual}",
        path.display()
    );
    false
}

#[test]
fn bad_documents_are_explained() {
    let files = corpus("bad");
    assert!(files.len() >= 25, "{} files", files.len());
    let mut met = true;
    for file in files {
        let sources = sources(&file);
        let checked = check(&sources);
        assert!(checked.model.is_none(), "{}", file.display());
        met &= expect(&file, &render(&checked.diagnostics, &sources, false));
    }
    assert!(met, "see above; if it was meant: UPDATE_EXPECT=1");
}

#[test]
fn good_documents_come_down_to_rulesets() {
    let mut met = true;
    for file in corpus("good") {
        met &= expect(&file, &story(&sources(&file)));
    }
    assert!(met, "see above; if it was meant: UPDATE_EXPECT=1");
}

/// Every warning about what is legal and probably not intended, word for word.
/// The first line may hold the flags to look under.
#[test]
fn odd_documents_are_warned_of() {
    let mut met = true;
    let mut warned = BTreeSet::new();
    for file in corpus("lint") {
        let sources = sources(&file);
        let found = odd(&sources);
        warned.extend(found.iter().map(|diagnostic| diagnostic.code.name()));
        let warnings = found
            .iter()
            .all(|diagnostic| diagnostic.severity == Severity::Warning);
        assert!(warnings, "{}: {found:?}", file.display());
        met &= expect(&file, &render(&found, &sources, false));
    }
    assert!(met, "see above; if it was meant: UPDATE_EXPECT=1");
    for code in [
        Code::ShadowedRule,
        Code::MatchesNothing,
        Code::EmptySet,
        Code::UnusedSet,
        Code::SelectsNothing,
        Code::DeniesEverything,
        Code::CutsNodePorts,
        Code::AllowsAll,
        Code::CutsSsh,
        Code::CutsApiServer,
        Code::CutsEssential,
        Code::IcmpFamily,
        Code::NoEffect,
        Code::UnresolvablePeer,
        Code::EmptyFile,
    ] {
        assert!(warned.contains(code.name()), "no file leads to {code}");
    }
}

/// What `validate` warns of: documents, endpoints, then their rules.
fn odd(sources: &[Source]) -> Vec<Diagnostic> {
    let mut options = SelectOptions::default();
    let flags = sources[0].text().lines().next().unwrap_or_default();
    if flags.contains("--failsafe-inbound none") {
        options.failsafe = Failsafe::NONE;
    }
    if flags.contains("--no-essentials") {
        options.options.essentials = Essentials::NONE;
    }
    let checked = check(sources);
    let mut found = checked.diagnostics;
    let Some(model) = checked.model else {
        return found;
    };
    found.extend(lint::of_model(&model));
    let none = Labels::new();
    let endpoints = endpoints_for(&model, &[], &none, &Host::default())
        .or_else(|_| endpoints_for(&model, &["eth0".into()], &none, &Host::default()))
        .expect("an endpoint");
    let selected: Vec<Selected> = endpoints
        .iter()
        .map(|endpoint| select(&model, endpoint, Direction::Ingress, &options))
        .collect();
    found.extend(
        selected
            .iter()
            .flat_map(|selected| selected.warnings.clone()),
    );
    found.extend(unselected(&model, &endpoints));
    for (selected, endpoint) in selected.iter().zip(&endpoints) {
        let analysis = Analysis::of(&selected.ruleset).expect("compiles");
        found.extend(lint::of_ruleset(&analysis, endpoint, sources));
    }
    found
}

/// Everything that a good document leads to, on paper.
fn story(sources: &[Source]) -> String {
    let checked = check(sources);
    let mut text = render(&checked.diagnostics, sources, false);
    let Some(model) = checked.model else {
        return text;
    };
    for set in model.sets() {
        let nets: Vec<_> = set.nets.iter().map(ToString::to_string).collect();
        writeln!(text, "set {} {:?}", set.name, set.labels).expect("memory");
        writeln!(text, "  {}", nets.join(" ")).expect("memory");
    }
    // Where the document has an endpoint of its own, its labels count.
    let public = Labels::from([
        ("ibm.role".into(), "worker_public".into()),
        ("node-role.kubernetes.io/worker".into(), String::new()),
    ]);
    let endpoints = endpoints_for(&model, &["eth0".into()], &public, &Host::default())
        .or_else(|_| endpoints_for(&model, &[], &Labels::new(), &Host::default()))
        .or_else(|_| endpoints_for(&model, &["eth0".into()], &Labels::new(), &Host::default()))
        .expect("an endpoint");
    text += &render(&unselected(&model, &endpoints), sources, false);
    for endpoint in &endpoints {
        for direction in [Direction::Ingress, Direction::Egress] {
            let selected = select(&model, endpoint, direction, &SelectOptions::default());
            if direction == Direction::Ingress || !selected.selected_policies.is_empty() {
                text += &render(&selected.warnings, sources, false);
                text += &paper(&selected);
            }
        }
    }
    text
}

/// What an endpoint has in one direction.
fn paper(selected: &Selected) -> String {
    let ruleset = &selected.ruleset;
    let mut text = match ruleset.direction {
        Direction::Ingress => format!("endpoint {}\n", ruleset.endpoint),
        Direction::Egress => format!("endpoint {}, egress\n", ruleset.endpoint),
    };
    for policy in &selected.selected_policies {
        writeln!(text, "  policy {policy}").expect("memory");
    }
    for rule in &ruleset.rules {
        if rule.id.stage != Stage::Failsafe {
            text += &lines(ruleset, rule);
        }
    }
    writeln!(text, "  default {}", ruleset.default.name()).expect("memory");
    for set in &ruleset.sets {
        let nets: Vec<_> = set.nets.iter().map(ToString::to_string).collect();
        writeln!(text, "  {}: {}", set.name, nets.join(" ")).expect("memory");
    }
    text
}

/// A rule, and below it what it matches: each line by itself is enough.
fn lines(ruleset: &Ruleset, rule: &Rule) -> String {
    let index = rule
        .id
        .index
        .map_or("end".into(), |index| index.to_string());
    let mut text = format!("  {} {}[{index}]", rule.id.stage.name(), rule.id.policy);
    if let Some(place) = &rule.source {
        write!(text, " {}:{}", place.line, place.column).expect("memory");
    }
    let staged = if rule.staged { "would " } else { "" };
    writeln!(text, ": {staged}{}", rule.action.name()).expect("memory");
    if rule.matches.is_empty() {
        text += "    nothing\n";
    }
    for condition in &rule.matches {
        let alone = Rule {
            matches: vec![condition.clone()],
            ..rule.clone()
        };
        writeln!(text, "    {}", ruleset.words(&alone)).expect("memory");
    }
    text
}

/// Examples that have a copy in the corpus, the seed's policy among them, are one
/// text there and here. What every example decides stands in `examples.rs`.
#[test]
fn examples_and_their_copies_are_one_text() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names = Vec::new();
    for copy in corpus("good").into_iter().chain(corpus("lists")) {
        let name = copy.file_name().expect("a file").to_string_lossy();
        let Ok(example) = fs::read_to_string(examples.join(&*name)) else {
            continue;
        };
        let copy = fs::read_to_string(&copy).expect("the copy");
        assert_eq!(example, copy, "{name}");
        names.push(name.into_owned());
    }
    assert_eq!(
        names,
        [
            "blocklist.yaml",
            "deny-kube-node-port-services.yaml",
            "ingress-node-firewall.yaml",
            "kubernetes-network-policy.yaml",
            "blocklist.txt",
        ]
    );
}

/// The v1 policy and its v3 form differ in nothing but where they stand.
#[test]
fn both_formats_come_down_to_the_same_rules() {
    let rules = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/policy/good")
            .join(name);
        let model = check(&sources(&path)).model.expect("a good document");
        let labels = Labels::from([("ibm.role".into(), "worker_public".into())]);
        let endpoints = endpoints_for(&model, &["eth0".into()], &labels, &Host::default())
            .expect("an endpoint");
        let ruleset = select(
            &model,
            &endpoints[0],
            Direction::Ingress,
            &SelectOptions::default(),
        )
        .ruleset;
        let rules = ruleset.rules.into_iter();
        let rules = rules.map(|rule| (rule.id, rule.action, rule.matches));
        (rules.collect::<Vec<_>>(), ruleset.default)
    };
    let v1 = rules("deny-kube-node-port-services.yaml");
    assert_eq!(v1, rules("v3-node-ports.yaml"));
    assert_eq!(v1.1, Action::Allow);
}

#[test]
fn diagnostics_as_json() {
    let text = "apiVersion: v1\nkind: policy\nmetadata: {name: p}\nspec:\n  ingress:\n  \
                - action: deny\n    source: {nets: [\"é\", 192.0.2.7/24]}\n";
    let checked = check(&[Source::new("a.yaml", text)]);
    let found = serde_json::to_value(&checked.diagnostics).expect("JSON");
    assert_eq!(
        found[1],
        json!({
            "severity": "error",
            "code": "host-bits",
            "message": "`192.0.2.7/24` has bits set behind its prefix",
            "file": "a.yaml",
            "line": 7,
            "column": 26,
            "endLine": 7,
            "endColumn": 38,
            "field": "spec.ingress[0].source.nets[1]",
            "help": "write `192.0.2.0/24` for the whole network, or `192.0.2.7` for the one address",
        })
    );
    let without_place = filter_user::policy::Diagnostic::warning(Code::MoreErrors, "x");
    let value = serde_json::to_value(without_place).expect("JSON");
    assert_eq!(value["file"], Value::Null);
    assert_eq!(value["severity"], "warning");
}

/// Nothing of the input reaches the terminal as a control sequence.
#[test]
fn rendered_text_is_safe_to_print() {
    for file in corpus("bad") {
        let sources = sources(&file);
        let checked = check(&sources);
        let text = render(&checked.diagnostics, &sources, false);
        let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(bad), "{}", file.display());
        let coloured = render(&checked.diagnostics, &sources, true);
        assert!(coloured.contains('\u{1b}'), "{}", file.display());
    }
}

/// Each diagnostic says where and what to do, and the shown place is the one
/// that editors get.
#[test]
fn every_diagnostic_has_a_place_and_a_way_out() {
    for file in corpus("bad") {
        let sources = sources(&file);
        for diagnostic in check(&sources).diagnostics {
            let place = diagnostic.place.as_ref().expect("a place");
            assert!(place.start <= place.end, "{diagnostic:?}");
            let rendered = diagnostic.render(&sources, false);
            assert!(rendered.contains(&format!("--> {place}\n")), "{rendered}");
            let explained = diagnostic.help.is_some() || diagnostic.label.is_some();
            assert!(explained, "{diagnostic:?}");
        }
    }
}
