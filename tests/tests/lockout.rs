//! `apply` says whom its policies would cut off, before they do.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;

use tests::lab::{Node, Side};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
const PORT: u16 = 2222;

/// A connection from the client to the node, both ends of it.
fn connection(node: &Node) -> (TcpStream, TcpStream) {
    let to = SocketAddr::from((Side::Node.v4(), PORT));
    let listener = node
        .lab()
        .in_ns(Side::Node, || TcpListener::bind(to).unwrap())
        .unwrap();
    let client = node
        .lab()
        .in_ns(Side::Client, || TcpStream::connect(to).unwrap())
        .unwrap();
    (client, listener.accept().unwrap().0)
}

/// Writes a policy that denies what comes to the port.
fn policy(node: &Node) -> String {
    let path = node.files().join("deny.yaml");
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: closes}}\n\
         spec:\n  types: [Ingress]\n  ingress:\n  - {{action: Deny, protocol: TCP, destination: {{ports: \
         [{PORT}]}}}}\n  - {{action: Allow}}\n"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `apply` over an SSH connection, or none.
fn apply(node: &Node, over: Option<&TcpStream>, more: &[&str]) -> Output {
    let file = policy(node);
    let arguments = ["apply", "-f", &file, "--interface", INTERFACE];
    let mut command = node.command(&[&arguments, more].concat());
    command.env_remove("SSH_CONNECTION");
    if let Some(client) = over {
        let (peer, local) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let text = format!(
            "{} {} {} {}",
            peer.ip(),
            peer.port(),
            local.ip(),
            local.port()
        );
        command.env("SSH_CONNECTION", text);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn who_would_be_cut_off_is_named_before() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    let (client, _server) = connection(&node);
    let peer = client.local_addr().unwrap();

    // Nobody's answers are remembered here, so that it would end.
    let output = apply(&node, None, &["--ingress-only", "--dry-run"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("would cut 1 of the connections"), "{text}");
    assert!(text.contains(&peer.to_string()), "{text}");
    assert!(text.contains("rule 0 of \"closes\""), "{text}");

    let output = apply(&node, Some(&client), &["--ingress-only", "--dry-run"]);
    let text = said(&output);
    assert!(text.contains("your own SSH connection"), "{text}");
    assert!(text.contains("--confirm"), "{text}");
    assert!(!text.contains("of the connections"), "{text}");

    // Where warnings are errors, nothing is changed.
    let output = apply(&node, Some(&client), &["--ingress-only", "--deny-warnings"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    node.fails(3, &["status"]);

    // Where flows are remembered it goes on, and nobody comes again.
    let output = apply(&node, Some(&client), &[]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("could not log in again"), "{text}");
    assert!(!text.contains("would cut"), "{text}");
}

#[test]
fn who_would_not_be_is_not() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    let (client, _server) = connection(&node);
    let file = node.files().join("other.yaml");
    fs::write(
        &file,
        fs::read_to_string(policy(&node))
            .unwrap()
            .replace("2222", "2223"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let mut command = node.command(&[
        "apply",
        "-f",
        file,
        "--interface",
        INTERFACE,
        "--ingress-only",
    ]);
    let (peer, local) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    command.env(
        "SSH_CONNECTION",
        format!(
            "{} {} {} {}",
            peer.ip(),
            peer.port(),
            local.ip(),
            local.port()
        ),
    );
    let output = command.output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("connection"), "{text}");
}
