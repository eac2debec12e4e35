//! What `deploy/` has for clusters, rendered by the programs that render it: Helm and kubectl.
//! What comes out is what is meant, the policies in it are valid, and nodewall takes the flags.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::lab::program;
use tests::require;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a tool that must succeed; `None` where it is not on this machine, and may not be.
fn said(tool: &str, arguments: &[&str]) -> Option<String> {
    let path = require::tool(tool)?;
    let output = Command::new(path)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {stderr}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Those whose schemas are asked: the oldest that the chart takes, and the newest there is.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// The objects of a stream of documents, by their kinds: of each there is one.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(text).unwrap();
    for object in documents.into_iter().flatten() {
        let kind = object["kind"].as_str().unwrap().to_owned();
        assert!(objects.insert(kind, object).is_none(), "two of a kind");
    }
    objects
}

/// Kubernetes takes it: nothing is missing, and nothing is there that has no meaning.
fn is_of_kubernetes(text: &str) {
    let Some(tool) = require::tool("kubernetes-validate") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    let refused = |text: &str, version: &str| {
        fs::write(&file, text).unwrap();
        let mut command = Command::new(&tool);
        command.args(["--strict", "--kubernetes-version", version]);
        let output = command.arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (!output.status.success()).then_some(said)
    };
    for version in KUBERNETES {
        assert_eq!(refused(text, version), None, "Kubernetes {version}");
        let wrong = text.replace("hostNetwork:", "hostNetwrk:");
        let said = refused(&wrong, version).expect("a check that can fail");
        assert!(said.contains("hostNetwrk"), "{said}");
    }
}

/// What must be so however it was rendered.
fn hold(objects: &BTreeMap<String, Value>) {
    let pod = &objects["DaemonSet"]["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    let container = &containers[0];
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    let added = json!(["BPF", "NET_ADMIN", "PERFMON"]);
    assert_eq!(security["capabilities"]["add"], added);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_ne!(security["privileged"], true);
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
    }
    // Every volume that is mounted is there, the policies' among them.
    let volumes = pod["volumes"].as_array().unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap();
    for mount in mounts {
        let there = volumes.iter().any(|volume| volume["name"] == mount["name"]);
        assert!(there, "{mount}");
    }
    let map = &objects["ConfigMap"]["metadata"]["name"];
    assert!(
        volumes
            .iter()
            .any(|volume| volume["configMap"]["name"] == *map),
        "{map}"
    );
    let selector = &objects["DaemonSet"]["spec"]["selector"]["matchLabels"];
    let labels = &objects["DaemonSet"]["spec"]["template"]["metadata"]["labels"];
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(labels[label], *value, "{label}");
    }

    // The policies are what nodewall takes, with the flags that it gets.
    let folder = tempfile::tempdir().unwrap();
    let policies = objects["ConfigMap"]["data"].as_object().unwrap();
    assert!(!policies.is_empty());
    for (name, text) in policies {
        fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
    }
    let validate = Command::new(program())
        .args(["validate", "-f"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(validate.status.success(), "{validate:?}");
    let arguments: Vec<&str> = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect();
    assert_eq!(arguments[0], "run");
    // It reads all before it, and does nothing.
    let taken = Command::new(program())
        .args(&arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(taken.status.success(), "{arguments:?}: {taken:?}");
}

#[test]
fn the_chart_is_rendered() {
    let Some(lint) = said("helm", &["lint", "--strict", "deploy/helm/nodewall"]) else {
        return;
    };
    assert!(lint.contains("0 chart(s) failed"), "{lint}");
    let render = |more: &[&str]| {
        let arguments = [
            &[
                "template",
                "test",
                "deploy/helm/nodewall",
                "--namespace",
                "filters",
            ],
            more,
        ];
        let text = said("helm", &arguments.concat()).unwrap();
        is_of_kubernetes(&text);
        objects(&text)
    };
    let usual = render(&[]);
    hold(&usual);
    let of = |objects: &BTreeMap<String, Value>| {
        objects["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]["args"].clone()
    };
    assert_eq!(of(&usual), json!(["run", "--interface=eth0"]));
    let other = render(&[
        "--set",
        "interfaces={eth1,eth2},labels.role=edge,extraArgs={--sample-drops=7},takeOver=true",
    ]);
    hold(&other);
    let arguments = of(&other).to_string();
    for part in [
        "eth1",
        "eth2",
        "role=edge",
        "--sample-drops=7",
        "--take-over",
    ] {
        assert!(arguments.contains(part), "{part}: {arguments}");
    }
    // What is no value is refused, not ignored.
    let helm = require::tool("helm").unwrap();
    let refused = Command::new(helm)
        .args([
            "template",
            "test",
            "deploy/helm/nodewall",
            "--set",
            "interface=eth1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn the_overlays_are_rendered_and_say_what_the_chart_does() {
    for folder in ["base", "overlays/worker-node"] {
        let path = format!("deploy/kubernetes/{folder}");
        let Some(text) = said("kubectl", &["kustomize", &path]) else {
            return;
        };
        is_of_kubernetes(&text);
        let objects = objects(&text);
        assert_eq!(objects["Namespace"]["metadata"]["name"], "nodewall");
        hold(&objects);
    }
    // Kustomize reads nothing outside of its folder, so that these are copies.
    for entry in fs::read_dir(root().join("examples/worker-node")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let copy = root()
            .join("deploy/kubernetes/overlays/worker-node/policies")
            .join(name);
        // This one names the node.
        if name != "host-endpoint.yaml" {
            assert_eq!(
                fs::read(&path).unwrap(),
                fs::read(&copy).unwrap(),
                "{}",
                copy.display()
            );
        }
    }
    let (Some(chart), Some(base)) = (
        said("helm", &["template", "test", "deploy/helm/nodewall"]),
        said("kubectl", &["kustomize", "deploy/kubernetes/base"]),
    ) else {
        return;
    };
    let pod = |text: &str| {
        let mut pod = objects(text)["DaemonSet"]["spec"]["template"]["spec"].clone();
        // Names are a release's own.
        pod["serviceAccountName"] = Value::Null;
        pod["volumes"][0]["configMap"]["name"] = Value::Null;
        pod
    };
    assert_eq!(pod(&chart), pod(&base));
}
