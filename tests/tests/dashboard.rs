//! The dashboard of a real daemon on a real kernel, in a real browser: what it shows is what
//! the counters say, and it lives through floods, restarts and bad policies.
//!
//! `NODEWALL_SCREENSHOT=FILE` writes a picture of some minutes of made traffic.
#![cfg(feature = "bpf")]
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use serde_json::Value;
use tests::browser::{Browser, ESCAPE};
use tests::lab::{self, Limit, Reach, Side, Transport};
use tests::packet::{Ethernet, Icmp, Ipv4, Ipv6, Payload, Tcp, Udp};
use tests::require;

const INTERFACE: &str = Side::Node.interface();
const LISTEN: &str = "127.0.0.1:9469";
/// What `examples/deny-kube-node-port-services.yaml` calls itself; its rules are of TCP and UDP.
const POLICY: &str = "deny-kube-node-port-services";
const TCP: u64 = 0;
const UDP: u64 = 1;
/// In which what the kernel counted is to be seen.
const SOON: Duration = Duration::from_secs(2);
/// In which anything is.
const LATER: Duration = Duration::from_secs(30);

/// `nodewall run` on the node.
struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it, and waits until it answers.
    fn start(node: &lab::Node, policies: &Path, more: &[&str]) -> Self {
        let [run_dir, state_dir] = ["run", "state"].map(|name| node.files().join(name));
        fs::create_dir_all(&state_dir).unwrap();
        let log = node.files().join("daemon.log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        let run = [
            "--run-dir",
            run_dir.to_str().unwrap(),
            "run",
            "-f",
            policies.to_str().unwrap(),
            "--listen",
            LISTEN,
            "--state-dir",
            state_dir.to_str().unwrap(),
            "--sample-drops",
            "1000",
        ];
        let child = node
            .command(&[&run, more].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { child };
        let answers = || get(node, "/healthz").is_some_and(|answer| answer.contains(" 200 "));
        assert!(
            within(LATER, answers),
            "the daemon does not answer: {}",
            fs::read_to_string(node.files().join("daemon.log")).unwrap()
        );
        daemon
    }

    /// Starts it with the example of node ports.
    fn with_example(node: &lab::Node) -> Self {
        let label = "ibm.role=worker_public";
        let more = ["--interface", INTERFACE, "--label", label];
        Self::start(node, &example(&format!("{POLICY}.yaml")), &more)
    }
}

impl Drop for Daemon {
    /// As a crash ends it.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
}

