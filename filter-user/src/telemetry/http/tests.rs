//! The server with real sockets: what it answers, and what nobody can do to it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jsonschema::Validator;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::datapath::Error;
use crate::ruleset::Action;
use crate::telemetry::event::tests::event;
use crate::telemetry::openmetrics::tests::{live, rule, status};

/// A server on a port of its own, which ends with its test.
struct Server {
    address: SocketAddr,
    live: Arc<Live>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new() -> Self {
        Self::within(Limits::default())
    }

    fn within(limits: Limits) -> Self {
        let rules = [
            rule("deny-node-ports", Some(0), Action::Deny, 1_000),
            rule("web", Some(0), Action::Allow, 70),
        ];
        Self::reading(limits, move || Ok(vec![status("eth0", &rules)]))
    }

    fn reading(limits: Limits, read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        let live = Arc::new(live());
        live.succeeded(
            &["eth0".to_owned()],
            &BTreeMap::from([("eth0".to_owned(), 5)]),
            "1 policy",
        );
        let (end, ended) = oneshot::channel::<()>();
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = Arc::clone(&live);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let ended = async { drop(ended.await) };
            let all = serve_within(limits, listener, served, read, ended);
            runtime
                .expect("a runtime")
                .block_on(all)
                .expect("it serves");
        });
        Self {
            address,
            live,
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).expect("it listens");
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).expect("a socket");
        Client(BufReader::new(socket))
    }

    /// Asks on a connection of its own.
    fn ask(&self, method: &str, target: &str, headers: &[&str]) -> Response {
        let mut client = self.connect();
        client.ask(method, target, headers);
        client.answer(method)
    }

    fn get(&self, target: &str) -> Response {
        self.ask("GET", target, &[])
    }

    /// Ends it; how long that took.
    fn end(&mut self) -> Duration {
        let began = Instant::now();
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
        began.elapsed()
    }

    /// Waits until so many streams are read.
    fn streams(&self, count: u64) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.get("/v1/status").json()["daemon"]["clients"] != count {
            assert!(Instant::now() < until, "there are never {count} streams");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0
            .get_mut()
            .write_all(bytes.as_ref())
            .expect("it is taken");
    }

    fn ask(&mut self, method: &str, target: &str, headers: &[&str]) {
        let mut lines = headers.join("\r\n");
        if !headers.is_empty() {
            lines.push_str("\r\n");
        }
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n"
        ));
    }

    /// The head of an answer.
    fn head(&mut self) -> Response {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).expect("an answer");
            assert!(read > 0, "the connection ends in {lines:?}");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).expect("a status");
        let headers = lines[1..].iter().map(|line| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_owned(), value.to_owned())
        });
        Response {
            status: status.parse().expect("a status"),
            headers: headers.collect(),
            body: String::new(),
        }
    }

    fn answer(&mut self, method: &str) -> Response {
        let mut response = self.head();
        if method == "HEAD" || response.status == 304 {
            return response;
        }
        let length = response.header("content-length").parse().expect("a length");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the body");
        response.body = String::from_utf8(body).expect("UTF-8");
        response
    }

    /// A part of a body that comes in parts; `None` is the end of all.
    fn part(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a part");
        let length = usize::from_str_radix(line.trim_end(), 16).expect("a length");
        let mut part = vec![0; length + 2];
        self.0.read_exact(&mut part).expect("a part");
        part.truncate(length);
        (length > 0).then(|| String::from_utf8(part).expect("UTF-8"))
    }

    /// All of a body that comes in parts, and ends soon.
    fn parts(&mut self) -> String {
        let began = Instant::now();
        let mut text = String::new();
        while let Some(part) = self.part() {
            text += &part;
            assert!(began.elapsed() < Duration::from_mins(1), "it does not end");
        }
        text
    }

    /// Whether it is closed, by now or soon.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 64]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter().filter(|(other, _)| other == name);
        let found = headers.next().map_or("", |(_, value)| value);
        assert!(headers.next().is_none(), "{name} is there twice");
        found
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The error that it tells.
    fn error(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let document = self.json();
        assert_eq!(document["schema"], 1, "{document}");
        document["error"].as_str().expect("an error").to_owned()
    }
}

