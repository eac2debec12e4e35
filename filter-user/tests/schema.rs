//! The printed JSON Schema agrees with what is read.

use std::fs;
use std::path::{Path, PathBuf};

use filter_user::policy::json_schema::{kinds, schema};
use jsonschema::Validator;
use serde_json::{Value, json};

fn documents(folder: &str) -> Vec<(PathBuf, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "json")) {
            let text = fs::read_to_string(&path).expect("readable");
            let values = serde_saphyr::from_multiple(&text).expect("YAML");
            all.push((path, values));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn validator(kind: Option<&str>) -> Validator {
    let schema = schema(kind);
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of the draft");
    jsonschema::draft202012::new(&schema).expect("a schema")
}

#[test]
fn every_good_document_is_valid() {
    let all = validator(None);
    let mut found = 0;
    for folder in ["tests/policy/good", "../examples"] {
        for (path, values) in documents(folder) {
            for value in values.iter().filter(|value| !value.is_null()) {
                let errors: Vec<String> = all
                    .iter_errors(value)
                    .map(|error| format!("{}: {error}", error.instance_path))
                    .collect();
                let kind = value["kind"].as_str().filter(|kind| kinds().contains(kind));
                let closer: Vec<String> = kind.map_or_else(Vec::new, |kind| {
                    let one = validator(Some(kind));
                    let errors = one.iter_errors(value);
                    errors.map(|error| error.to_string()).collect()
                });
                assert!(
                    errors.is_empty() && closer.is_empty(),
                    "{}: {closer:#?}",
                    path.display()
                );
                found += 1;
            }
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn wrong_documents_are_not() {
    let good = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "x"},
        "spec": {
            "selector": "all()",
            "types": ["Ingress"],
            "ingress": [{
                "action": "Allow",
                "protocol": "TCP",
                "source": {"nets": ["10.0.0.0/8"]},
                "destination": {"ports": [80, "90:99", "http"]},
            }],
        },
    });
    let (all, one) = (validator(None), validator(Some("GlobalNetworkPolicy")));
    assert!(all.is_valid(&good) && one.is_valid(&good));
    for (pointer, wrong) in [
        ("/kind", json!("globalNetworkPolicy")),
        ("/apiVersion", json!("v1")),
        ("/metadata", json!({})),
        ("/metadata/name", json!("A_b")),
        ("/spec/types/0", json!("ingress")),
        ("/spec/ingress/0/action", json!("allow")),
        ("/spec/ingress/0/protocol", json!("tcp")),
        ("/spec/ingress/0/protocol", json!(256)),
        ("/spec/ingress/0/source", json!({"net": "10.0.0.0/8"})),
        ("/spec/ingress/0/source/nets/0", json!("ten")),
        ("/spec/ingress/0/source/nets", json!(vec!["10.0.0.1"; 257])),
        ("/spec/ingress/0/destination/ports/0", json!(65_536)),
        ("/spec/ingress/0/destination/ports", json!(vec![1; 51])),
        (
            "/spec/ingress/0",
            json!({"action": "Allow", "http": {"methods": ["GET"]}}),
        ),
        (
            "/spec/ingress/0",
            json!({"action": "Allow", "protcol": "TCP"}),
        ),
        ("/spec/ingress/0", json!({"protocol": "TCP"})),
        ("/spec", json!({"order": "5"})),
        ("/spec", json!({"doNotTrack": "true"})),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(pointer).expect("a place") = wrong.clone();
        assert!(!all.is_valid(&document), "{pointer}: {wrong}");
        assert!(!one.is_valid(&document), "{pointer}: {wrong}");
    }
}