/// What the daemon answers, head and all.
fn get(node: &lab::Node, path: &str) -> Option<String> {
    let connection = node
        .lab()
        .in_ns(Side::Node, || TcpStream::connect(LISTEN))
        .unwrap();
    let mut connection = connection.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Whether it becomes so in this time.
fn within(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + time;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The page, as somebody sees it.
struct Page<'b>(&'b Browser<'b>);

impl Page<'_> {
    fn open(&self) {
        self.0.open(&format!("http://{LISTEN}/")).unwrap();
        self.until("the page is connected", LATER, || self.is_live());
    }

    fn is_live(&self) -> bool {
        self.text("connection-words") == "live"
    }

    /// What is to be seen of an element; nothing where it is hidden.
    fn text(&self, id: &str) -> String {
        let script = format!(
            "const element = document.getElementById('{id}');\
             return element.checkVisibility() ? element.innerText : ''"
        );
        self.run(&script).as_str().unwrap().trim().to_owned()
    }

    fn number(&self, id: &str) -> Option<u64> {
        number(&self.text(id))
    }

    fn run(&self, script: &str) -> Value {
        self.0.run(script).unwrap()
    }

    /// Each row of a table's body, as the texts of its cells.
    fn rows(&self, body: &str) -> Vec<Vec<String>> {
        let script = format!(
            "return [...document.querySelectorAll('#{body} tr')]\
             .map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
        );
        serde_json::from_value(self.run(&script)).unwrap()
    }

    /// The row of a rule.
    fn rule(&self, index: u64) -> Option<Vec<String>> {
        let mut rows = self.rows("rules-body").into_iter();
        rows.find(|row| row[0] == POLICY && row[1] == index.to_string())
    }

    /// How many packets of a rule are shown.
    fn packets(&self, index: u64) -> Option<u64> {
        self.rule(index).and_then(|row| number(&row[3]))
    }

    /// The rows of the log that tell of packets, the newest first.
    fn log(&self) -> Vec<Vec<String>> {
        let mut rows = self.rows("log-body");
        rows.retain(|row| row.len() > 2);
        rows
    }

    fn until(&self, what: &str, time: Duration, is_so: impl FnMut() -> bool) {
        let seen = || self.run("return document.body.innerText");
        assert!(within(time, is_so), "{what}: {}", seen());
    }

    /// The counters that are shown become the kernel's.
    fn is_exact(&self, node: &lab::Node) {
        self.until("the counters are those of `nodewall stats`", LATER, || {
            let shown = [self.packets(TCP), self.packets(UDP)].map(Option::unwrap_or_default);
            shown == [TCP, UDP].map(|rule| node.rule(POLICY, rule))
                && self.number("dropped-total") == Some(node.total("dropped"))
        });
    }

    /// What the console has said is nothing, or that the daemon is not there.
    fn is_quiet(&self, away: bool) {
        for line in self.0.console().unwrap() {
            let message = line["message"].as_str().unwrap();
            let gone = message.contains("net::ERR_") || message.contains("Failed to fetch");
            assert!(away && gone, "{line}");
        }
    }
}

/// `1,234` is 1234.
fn number(text: &str) -> Option<u64> {
    text.replace(',', "").parse().ok()
}

/// A SYN from one of the example networks.
fn tcp(from: u8, port: u16) -> Vec<u8> {
    let ip = Ipv4 {
        src: Ipv4Addr::new(203, 0, 113, from),
        ..Ipv4::default()
    };
    Ethernet::default().carry(&ip.carry(&Tcp::to(port)))
}

fn udp(from: u16, port: u16) -> Vec<u8> {
    let ip = Ipv6 {
        src: Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, from),
        ..Ipv6::default()
    };
    Ethernet::default().carry(&ip.carry(&Udp::to(port)))
}

fn send(node: &lab::Node, frames: &[Vec<u8>], count: u64) {
    let limit = Limit::count(count);
    node.lab().send(Side::Client, frames, &limit).unwrap();
}