fn openapi() -> Value {
    serde_json::from_str(include_str!("openapi.json")).expect("JSON")
}

/// What a schema of the description takes.
fn schema(name: &str) -> Validator {
    let schema = json!({
        "$ref": format!("#/components/schemas/{name}"),
        "components": openapi()["components"],
    });
    jsonschema::draft202012::new(&schema).expect("a schema")
}

fn check(name: &str, value: &Value) {
    let schema = schema(name);
    let errors: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?} in {value:#}");
}

/// Paths and what they give.
const ALL: [(&str, &str); 11] = [
    ("/", "text/html; charset=utf-8"),
    (
        "/metrics",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ),
    ("/healthz", "text/plain; charset=utf-8"),
    ("/readyz", "text/plain; charset=utf-8"),
    ("/openapi.json", "application/json"),
    ("/v1/status", "application/json"),
    ("/v1/stats", "application/json"),
    ("/v1/rules", "application/json"),
    ("/v1/policies", "application/json"),
    ("/v1/top", "application/json"),
    ("/v1/events", "text/event-stream"),
];

#[test]
fn everything_is_there_and_guarded() {
    let server = Server::new();
    for (path, content_type) in ALL {
        let head = server.ask("HEAD", path, &[]);
        assert_eq!(head.status, 200, "{path}: {head:?}");
        let mut client = server.connect();
        client.ask("GET", path, &[]);
        let get = client.head();
        for response in [&head, &get] {
            assert_eq!(response.header("content-type"), content_type, "{path}");
            assert_eq!(response.header("x-content-type-options"), "nosniff");
            assert_eq!(response.header("referrer-policy"), "no-referrer");
            assert_eq!(
                response.header("cross-origin-resource-policy"),
                "same-origin"
            );
            assert_eq!(response.header("access-control-allow-origin"), "");
            let kept = if path == "/" { "no-cache" } else { "no-store" };
            assert_eq!(response.header("cache-control"), kept);
            let policy = response.header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
        }
        if path != "/v1/events" {
            assert_eq!(
                head.header("content-length"),
                get.header("content-length"),
                "{path}"
            );
        }
    }
    // A head of the stream takes no place of one.
    server.streams(0);
}

#[test]
fn answers_are_as_they_are_described() {
    let server = Server::new();
    let described = openapi();
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = described["paths"].as_object().expect("paths");
    let paths: Vec<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(paths, ALL.map(|(path, _)| path));
    assert_eq!(server.get("/openapi.json").json(), described);
    for (target, name) in [
        ("/v1/status", "Status"),
        ("/v1/stats", "Stats"),
        ("/v1/rules", "Rules"),
        ("/v1/rules?interface=eth0", "Rules"),
        ("/v1/policies", "Policies"),
        ("/v1/top", "Top"),
        ("/v1/top?by=dport&n=1000", "Top"),
        ("/v1/top?by=rule&n=1", "Top"),
        ("/v1/nothing", "Error"),
    ] {
        check(name, &server.get(target).json());
    }
    // Each content that is described is given.
    for (path, content_type) in ALL.iter().filter(|(path, _)| *path != "/") {
        let content = &described["paths"][path]["get"]["responses"]["200"]["content"];
        let name = content_type
            .strip_suffix("; charset=utf-8")
            .unwrap_or(content_type);
        let found = content.get(content_type).or_else(|| content.get(name));
        assert!(found.is_some(), "{path}: {content}");
    }
    // The schemas refuse what is not theirs.
    let mut status = server.get("/v1/status").json();
    status["more"] = 1.into();
    assert!(!schema("Status").is_valid(&status));
}

