//! `nodewall top` in a real terminal, under a real flood.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::{Limit, Node, Side};
use tests::packet::{Ethernet, Ipv4, Tcp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();

/// A terminal: tmux, with a server of its own, which ends with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `nodewall` with these arguments in a terminal on the node; then says how it
    /// ended, and stays. `before` it something is done.
    fn new(node: &Node, before: &str, arguments: &[&str]) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let socket = format!("nw-top-{}-{counter}", process::id());
        let command = node.command(arguments);
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let script = format!(
            "export NODEWALL_PIN_ROOT='{}' NODEWALL_RUN_DIR='{}'; unset NODEWALL_INTERFACE; {before} \
             echo it began; {}; echo \"it ended: $?\"; stty -a; exec cat",
            node.pins().display(),
            node.files().display(),
            words.join(" ")
        );
        let terminal = Self { socket };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "-s",
            "t",
            &script,
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-u", "-L", &self.socket])
            .args(arguments)
            .env_remove("TMUX")
            .stdin(Stdio::null())
            .output()
            .expect("tmux runs: `cargo xtask setup` brings it");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "t"])
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "t"], keys].concat());
    }

    fn resize(&self, width: &str, height: &str) {
        self.tmux(&["resize-window", "-t", "t", "-x", width, "-y", height]);
    }

    /// Waits until the screen is so.
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "never {what}:\n{screen}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn until_has(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// What the terminal is like when it is given back, with this exit code.
    fn until_ended(&self, code: u8) -> String {
        let screen = self.until_has(&format!("it ended: {code}"));
        assert!(
            screen.contains("it began"),
            "the old screen is back: {screen}"
        );
        assert!(!screen.contains("nodewall top  "), "{screen}");
        let screen = self.until_has("echok");
        let words: Vec<&str> = screen.split_whitespace().collect();
        for word in ["icanon", "echo", "isig"] {
            assert!(words.contains(&word), "{word} in {screen}");
        }
        screen
    }

    /// The process that runs in it.
    fn child(&self) -> Pid {
        let shell = self.tmux(&["list-panes", "-t", "t", "-F", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.socket, "kill-server"]).output().ok();
    }
}

fn apply(node: &Node, name: &str) {
    let path = node.files().join("policy.yaml");
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
         {name}}}\nspec:\n  preDNAT: true\n  applyOnForward: true\n  types: [Ingress]\n  \
         ingress:\n  - {{action: Deny, protocol: TCP, destination: {{ports: [\"30000:32767\"]}}}}\n"
    );
    fs::write(&path, text).unwrap();
    node.done(&[
        "apply",
        "-f",
        path.to_str().unwrap(),
        "--interface",
        INTERFACE,
        "--sample-drops",
        "100",
    ]);
}

/// TCP to a node port.
fn frame() -> Vec<u8> {
    Ethernet::default().carry(&Ipv4::default().carry(&Tcp::to(30_080)))
}

/// The packets a second of the first rule with this name.
fn rate(screen: &str, policy: &str) -> u64 {
    let mut lines = screen.lines();
    let line = lines.find(|line| line.contains(policy) && line.contains(" deny "));
    // The action, packets, packets a second.
    let mut words = line.into_iter().flat_map(str::split_whitespace);
    let rate = words.find(|word| *word == "deny").and(words.nth(1));
    rate.map_or(0, |rate| rate.replace(',', "").parse().unwrap_or(0))
}

#[test]
fn a_flood_is_seen_and_keys_are_obeyed() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    apply(&node, "deny-node-ports");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Not so fast that nothing else has time.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let limit = Limit::count(200);
                node.lab().send(Side::Client, &[frame()], &limit).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        let outcome = std::panic::catch_unwind(|| watch(&node));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn watch(node: &Node) {
    let terminal = Terminal::new(node, "", &["top"]);
    terminal.until("a rate", |screen| rate(screen, "deny-node-ports") > 0);
    let source = Ipv4::default().src.to_string();
    let screen = terminal.until("source and port", |screen| {
        screen.contains(&source) && screen.contains("tcp/30080")
    });
    for text in [
        INTERFACE,
        "generation 1",
        "policy_deny",
        "drop tcp",
        "dropped",
    ] {
        assert!(screen.contains(text), "{text} in {screen}");
    }
    assert!(!screen.contains("it began"), "{screen}");

    // A change of the policy is followed, and no rate is absurd.
    apply(node, "deny-them-still");
    let screen = terminal.until("the new rule", |screen| rate(screen, "deny-them-still") > 0);
    assert!(screen.contains("generation 2"), "{screen}");
    assert!(rate(&screen, "deny-them-still") < 1_000_000, "{screen}");

    terminal.keys(&["/", "still", "Enter"]);
    let screen = terminal.until_has("1 rule with \"still\"");
    assert!(!screen.contains("failsafe"), "{screen}");
    terminal.keys(&["Escape"]);
    terminal.until_has("failsafe");
    terminal.keys(&["?"]);
    terminal.until_has("Keys");
    terminal.keys(&["x"]);
    terminal.until("help closed", |screen| !screen.contains("Keys"));
    terminal.keys(&["p"]);
    let paused = terminal.until_has("PAUSED");
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(terminal.screen(), paused);
    terminal.keys(&["p"]);
    terminal.until("going on", |screen| !screen.contains("PAUSED"));

    terminal.resize("40", "10");
    terminal.until("a small picture", |screen| {
        screen.lines().all(|line| line.chars().count() <= 40) && screen.contains("1 Rules  2  3")
    });
    terminal.resize("30", "8");
    terminal.until_has("Make it larger");
    terminal.resize("140", "45");
    terminal.until("a large picture", |screen| {
        screen.contains("BYTES") && screen.contains('█')
    });
    terminal.resize("80", "24");

    // Off, and on again.
    node.done(&["detach", "--interface", INTERFACE]);
    terminal.until_has("nothing is filtered any more");
    apply(node, "deny-once-more");
    terminal.until("rates again", |screen| rate(screen, "deny-once-more") > 0);

    terminal.keys(&["q"]);
    terminal.until_ended(0);
}

#[test]
fn it_gives_the_terminal_back_to_whoever_ends_it() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    apply(&node, "deny-node-ports");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let terminal = Terminal::new(&node, "", &["top"]);
        terminal.until_has("deny-node-ports");
        kill(terminal.child(), signal).unwrap();
        terminal.until_ended(0);
    }
    for keys in ["C-c", "Escape"] {
        let terminal = Terminal::new(&node, "", &["top"]);
        terminal.until_has("deny-node-ports");
        terminal.keys(&[keys]);
        terminal.until_ended(0);
    }
}

/// A terminal that is closed takes it along: nothing goes on reading the reports.
#[test]
fn it_ends_with_its_terminal() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    apply(&node, "deny-node-ports");
    for ignoring in ["", "trap '' HUP;"] {
        let terminal = Terminal::new(&node, ignoring, &["top"]);
        terminal.until_has("deny-node-ports");
        let process = format!("/proc/{}", terminal.child());
        drop(terminal);
        let end = Instant::now() + Duration::from_secs(10);
        while fs::exists(&process).unwrap() && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        assert!(
            !fs::exists(&process).unwrap(),
            "{ignoring:?}: {process} goes on"
        );
    }
}