#[test]
fn the_page_shows_what_is_dropped_and_survives_the_daemon() {
    const FLOOD: u64 = 2_000;
    if !require::root_and_bpf() {
        return;
    }
    let node = lab::Node::new().unwrap();
    let daemon = Daemon::with_example(&node);
    let browser = Browser::start(node.lab(), Side::Node).unwrap();
    browser.resize(1440, 900).unwrap();
    let page = Page(&browser);
    browser.prefer("light").unwrap();
    page.open();
    page.until("rules are shown", LATER, || page.rule(UDP).is_some());
    assert_eq!(page.rule(TCP).unwrap()[2..4], ["deny", "never hit"]);
    assert!(page.text("ready").starts_with("ready"));
    assert_eq!(page.text("log-none"), "Nothing dropped yet.");
    assert_eq!(page.text("generation"), "1");

    for (scheme, first_port) in [("light", 30_100), ("dark", 30_200)] {
        browser.prefer(scheme).unwrap();
        page.open();
        page.until("rules are shown", LATER, || page.rule(UDP).is_some());
        let ground = "return getComputedStyle(document.body).backgroundColor";
        let ground = page.run(ground).as_str().unwrap().to_owned();
        assert_eq!(ground.starts_with("rgb(2"), scheme == "light", "{ground}");
        // Soon, where nothing else keeps the machine busy: once in three times.
        let mut fastest = Duration::MAX;
        for port in first_port..first_port + 3 {
            let before = page.packets(TCP).unwrap_or_default();
            let began = Instant::now();
            send(&node, &[tcp(7, port)], FLOOD);
            page.until("a flood is seen", LATER, || {
                let destination = format!("{}:{port}", Side::Node.v4());
                let told = page.log().into_iter().find(|row| row[4] == destination);
                let counted = page.packets(TCP).unwrap_or_default() > before;
                let Some(told) = told.filter(|_| counted) else {
                    return false;
                };
                assert_eq!(told[1..4], ["drop", "tcp S", "203.0.113.7:51515"]);
                assert_eq!(told[5..7], ["policy_deny", &format!("{POLICY} 0")]);
                assert!(told[8].starts_with("1 in "), "{told:?}");
                true
            });
            fastest = fastest.min(began.elapsed());
            if fastest <= SOON {
                break;
            }
        }
        assert!(fastest <= SOON, "{scheme}: seen after {fastest:?}");
        page.is_exact(&node);
        page.is_quiet(false);
    }

    // What was never hit, alone.
    page.run("document.getElementById('rules-never').click()");
    assert_eq!(page.rule(TCP), None);
    assert_eq!(page.rule(UDP).unwrap()[3], "never hit");
    page.run("document.getElementById('rules-never').click()");
    send(&node, &[udp(1, 30_053)], 1);
    page.is_exact(&node);
    assert_eq!(page.packets(UDP), Some(1));
    page.until("sources and ports are listed", LATER, || {
        let has = |body, key| page.rows(body).iter().any(|row| row[0] == key);
        has("sources-body", "203.0.113.7") && has("ports-body", "udp/30053")
    });

    pause_and_filter(&node, &page);
    page.is_quiet(false);

    // The filter goes on while nobody tells of it.
    let seen = page.log().len();
    drop(daemon);
    page.until("the page says that it is alone", LATER, || {
        page.text("notice-disconnected")
            .starts_with("Disconnected since")
    });
    assert_eq!(page.text("connection-words"), "reconnecting…");
    assert_eq!(page.text("dropped-now"), "–");
    send(&node, &[tcp(9, 30_080)], 400_000);
    // Over a shorter time it would be a rate.
    thread::sleep(Duration::from_secs(5));
    let _daemon = Daemon::with_example(&node);
    page.until("the page comes back by itself", LATER, || page.is_live());
    assert_eq!(page.text("notice-disconnected"), "");
    assert_eq!(page.text("notice-new-version"), "");
    page.is_exact(&node);
    thread::sleep(Duration::from_secs(3));
    // What came meanwhile is in the totals and no rate.
    assert!(page.number("dropped-peak").unwrap() < 4 * FLOOD);
    assert_eq!(page.text("dropped-now"), "0");
    assert!(page.log().len() >= seen, "the log is kept");
    send(&node, &[tcp(8, 30_090)], 10);
    page.until("the log goes on", LATER, || {
        page.log().iter().any(|row| row[3] == "203.0.113.8:51515")
    });
    page.is_exact(&node);
    page.is_quiet(true);

    nothing_else_runs(&page);
    if let Some(file) = env::var_os("NODEWALL_SCREENSHOT") {
        fs::write(file, picture()).unwrap();
    }
}

/// The keys of the live log.
fn pause_and_filter(node: &lab::Node, page: &Page<'_>) {
    let has = |port: u16| {
        let destination = format!("{}:{port}", Side::Node.v4());
        page.log().iter().any(|row| row[4] == destination)
    };
    page.0.press(['p']).unwrap();
    page.until("the log is paused", LATER, || {
        page.text("log-pause") == "Resume"
    });
    let before = page.log();
    send(node, &[tcp(5, 31_000)], 3);
    page.until("what waits is counted", LATER, || {
        let told = page.text("log-pause");
        told.starts_with("Resume (") && told.ends_with(" waiting)")
    });
    assert_eq!(page.log(), before);
    page.0.press(['p']).unwrap();
    page.until("the log goes on", LATER, || has(31_000));
    assert_eq!(page.text("log-pause"), "Pause");

    page.0.press("/203.0.113.5".chars()).unwrap();
    assert_eq!(page.run("return document.activeElement.id"), "log-filter");
    page.until("the log is filtered", LATER, || {
        let log = page.log();
        !log.is_empty() && log.iter().all(|row| row[3].starts_with("203.0.113.5:"))
    });
    send(node, &[tcp(7, 31_001), tcp(5, 31_002)], 2);
    page.until("what is wanted goes on", LATER, || has(31_002));
    assert!(!has(31_001));
    let clear = "const filter = document.getElementById('log-filter'); filter.value = '';\
                 filter.dispatchEvent(new Event('input'))";
    page.run(clear);
    assert!(has(31_001), "what was not wanted is kept");
    page.0.press([ESCAPE]).unwrap();
    assert_ne!(page.run("return document.activeElement.id"), "log-filter");

    // The theme is the reader's, and stays so.
    let theme = "return document.documentElement.dataset.theme ?? null";
    page.0.press(['t']).unwrap();
    assert_eq!(page.run(theme), "light");
    page.open();
    assert_eq!(page.run(theme), "light");
    page.0.press(['t']).unwrap();
    assert_eq!(page.run(theme), Value::Null);
    page.0.press(['?']).unwrap();
    assert!(page.text("help").contains("pause the log"));
    page.0.press([ESCAPE]).unwrap();
    assert_eq!(page.text("help"), "");
    page.until("the log is filled from what is kept", LATER, || {
        has(31_000) && has(31_001)
    });
}