#[test]
fn documents_say_what_is_counted() {
    let server = Server::new();
    let stats = server.get("/v1/stats").json();
    assert_eq!(stats["interfaces"][0]["rules"][0]["packets"], 1_000);
    assert_eq!(stats["interfaces"][1]["direction"], "egress");
    let rules = server.get("/v1/rules?interface=eth0").json();
    assert_eq!(rules["rules"][1]["policy"], "web");
    let policies = server.get("/v1/policies").json();
    assert_eq!(policies["policies"][0]["policy"], "deny-node-ports");
    let now = server.get("/v1/status").json();
    assert_eq!(
        (&now["ready"], &now["interfaces"][0]["rules"]),
        (&true.into(), &2.into())
    );
    server
        .live
        .hub
        .tell_packets(vec![drop_of(80), drop_of(443)], 0);
    for (by, keys) in [
        ("src", &["203.0.113.7"][..]),
        ("dport", &["tcp/80", "tcp/443"]),
        ("rule", &["deny-node-ports 0"]),
    ] {
        let top = server.get(&format!("/v1/top?by={by}")).json();
        check("Top", &top);
        let items = top["items"].as_array().expect("items").iter();
        let found: Vec<&Value> = items.map(|item| &item["key"]).collect();
        assert_eq!(found, keys, "{by}");
        let first = json!([top["items"][0]]);
        assert_eq!(
            server.get(&format!("/v1/top?by={by}&n=1")).json()["items"],
            first
        );
    }
    let rules = server.get("/v1/top?by=rule").json();
    let item = json!({"key": "deny-node-ports 0", "packets": 1_000, "error": 0});
    assert_eq!(
        (&rules["packets"], &rules["items"]),
        (&1_000.into(), &json!([item]))
    );
    assert_eq!(server.get("/v1/top").json()["by"], "src");
    let metrics = server.get("/metrics");
    assert!(
        metrics
            .body
            .contains("policy=\"web\",rule=\"0\",action=\"allow\"} 70\n")
    );
    let classic = server.ask("GET", "/metrics", &["accept: text/plain"]);
    assert_eq!(
        classic.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(
        (server.get("/healthz").body, server.get("/readyz").body),
        ("ok\n".into(), "ready\n".into())
    );
}

#[test]
fn a_wrong_query_is_refused_by_name() {
    let server = Server::new();
    // Of the page a script may read any.
    for (path, _) in ALL.iter().filter(|(path, _)| *path != "/") {
        for wrong in ["limit=1", "LIMIT=1", "=1", "limit", "x%22y=1"] {
            let response = server.get(&format!("{path}?{wrong}"));
            let name = wrong
                .split('=')
                .next()
                .unwrap_or_default()
                .replace("%22", "\\\"");
            assert_eq!(response.status, 400, "{path}?{wrong}");
            let error = response.error();
            assert!(
                error.contains(&format!("no parameter \"{name}\": {path} ")),
                "{error}"
            );
        }
    }
    for (target, name, allowed) in [
        ("/v1/top?by=dst", "by", "src, dport, rule"),
        ("/v1/top?by=", "by", "src, dport, rule"),
        ("/v1/top?n=0", "n", "from 1 to 1000"),
        ("/v1/top?n=1001", "n", "from 1 to 1000"),
        ("/v1/top?n=5&n=5", "n", "twice"),
        (
            "/v1/rules?interface=eth0&interface=eth1",
            "interface",
            "twice",
        ),
        (
            "/v1/events?types=drop,stat",
            "types",
            "drop, log, stats, policy, lost",
        ),
        (
            "/v1/events?types=",
            "types",
            "drop, log, stats, policy, lost",
        ),
        ("/v1/events?interface=", "interface", "name"),
        ("/v1/events?direction=in", "direction", "ingress, egress"),
        ("/v1/events?policy=", "policy", "name"),
        ("/v1/events?rule=-1", "rule", "number"),
        ("/v1/events?rule=4294967296", "rule", "too large"),
        ("/v1/events?src=192.0.2.300", "src", "203.0.113.0/24"),
        ("/v1/events?dst=eth0", "dst", "203.0.113.0/24"),
        ("/v1/events?proto=tpc", "proto", "tcp"),
        ("/v1/events?port=65536", "port", "too large"),
        ("/v1/events?port=http", "port", "number"),
        ("/v1/events?reason=policy-deny", "reason", "policy_deny"),
        ("/v1/events?n=0", "n", "from 1"),
        ("/v1/events?last_id=x", "last_id", "number"),
        ("/v1/events?n=%zz", "%zz", "percent-encoded"),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, 400, "{target}");
        let error = response.error();
        assert!(
            error.contains(name) && error.contains(allowed),
            "{target}: {error}"
        );
    }
    let response = server.ask("GET", "/v1/events", &["last-event-id: x"]);
    assert_eq!(response.status, 400);
    assert!(response.error().contains("Last-Event-ID"));
    // A refused stream takes no place.
    server.streams(0);
}

