//! What is converted to Calico v3 decides every packet as before.

use std::fs;
use std::path::{Path, PathBuf};

use filter_user::compile::{Image, differences};
use filter_user::policy::diagnostic::render;
use filter_user::policy::print::{self, PrintOptions, Printed};
use filter_user::policy::{
    Endpoint, Host, Labels, Model, SelectOptions, Severity, Source, check, endpoints_for, select,
};
use filter_user::ruleset::{Direction, Ruleset};

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("tests/policy/good"), root.join("../examples")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("yaml" | "yml" | "json")) {
                files.push(path);
            }
        }
    }
    // Of an example and its copy in the corpus, the example: its list is there.
    files.sort_by_key(|path| (path.file_name().map(ToOwned::to_owned), path.clone()));
    files.dedup_by_key(|path| path.file_name().map(ToOwned::to_owned));
    files
}

/// A document, with the lists that it may name.
fn sources(path: &Path) -> Vec<Source> {
    let text = |path: &Path| fs::read_to_string(path).expect("readable text");
    let mut sources = vec![Source::new("document", text(path))];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/lists");
    for entry in fs::read_dir(folder).expect("a folder") {
        let list = entry.expect("an entry").path();
        let name = list.file_name().expect("a name").to_string_lossy();
        sources.push(Source::list(&*name, text(&list)));
        sources.push(Source::list(format!("../lists/{name}"), text(&list)));
    }
    sources
}

fn model(sources: &[Source]) -> Model {
    let checked = check(sources);
    let text = render(&checked.diagnostics, sources, false);
    checked
        .model
        .unwrap_or_else(|| panic!("{text}\n{}", sources[0].text()))
}

/// The endpoints of a model, with those that no document describes.
fn endpoints(model: &Model) -> (Vec<Endpoint>, bool) {
    let public = Labels::from([("ibm.role".into(), "worker_public".into())]);
    let host = Host::default();
    if !model.endpoints().is_empty() {
        let named = endpoints_for(model, &[], &Labels::new(), &host)
            .or_else(|_| endpoints_for(model, &["eth0".into()], &Labels::new(), &host));
        return (named.expect("endpoints"), false);
    }
    let found = endpoints_for(model, &[], &public, &host)
        .or_else(|_| endpoints_for(model, &["eth0".into()], &public, &host));
    (found.expect("endpoints"), true)
}

fn rulesets(model: &Model, endpoints: &[Endpoint], direction: Direction) -> Vec<Ruleset> {
    let options = SelectOptions::default();
    let all = endpoints.iter();
    all.map(|endpoint| select(model, endpoint, direction, &options).ruleset)
        .collect()
}

fn convert(model: &Model, endpoints: &[Endpoint]) -> Printed {
    let options = PrintOptions {
        endpoints,
        ..PrintOptions::default()
    };
    print::print(model, &options)
}

/// Converts a document, reads it again and compares what comes of both. Gives
/// whether the images are the same, or `None` where v3 can't say it all.
fn round_trip(before: &Model) -> Option<bool> {
    let (here, implied) = endpoints(before);
    let printed = convert(before, if implied { &here } else { &[] });
    if printed
        .diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error)
    {
        return None;
    }
    let text = print::to_yaml(&printed.complete());
    let after = model(&[Source::new("converted", text.as_str())]);
    let names: Vec<String> = here
        .iter()
        .map(|endpoint| endpoint.interface.clone())
        .collect();
    let there = endpoints_for(&after, &names, &Labels::new(), &Host::default())
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut same = true;
    for direction in [Direction::Ingress, Direction::Egress] {
        let (old, new) = (
            rulesets(before, &here, direction),
            rulesets(&after, &there, direction),
        );
        for (old, new) in old.iter().zip(&new) {
            let found = differences(old, new).expect("they compile");
            assert!(
                found.is_empty(),
                "{:?}\n{text}\n{old:#?}\n{new:#?}",
                found[0]
            );
            let image = |ruleset| Image::compile(ruleset, u64::MAX).expect("it compiles");
            let (old_image, new_image) = (image(old), image(new));
            same &= old_image == new_image;
        }
    }
    // What was converted once stays as it is.
    let again = print::print(&after, &PrintOptions::default());
    assert_eq!(print::to_yaml(&again.complete()), text);
    Some(same)
}

#[test]
fn every_good_document_compiles_to_the_same_image() {
    let mut images = 0;
    for file in files() {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let before = model(&sources(&file));
        eprintln!("{name}");
        match round_trip(&before) {
            Some(true) => images += 1,
            // Several rules of v3 say what one said: the same verdicts, under
            // other numbers.
            Some(false) => eprintln!("{name}: other numbers"),
            None => eprintln!("{name}: can't be said in v3"),
        }
    }
    assert!(images > 10, "{images}");
}

/// Of two blocks in one rule the printer makes a set, which is in no namespace:
/// so what asks for namespaces but one would select it as well.
#[test]
fn sets_that_are_made_are_not_selected_by_what_a_namespace_is_not() {
    let document = r#"
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: here, labels: {projectcalico.org/namespace: red}}
spec: {node: here, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: first, namespace: red}
spec:
  order: 1
  ingress:
  - action: Deny
    protocol: TCP
    destination:
      selector: "env not in {'webdb'}"
      namespaceSelector: "projectcalico.org/name != 'red'"
      ports: [80]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: second, namespace: red}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 203.0.0.0/8}
    - ipBlock: {cidr: "::/0", except: ["2001:db8::/64"]}
"#;
    let before = model(&[Source::new("document", document)]);
    assert!(round_trip(&before).is_some());
}