/// The policy of the page's contents is there: what it forbids is not done, and said.
fn nothing_else_runs(page: &Page<'_>) {
    let origins = "return performance.getEntriesByType('resource')\
                   .map((entry) => new URL(entry.name).origin)";
    let origins = page.run(origins);
    let origins = origins.as_array().unwrap();
    assert!(origins.len() > 10);
    for origin in origins {
        assert_eq!(*origin, format!("http://{LISTEN}"));
    }
    page.is_quiet(true);
    let ran = page.run(
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';\
         document.body.append(script); document.body.setAttribute('style', 'color: red');\
         return [window.ran ?? null, document.body.style.color]",
    );
    assert_eq!(ran, serde_json::json!([null, ""]));
    let said = page.0.console().unwrap();
    let said = said.iter().filter_map(|line| line["message"].as_str());
    let said = said.filter(|message| message.contains("Content Security Policy"));
    assert!(said.count() >= 2);
}

/// What the page's own scripts make of numbers that no lab can count up to.
#[test]
fn numbers_and_rates_of_the_page() {
    if !require::root_and_bpf() {
        return;
    }
    let node = lab::Node::new().unwrap();
    let _daemon = Daemon::with_example(&node);
    let browser = Browser::start(node.lab(), Side::Node).unwrap();
    let page = Page(&browser);
    page.open();
    let failed = browser
        .run_async(
            r#"
            const at = (name) => import(new URL(`assets/${name}`, document.baseURI).href);
            const { add, count, grouped, minus, parse, perSecond, size } = await at("format.js");
            const { Clock, History, Rates, summary } = await at("rates.js");
            const failed = [];
            const is = (found, wanted) => {
              if (String(found) !== String(wanted)) {
                failed.push(`${found} is not ${wanted}: ${new Error().stack}`);
              }
            };
            // All of 64 bits, and no number in a text.
            const told = parse('{"a": 18446744073709551615, "b": "x:1234567890123456789,\\"99999999999999999", "c": [9007199254740993, -1.5e3]}');
            const most = count(told.a);
            is(grouped(most), "18,446,744,073,709,551,615");
            is(told.b, 'x:1234567890123456789,"99999999999999999');
            is(grouped(count(told.c[0])), "9,007,199,254,740,993");
            is(told.c[1], -1500);
            is(grouped(add(most, 1)), "18,446,744,073,709,551,616");
            is(minus(most, count("18446744073709551600")), 15);
            is(count(7), 7);
            is(count(undefined), 0);
            is(grouped(1234567), "1,234,567");
            is([null, 0, 0.01, 0.5, 9.96, 12345.6].map(perSecond), ["–", "0", "<0.1", "0.5", "10", "12,346"]);
            is([0, 1023, 1024, 18446744073709551615n].map(size), ["0 B", "1023 B", "1.0 KiB", "16 EiB"]);

            // Rates: of two readings; none of one, none backwards, none over a gap.
            const rates = new Rates();
            const take = (value, second) => {
              rates.take(new Map([["x", value]]), second);
              return rates.of("x");
            };
            is(take(1_000_000, 10), null);
            is(take(1_000_100, 12), 50);
            is(take(7, 13), null);
            is(take(8, 14), 1);
            is(take(1_000_000, 60), null);
            is(take(1_000_000, 61), 0);
            is(rates.of("y"), null);

            // The same of the plots, where a gap is left open.
            const history = new History();
            const all = { has: () => true };
            const reading = (dropped, second) =>
              history.take([{ interface: "eth0", direction: "ingress", dropped, passed: 0 }], second);
            [[100, 1], [110, 2], [130, 3], [9130, 30], [9131, 31], [5, 32], [6, 33]].forEach(([value, second]) => reading(value, second));
            const [times, dropped] = history.columns(all);
            is(times, [1, 2, 3, 4, 30, 31, 32, 33]);
            is(dropped, [null, 10, 20, null, null, 1, null, 1]);
            is(summary(dropped).peak, 20);
            is(history.columns({ has: () => false })[1].every((rate) => rate === null), true);
            reading(8, 1000);
            is(history.columns(all)[0], [1000]);
            reading(9, 500);
            is(history.columns(all)[0], [500]);

            // Times to the second are made finer by when they come.
            const clock = new Clock();
            is(clock.at("2026-01-01T00:00:10Z", 5), Date.parse("2026-01-01T00:00:10Z") / 1000);
            is(clock.at("2026-01-01T00:00:11Z", 6.25), Date.parse("2026-01-01T00:00:11.250Z") / 1000);
            is(clock.at("2026-01-01T00:00:12Z", 6.26), Date.parse("2026-01-01T00:00:12Z") / 1000);
            is(clock.at("2026-01-01T00:01:00Z", 7.5), Date.parse("2026-01-01T00:01:00Z") / 1000);
            is(clock.at("2026-01-01T00:01:01.5Z", 9), Date.parse("2026-01-01T00:01:01.500Z") / 1000);
            return failed;
            "#,
        )
        .unwrap();
    assert_eq!(failed, serde_json::json!([]));
    page.is_quiet(false);
}