#[test]
fn what_is_not_for_reading_is_refused() {
    let server = Server::new();
    let missing = server.get("/v1/nothing");
    assert_eq!(missing.status, 404);
    assert!(missing.error().contains("/v1/nothing") && missing.error().contains("/openapi.json"));
    for path in [
        "/metrics/",
        "//metrics",
        "/V1/status",
        "/assets/../metrics",
        "/%2e%2e/etc/passwd",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    let gone = server.get("/v1/rules?interface=eth9");
    assert_eq!((gone.status, gone.error().contains("eth9")), (404, true));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "LIST"] {
        for (path, _) in ALL {
            let response = server.ask(method, path, &[]);
            assert_eq!(
                (response.status, response.header("allow")),
                (405, "GET, HEAD")
            );
            assert!(response.error().contains("GET and HEAD"));
        }
    }
    // A body is not read, and the connection not used again.
    for headers in [&["content-length: 5"][..], &["transfer-encoding: chunked"]] {
        let mut client = server.connect();
        client.ask("GET", "/v1/stats", headers);
        let response = client.answer("GET");
        assert_eq!(
            (response.status, response.header("connection")),
            (413, "close")
        );
        assert!(response.error().contains("body"));
        assert!(client.is_closed());
    }
    let long = server.get(&format!("/{}", "a".repeat(4 << 10)));
    assert_eq!(long.status, 414);
    assert!(long.error().contains("URL"));
    // By another name: what a browser does that was sent here by a foreign page.
    let mut client = server.connect();
    client.send("GET /v1/status HTTP/1.1\r\nhost: rebound.example:9469\r\n\r\n");
    let response = client.answer("GET");
    assert_eq!(response.status, 421);
    assert!(response.error().contains("rebound.example"));
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let server = Server::new();
    for (bytes, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), "400"),
        ("GET /\r\n\r\n".to_owned(), "400"),
        (
            "GET / HTTP/1.1\r\nhost : localhost\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n".to_owned(),
            "400",
        ),
        // A head of more than 16 KiB, and one that never ends.
        (
            format!(
                "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
                "x".repeat(17 << 10)
            ),
            "431",
        ),
        (
            format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(17 << 10)),
            "431",
        ),
        (
            "GET / HTTP/1.1\r\n".to_owned() + &"x: y\r\n".repeat(200) + "\r\n",
            "431",
        ),
    ] {
        let mut client = server.connect();
        client.send(&bytes);
        let mut answer = Vec::new();
        // Where it closes with something unread, the kernel says so.
        client.0.read_to_end(&mut answer).ok();
        let answer = String::from_utf8_lossy(&answer);
        let start = &bytes[..bytes.len().min(50)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{start:?}: {answer}"
        );
    }
    // A head of almost as much is read.
    let long = format!("x: {}", "x".repeat(15 << 10));
    assert_eq!(server.ask("GET", "/healthz", &[&long]).status, 200);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn who_asks_slowly_or_not_at_all_is_cut_off() {
    let asking = Duration::from_millis(500);
    let server = Server::within(Limits {
        asking,
        ..Limits::default()
    });
    let began = Instant::now();
    let mut silent = server.connect();
    let mut idle = server.connect();
    idle.ask("GET", "/healthz", &[]);
    assert_eq!(idle.answer("GET").status, 200);
    // A byte now and then does not help.
    let mut slow = server.connect();
    let mut sent = 0;
    for byte in "GET /healthz HTTP/1.1\r\nhost: localhost\r\n".bytes() {
        if slow.0.get_mut().write_all(&[byte]).is_err() {
            break;
        }
        sent += 1;
        thread::sleep(Duration::from_millis(50));
    }
    assert!((5..30).contains(&sent), "{sent}");
    assert!(slow.is_closed() && silent.is_closed() && idle.is_closed());
    assert!(began.elapsed() >= asking);
    // Who asks in time goes on.
    let mut busy = server.connect();
    for _ in 0..5 {
        busy.ask("GET", "/healthz", &[]);
        assert_eq!(busy.answer("GET").status, 200);
        thread::sleep(asking / 2);
    }
}