/// Whoever looks on keeps nothing in force: what is taken off is off, at once.
#[test]
fn it_holds_nothing_that_filters() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    apply(&node, "deny-node-ports");
    let terminal = Terminal::new(&node, "", &["top", "--interval", "600"]);
    terminal.until_has("deny-node-ports");
    for _ in 0..3 {
        node.done(&["detach", "--interface", INTERFACE]);
        // Refused where a program of before is still there.
        apply(&node, "deny-again");
    }
    terminal.keys(&["q"]);
    terminal.until_ended(0);
}

#[test]
fn it_works_on_counters_alone() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    apply(&node, "deny-node-ports");
    let mut other = node
        .command(&["observe", "-f"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    let terminal = Terminal::new(&node, "", &["top"]);
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        terminal.until_has("counters alone: another")
    }));
    other.kill().unwrap();
    other.wait().unwrap();
    seen.unwrap();
    node.lab()
        .send(Side::Client, &[frame()], &Limit::count(3))
        .unwrap();
    // The reports are free now, and it takes them.
    let screen = terminal.until_has("tcp/30080");
    assert!(!screen.contains("counters alone"), "{screen}");
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    if !require::root_and_bpf() {
        return;
    }
    let node = Node::new().unwrap();
    let said = node.fails(2, &["top"]);
    assert!(
        said.contains("needs a terminal") && said.contains("stats -w"),
        "{said}"
    );
    let terminal = Terminal::new(&node, "", &["top"]);
    let screen = terminal.until_ended(3);
    assert!(screen.contains("nothing is attached"), "{screen}");
    let terminal = Terminal::new(&node, "export TERM=dumb;", &["top"]);
    let screen = terminal.until_ended(2);
    assert!(screen.contains("stats -w"), "{screen}");
    apply(&node, "deny-node-ports");
    let terminal = Terminal::new(&node, "", &["top", "--interface", "no-such"]);
    terminal.until_has("no-such");
    terminal.until_ended(3);
    // Without colours nothing is coloured.
    for (before, arguments, colored) in [
        ("", &["top"][..], true),
        ("export NO_COLOR=1;", &["top"], false),
        ("", &["top", "--color", "never"], false),
    ] {
        let terminal = Terminal::new(&node, before, arguments);
        terminal.until_has("deny-node-ports");
        let cells = terminal.tmux(&["capture-pane", "-e", "-p", "-t", "t"]);
        assert_eq!(
            cells.contains("\x1b[38;5;1m"),
            colored,
            "{before} {arguments:?}: {cells:?}"
        );
    }
}