#[test]
fn what_is_not_in_force_is_said() {
    if !require::root_and_bpf() {
        return;
    }
    let node = lab::Node::new().unwrap();
    let folder = node.files().join("policies");
    fs::create_dir(&folder).unwrap();
    let name = format!("{POLICY}.yaml");
    fs::copy(example(&name), folder.join(&name)).unwrap();
    let more = [
        "--interface",
        INTERFACE,
        "--label",
        "ibm.role=worker_public",
    ];
    let _daemon = Daemon::start(&node, &folder, &more);
    let browser = Browser::start(node.lab(), Side::Node).unwrap();
    browser.resize(360, 740).unwrap();
    let page = Page(&browser);
    page.open();
    page.until("what is in force is shown", LATER, || {
        page.rule(TCP).is_some() && page.text("reload-result") == "succeeded"
    });
    assert_eq!(page.text("none-in-force"), "");
    assert_eq!(page.text("ready"), "ready");

    let wrong = folder.join("wrong.yaml");
    let text =
        "apiVersion: v1\nkind: policy\nmetadata: {name: x}\nspec:\n  ingress:\n  - action: denny\n";
    fs::write(&wrong, text).unwrap();
    page.until("what is wrong is told", LATER, || {
        page.text("notice-trouble").contains("denny")
    });
    assert_eq!(page.text("reload-result"), "failed");
    assert_eq!(page.text("ready"), "not ready");
    assert!(page.rule(TCP).is_some(), "what was in force stays so");

    // With nothing that could be put in its place: else the last good ones would be.
    fs::remove_file(node.files().join("state/last-good.yaml")).unwrap();
    node.done(&["detach", "--all"]);
    page.until("it is said that nothing is in force", LATER, || {
        let told = page.text("none-in-force");
        told.starts_with("No filter is in force")
    });
    assert_eq!(page.text("in-force"), "");
    assert_eq!(page.text("generation"), "none");

    fs::remove_file(&wrong).unwrap();
    page.until("what is right again is told", LATER, || {
        page.text("notice-trouble").is_empty() && page.text("ready") == "ready"
    });
    page.until("what is in force is shown", LATER, || {
        page.rule(TCP).is_some()
    });
    assert_eq!(page.text("none-in-force"), "");

    // No part of it is wider than a small screen.
    let widths = page.run("return [document.documentElement.scrollWidth, innerWidth]");
    assert!(widths[0].as_u64() <= widths[1].as_u64(), "{widths}");
    page.is_quiet(false);
}