#[test]
fn too_many_connections_are_turned_away_and_told_why() {
    let server = Server::new();
    let most = Limits::default().connections;
    let mut clients: Vec<Client> = (0..most).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask("GET", "/healthz", &[]);
        assert_eq!(client.answer("GET").status, 200);
    }
    for _ in 0..100 - most {
        let mut client = server.connect();
        let response = client.answer("GET");
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, "5")
        );
        assert_eq!(response.header("connection"), "close");
        assert!(response.error().contains("all 64 connections"));
        assert!(client.is_closed());
    }
    // Those that are there are served, and who comes when one has gone.
    for client in &mut clients {
        client.ask("GET", "/healthz", &[]);
        assert_eq!(client.answer("GET").status, 200);
    }
    clients.truncate(most - 1);
    let until = Instant::now() + Duration::from_secs(10);
    while server.get("/healthz").status != 200 {
        assert!(Instant::now() < until, "no place comes free");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn streams_have_fewer_places() {
    let server = Server::new();
    let most = Limits::default().streams;
    let mut streams: Vec<Client> = (0..most).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.ask("GET", "/v1/events", &[]);
        assert_eq!(stream.head().status, 200);
    }
    let refused = server.get("/v1/events");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    assert!(refused.error().contains("all 32 streams"));
    server.streams(32);
    // Who went away leaves a place.
    streams.truncate(most - 1);
    server.streams(31);
    let mut stream = server.connect();
    stream.ask("GET", "/v1/events", &[]);
    assert_eq!(stream.head().status, 200);
}

fn drop_of(port: u16) -> crate::telemetry::Event {
    event(&format!("tcp 203.0.113.7:51515 > 192.0.2.10:{port}"))
}

/// The events of server-sent events as they are in lines.
fn lines_of(text: &str) -> Vec<Value> {
    let events = text
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'));
    let one = |event: &str| {
        let mut lines = event.lines();
        let mut field = |name: &str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name);
            value
                .unwrap_or_else(|| panic!("no {name} in {event}"))
                .to_owned()
        };
        let (id, kind, data) = (field("id: "), field("event: "), field("data: "));
        assert!(lines.next().is_none(), "{event}");
        let id: u64 = id.parse().expect("a number");
        let data: Value = serde_json::from_str(&data).expect("JSON");
        json!({"id": id, "event": kind, "data": data})
    };
    events.map(one).collect()
}

fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn both_forms_tell_the_same_and_as_it_is_described() {
    let server = Server::new();
    let hub = &server.live.hub;
    hub.tell_packets(vec![drop_of(1), drop_of(2)], 7);
    hub.tell_stats(&[status("eth0", &[])]);
    // The first is of the server's own beginning.
    let mut sse = server.connect();
    sse.ask("GET", "/v1/events?last_id=0&n=6", &[]);
    let head = sse.head();
    assert_eq!(head.header("content-type"), "text/event-stream");
    let mut lines = server.connect();
    lines.ask(
        "GET",
        "/v1/events?last_id=0&n=6",
        &["accept: text/html, application/x-ndjson;q=0.5"],
    );
    assert_eq!(lines.head().header("content-type"), "application/x-ndjson");
    server.streams(2);
    server.live.failed("a mistake\nin two lines");
    let sse = lines_of(&sse.parts());
    let lines = json_lines(&lines.parts());
    assert_eq!(sse, lines);
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .collect();
    assert_eq!(kinds, ["policy", "lost", "drop", "drop", "stats", "policy"]);
    let ids: Vec<u64> = lines
        .iter()
        .filter_map(|line| line["id"].as_u64())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    for line in &lines {
        check("EventLine", line);
    }
    assert_eq!(lines[5]["data"]["message"], "a mistake\nin two lines");
    assert_eq!(lines[1]["data"]["why"], "budget");
    // An end that was asked for is one.
    server.streams(0);
}

