//! A client of the daemon's HTTP server, within the lab's node.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::lab::{Lab, Side};

/// Where the daemon listens; nobody else is in its network namespace.
pub(crate) const ADDRESS: &str = "127.0.0.1:9469";

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A connection.
pub(crate) struct Web(BufReader<TcpStream>);

impl Web {
    /// `None` where nobody listens.
    pub(crate) fn connect(lab: &Lab) -> Option<Self> {
        let address: SocketAddr = ADDRESS.parse().unwrap();
        let socket = lab.in_ns(Side::Node, || TcpStream::connect(address));
        let socket = socket.unwrap().ok()?;
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Some(Self(BufReader::new(socket)))
    }

    /// Asks, and reads the status. `None` where it ends before there is one.
    pub(crate) fn ask(&mut self, target: &str, accept: &str) -> Option<u16> {
        let asked = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
        self.0.get_mut().write_all(asked.as_bytes()).ok()?;
        self.line()?.split(' ').nth(1)?.parse().ok()
    }

    /// A line without its end. `None` at the end of all.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    }

    /// The headers, down to the body.
    fn headers(&mut self) -> Option<Vec<String>> {
        let mut headers = Vec::new();
        loop {
            match self.line()? {
                line if line.is_empty() => return Some(headers),
                line => headers.push(line.to_ascii_lowercase()),
            }
        }
    }

    /// The rest of an answer that has a length.
    pub(crate) fn body(&mut self) -> Option<String> {
        let headers = self.headers()?;
        let length = headers
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        self.0.read_exact(&mut body).ok()?;
        String::from_utf8(body).ok()
    }

    /// The next part of a stream; `None` at its end.
    pub(crate) fn part(&mut self) -> Option<String> {
        let mut length = self.line()?;
        if length.contains(':') {
            self.headers()?;
            length = self.line()?;
        }
        let length = usize::from_str_radix(&length, 16).unwrap();
        let mut part = vec![0; length + 2];
        self.0.read_exact(&mut part).ok()?;
        part.truncate(length);
        (length > 0).then(|| String::from_utf8(part).unwrap())
    }

    /// All of a stream, which must end soon.
    fn parts(&mut self) -> String {
        let began = Instant::now();
        let mut text = String::new();
        while let Some(part) = self.part() {
            text += &part;
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "it does not end: {text}"
            );
        }
        text
    }

    /// All of a stream, as lines of JSON.
    pub(crate) fn lines(&mut self) -> Vec<Value> {
        let text = self.parts();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// All of a stream of server-sent events, as it would be in lines.
    pub(crate) fn events(&mut self) -> Vec<Value> {
        let text = self.parts();
        let events = text.split("\n\n").filter(|event| event.starts_with("id: "));
        events.map(one).collect()
    }
}

/// A server-sent event.
fn one(event: &str) -> Value {
    let mut lines = event.lines().zip(["id: ", "event: ", "data: "]);
    let mut field = || {
        let (line, name) = lines.next().unwrap();
        line.strip_prefix(name).unwrap().to_owned()
    };
    let (id, kind, data) = (field(), field(), field());
    let (id, data): (u64, Value) = (id.parse().unwrap(), serde_json::from_str(&data).unwrap());
    serde_json::json!({"id": id, "event": kind, "data": data})
}

/// An answer on a connection of its own. `None` where there is none.
pub(crate) fn get(lab: &Lab, target: &str) -> Option<Answer> {
    let mut web = Web::connect(lab)?;
    let status = web.ask(target, "*/*")?;
    let body = web.body()?;
    Some(Answer { status, body })
}