/// A worker node of some minutes: its policies, its clients, and who knocks.
fn picture() -> Vec<u8> {
    let node = lab::Node::new().unwrap();
    let folder = node.files().join("picture");
    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(example("worker-node")).unwrap() {
        let file = file.unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let text = text.replace(
            "interfaceName: eth1",
            &format!("interfaceName: {INTERFACE}"),
        );
        fs::write(folder.join(file.file_name()), text).unwrap();
    }
    let clients = "node-ports-from-clients.yaml";
    fs::copy(example(clients), folder.join(clients)).unwrap();
    let host = "kube-dal10-crc21191ee3997497ca90c8173bbdaf560-w1.cloud.ibm";
    let _daemon = Daemon::start(&node, &folder, &["--node", host]);
    let browser = Browser::start(node.lab(), Side::Node).unwrap();
    let page = Page(&browser);
    browser.prefer("dark").unwrap();
    browser.resize(1440, 1500).unwrap();
    page.open();

    let lab = node.lab();
    let _service = lab.serve(Side::Client, Transport::Tcp, 443).unwrap();
    let service = SocketAddr::new(Side::Client.v4().into(), 443);
    let from_outside = |source: Ipv4Addr, payload: &dyn Payload| {
        let ip = Ipv4 {
            src: source,
            ..Ipv4::default()
        };
        Ethernet::default().carry(&ip.carry(payload))
    };
    let client = Ipv4Addr::new(198, 51, 100, 20);
    let wanted = [
        from_outside(client, &Tcp::to(30_080)),
        from_outside(client, &Tcp::to(31_443)),
        from_outside(client, &Icmp::new(8, 0)),
    ];
    let malformed = Ipv4 {
        ihl: Some(3),
        ..Ipv4::default()
    };
    let malformed = Ethernet::default().carry(&malformed.carry(&Udp::to(9)));
    let began = Instant::now();
    for turn in 0_u16.. {
        if began.elapsed() > Duration::from_secs(290) {
            break;
        }
        // Somebody knocks at all doors for a while.
        let wave = 60 + turn * 7 % 50 + if turn % 400 > 320 { 200 } else { 0 };
        let knocks: Vec<Vec<u8>> = (0..wave)
            .map(|one| {
                let host = u8::try_from(one % 9 * 5 % 23).unwrap();
                let port = 1_024 + one % 61 * 977 + turn % 31;
                let to = |dport| Tcp {
                    sport: port,
                    ..Tcp::to(dport)
                };
                let source = |host| Ipv4Addr::new(203, 0, 113, host);
                match (one * 3 + turn) % 12 {
                    0..=3 => from_outside(source(2 + host), &to(30_080)),
                    4..=5 => from_outside(source(40 + host * 3), &to(22)),
                    6 => from_outside(source(177), &to(30_000 + turn % 2_700)),
                    7 => from_outside(source(90 + host), &to(10_250)),
                    8 => udp(0xa1 + one % 13, 30_053),
                    _ => udp(1 + turn % 200, 32_100),
                }
            })
            .collect();
        send(&node, &knocks, wave.into());
        send(&node, &wanted, u64::from(100 + turn * 3 % 60));
        if turn % 29 == 0 {
            send(&node, std::slice::from_ref(&malformed), 1);
        }
        for _ in 0..4 {
            let answered = lab.reach(Side::Node, Transport::Tcp, service, SOON);
            assert_eq!(answered.unwrap(), Reach::Answered);
        }
        thread::sleep(Duration::from_millis(80));
    }
    browser.picture().unwrap()
}