#[test]
fn a_reader_gets_what_it_asks_for() {
    let server = Server::new();
    let mut other = event("udp [2001:db8::7]:9 > [2001:db8::10]:53");
    other.interface = "eth1".into();
    server
        .live
        .hub
        .tell_packets(vec![drop_of(80), other, drop_of(443)], 1);
    for (query, ids) in [
        ("types=drop", &[3, 4, 5][..]),
        ("types=lost,policy", &[1, 2]),
        ("types=drop&interface=eth1", &[4]),
        ("types=drop&src=203.0.113.0%2F24", &[3, 5]),
        ("types=drop&dst=2001:db8::/32", &[4]),
        ("types=drop&proto=udp", &[4]),
        ("types=drop&port=443", &[5]),
        ("types=drop&reason=malformed&direction=ingress", &[3, 4, 5]),
        ("types=drop&policy=web", &[]),
        ("types=drop&rule=0", &[]),
        // Filters are of packets alone.
        ("port=443", &[1, 2, 5]),
        ("types=drop&n=2", &[3, 4]),
    ] {
        let mut client = server.connect();
        client.ask("GET", &format!("/v1/events?last_id=0&{query}"), &[]);
        client.head();
        if ids.is_empty() {
            // What has not come in this time does not come.
            let patience = Some(Duration::from_millis(300));
            let socket = client.0.get_ref();
            socket.set_read_timeout(patience).expect("a socket");
            let error = client.0.read(&mut [0; 64]).expect_err("nothing comes");
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{query}");
            continue;
        }
        let part = client.part().expect("events");
        let found = lines_of(&part).into_iter();
        let found: Vec<u64> = found.filter_map(|line| line["id"].as_u64()).collect();
        assert_eq!(found, ids, "{query}");
    }
    // The header says more than the address by which a reader first came.
    let mut client = server.connect();
    client.ask(
        "GET",
        "/v1/events?last_id=0&types=drop&n=1",
        &["last-event-id: 4"],
    );
    client.head();
    assert_eq!(lines_of(&client.parts())[0]["id"], 5);
    // Without either, only what comes from now on.
    let mut client = server.connect();
    client.ask("GET", "/v1/events?types=drop&n=1", &[]);
    client.head();
    server.streams(1);
    server.live.hub.tell_packets(vec![drop_of(1)], 0);
    assert_eq!(lines_of(&client.parts())[0]["id"], 6);
}

/// Tells of packets until `enough`, some thousand a second.
fn flood(server: &Server, enough: &AtomicBool) {
    while !enough.load(Ordering::SeqCst) {
        let events = (0..50).map(drop_of).collect();
        server.live.hub.tell_packets(events, 0);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the flood also where the test fails.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_never_reads_is_cut_off_and_holds_up_nobody() {
    let server = Server::within(Limits {
        taking: Duration::from_secs(1),
        ..Limits::default()
    });
    let mut deaf = server.connect();
    deaf.ask("GET", "/v1/events", &[]);
    let mut reader = server.connect();
    reader.ask("GET", "/v1/events?types=drop&n=20000", &[]);
    reader.head();
    server.streams(2);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| flood(&server, &enough));
        let _enough = Enough(&enough);
        let events = lines_of(&reader.parts());
        let ids: Vec<u64> = events
            .iter()
            .filter_map(|event| event["id"].as_u64())
            .collect();
        assert_eq!(ids.len(), 20_000);
        assert!(
            ids.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "some are missing"
        );
        // The deaf one has no place any more, though it is still there.
        server.streams(0);
    });
    assert_eq!(server.get("/healthz").status, 200);
    drop(deaf);
}

#[test]
fn who_is_too_slow_is_told_and_can_come_again() {
    let server = Server::within(Limits {
        taking: Duration::from_mins(1),
        ..Limits::default()
    });
    let mut slow = server.connect();
    slow.ask("GET", "/v1/events", &[]);
    slow.head();
    server.streams(1);
    // More than the sockets and the hub hold for it.
    for _ in 0..20_000 {
        server
            .live
            .hub
            .tell_packets(vec![drop_of(1), drop_of(2)], 0);
    }
    let events = lines_of(&slow.parts());
    let (last, before) = events.split_last().expect("events");
    assert_eq!(last["event"], "lost", "{last}");
    assert_eq!(last["data"]["why"], "slow_reader");
    check("EventLine", last);
    let seen = before.last().expect("events")["id"]
        .as_u64()
        .expect("a number");
    assert_eq!(last["id"], seen);
    assert!(last["data"]["lost"].as_u64().expect("a number") > 0);
    // Again, it gets what is kept.
    let mut again = server.connect();
    again.ask(
        "GET",
        "/v1/events?n=1000",
        &[&format!("last-event-id: {seen}")],
    );
    again.head();
    let events = lines_of(&again.parts());
    assert_eq!(events.last().expect("events")["id"], 40_001);
}

#[test]
fn who_hears_nothing_hears_that() {
    // The one test that waits for it.
    let server = Server::new();
    let mut sse = server.connect();
    sse.ask("GET", "/v1/events?types=lost", &[]);
    sse.head();
    let mut lines = server.connect();
    lines.ask(
        "GET",
        "/v1/events?types=lost",
        &["accept: application/x-ndjson"],
    );
    lines.head();
    assert_eq!(sse.part().as_deref(), Some(": heartbeat\n\n"));
    assert_eq!(lines.part().as_deref(), Some("\n"));
}

#[test]
fn all_ends_with_the_daemon() {
    let mut server = Server::new();
    let mut stream = server.connect();
    stream.ask("GET", "/v1/events?types=lost", &[]);
    stream.head();
    let mut idle = server.connect();
    idle.ask("GET", "/healthz", &[]);
    idle.answer("GET");
    // One that is in the middle of asking is not waited for.
    let mut asking = server.connect();
    asking.send("GET / HT");
    server.streams(1);
    let took = server.end();
    assert!(took < Duration::from_secs(3), "{took:?}");
    // The stream has an end, and is not cut.
    assert_eq!(stream.part(), None);
    assert!(stream.is_closed() && idle.is_closed() && asking.is_closed());
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn long_answers_that_nobody_takes_have_an_end() {
    let rules: Vec<_> = (0..20_000)
        .map(|index| rule("a-long-list", Some(index), Action::Deny, 1))
        .collect();
    let limits = Limits {
        untaken: 10 << 20,
        ..Limits::default()
    };
    let server = Server::reading(limits, move || Ok(vec![status("eth0", &rules)]));
    // Some 3 MiB each.
    let mut deaf = Vec::new();
    let refused = loop {
        let mut client = server.connect();
        client.ask("GET", "/v1/stats", &[]);
        let head = client.head();
        if head.status != 200 {
            break head;
        }
        deaf.push(client);
        assert!(deaf.len() < 10, "there is no end");
    };
    assert!(deaf.len() > 1, "{}", deaf.len());
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    // What is short is answered.
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/v1/top").status, 200);
    drop(deaf);
    let until = Instant::now() + Duration::from_secs(10);
    while server.get("/v1/stats").status != 200 {
        assert!(Instant::now() < until, "nothing comes free");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn scrapers_that_come_at_once_share_a_text() {
    let rules: Vec<_> = (0..20_000)
        .map(|index| rule("a-long-list", Some(index), Action::Deny, 1))
        .collect();
    // Some 5 MiB each: two have room.
    let limits = Limits {
        untaken: 12 << 20,
        ..Limits::default()
    };
    let read = move || {
        thread::sleep(Duration::from_millis(500));
        Ok(vec![status("eth0", &rules)])
    };
    let server = Server::reading(limits, read);
    let mut clients: Vec<Client> = (0..16).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask("GET", "/metrics", &[]);
    }
    let answers: Vec<Response> = clients
        .iter_mut()
        .map(|client| client.answer("GET"))
        .collect();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.len() > 4 << 20, "{}", answer.body.len());
        assert!(answer.body.ends_with("# EOF\n"));
    }
}

#[test]
fn counters_that_cant_be_read_are_not_zeros() {
    let read = || {
        Err(Error::Failed(
            "cannot open /sys/fs/bpf/nodewall: no".to_owned(),
        ))
    };
    let server = Server::reading(Limits::default(), read);
    for path in [
        "/metrics",
        "/v1/stats",
        "/v1/rules",
        "/v1/policies",
        "/v1/top?by=rule",
    ] {
        let response = server.get(path);
        assert_eq!(response.status, 503, "{path}");
        let error = response.error();
        assert!(
            error.contains("cannot open /sys/fs/bpf/nodewall"),
            "{error}"
        );
    }
    let status = server.get("/v1/status");
    check("Status", &status.json());
    assert_eq!(
        (status.status, &status.json()["ready"]),
        (200, &false.into())
    );
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.body.lines().count()), (503, 1));
    assert!(ready.body.contains("cannot open"), "{}", ready.body);
    assert_eq!(server.get("/healthz").body, "ok\n");
}

#[test]
fn a_reading_that_hangs_is_told_and_all_else_goes_on() {
    let hangs = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&hangs);
    let read = move || {
        while still.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Vec::new())
    };
    let limits = Limits {
        reading: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::reading(limits, read);
    for path in ["/metrics", "/v1/status", "/v1/stats"] {
        let response = server.get(path);
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, "5"),
            "{path}"
        );
        assert!(
            response.error().contains("within 0.2 s"),
            "{}",
            response.error()
        );
    }
    let ready = server.get("/readyz");
    assert_eq!(
        (ready.status, ready.body.contains("within 0.2 s")),
        (503, true)
    );
    assert_eq!(server.get("/healthz").status, 200);
    hangs.store(false, Ordering::SeqCst);
    let until = Instant::now() + Duration::from_secs(10);
    while server.get("/metrics").status != 200 {
        assert!(Instant::now() < until, "it hangs for ever");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn files_are_asked_for_again_and_sent_once() {
    let server = Server::new();
    let first = server.get("/?any=1");
    let tag = first.header("etag").to_owned();
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10,
        "{tag}"
    );
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let again = server.ask("GET", "/", &[&format!("if-none-match: {known}")]);
        assert_eq!(
            (again.status, again.header("etag")),
            (304, &*tag),
            "{known}"
        );
    }
    let changed = server.ask("GET", "/", &["if-none-match: \"x\""]);
    assert_eq!((changed.status, changed.body), (200, first.body));
}

#[test]
fn where_to_listen_is_checked() {
    for here in [
        "127.0.0.1:9469",
        "127.1.2.3:1",
        "[::1]:9469",
        "[::ffff:127.0.0.1]:1",
    ] {
        let address = here.parse().expect("an address");
        assert_eq!(check_listen(address, false), Ok(()), "{here}");
    }
    for elsewhere in [
        "0.0.0.0:9469",
        "192.0.2.10:9469",
        "[::]:9469",
        "[2001:db8::10]:9469",
    ] {
        let address = elsewhere.parse().expect("an address");
        let error = check_listen(address, false).expect_err("others reach it");
        assert!(
            error.contains(elsewhere) && error.contains("--allow-remote"),
            "{error}"
        );
        assert_eq!(check_listen(address, true), Ok(()), "{elsewhere}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let first = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = first.local_addr().expect("an address");
    let error = listen(address).expect_err("it is taken");
    assert!(
        error.contains(&address.to_string()) && error.contains("--listen"),
        "{error}"
    );
    // TEST-NET-1 is nobody's.
    let nowhere = "192.0.2.1:0".parse().expect("an address");
    let error = listen(nowhere).expect_err("not here");
    assert!(error.contains("No interface has that address"), "{error}");
}
