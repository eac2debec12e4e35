//! A headless Chromium on one of a lab's machines, led by `WebDriver`: JSON over HTTP to the
//! `chromedriver` that runs beside it. What little of it is needed here fits one page.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Lab, Side};

/// Each machine is a namespace of its own, so no other driver is in the way.
const PORT: u16 = 9515;
/// How long a command may take. A machine with other work is slow to begin a browser.
const PATIENCE: Duration = Duration::from_mins(1);

/// The key that leaves things, as `WebDriver` writes it.
pub const ESCAPE: char = '\u{e00c}';

/// A browser with one page, which ends when this is dropped.
#[derive(Debug)]
pub struct Browser<'l> {
    lab: &'l Lab,
    side: Side,
    driver: Child,
    /// Path of the session, and the browser's process.
    session: Option<(String, Pid)>,
    profile: TempDir,
}

impl<'l> Browser<'l> {
    /// Starts it on a side.
    pub fn start(lab: &'l Lab, side: Side) -> Result<Self> {
        let profile = TempDir::with_prefix("nodewall-browser-")?;
        let driver = lab
            .command(side, "chromedriver")
            .arg(format!("--port={PORT}"))
            // Where a home is written to, it is this one.
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run chromedriver; `cargo xtask setup` brings it")?;
        let mut browser = Self {
            lab,
            side,
            driver,
            session: None,
            profile,
        };
        browser.begin()?;
        Ok(browser)
    }

    fn begin(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.ask("GET", "/status", None).is_err() {
            if let Some(status) = self.driver.try_wait()? {
                bail!("chromedriver ended ({status}); `cargo xtask setup` brings it");
            }
            if began.elapsed() > PATIENCE {
                bail!("chromedriver does not answer");
            }
            thread::sleep(Duration::from_millis(50));
        }
        let data = format!("--user-data-dir={}", self.profile.path().display());
        let options = json!({"args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--force-color-profile=srgb",
            "--no-first-run",
            data,
        ]});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = self.ask("POST", "/session", Some(&wanted))?;
        let id = session["sessionId"].as_str().context("no session")?;
        let process = session["capabilities"]["goog:processID"].as_i64();
        let process = process.and_then(|process| i32::try_from(process).ok());
        let process = process.context("no process of the browser's")?;
        self.session = Some((format!("/session/{id}"), Pid::from_raw(process)));
        Ok(())
    }

    /// Opens a page.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({"url": url})).map(drop)
    }

    /// Runs a function's body in the page and gives what it returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The same of one that may wait.
    pub fn run_async(&self, script: &str) -> Result<Value> {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {script} }})().then(done, (error) => \
             done(`failed: ${{error.stack}}`));"
        );
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: impl IntoIterator<Item = char>) -> Result<()> {
        let strokes: Vec<Value> = keys
            .into_iter()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
            })
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.post("/actions", &json!({"actions": [keyboard]}))
            .map(drop)
    }

    /// Lets the page have this size.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size)
            .map(drop)
    }

    /// Lets the system prefer `light` or `dark`.
    pub fn prefer(&self, scheme: &str) -> Result<()> {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        )
        .map(drop)
    }

    /// What the console said since it was asked the last time: `level`, `source` and `message`.
    pub fn console(&self) -> Result<Vec<Value>> {
        let log = self.post("/se/log", &json!({"type": "browser"}))?;
        log.as_array().cloned().context("no log")
    }

    /// What is seen, as PNG.
    pub fn picture(&self) -> Result<Vec<u8>> {
        let picture = self.ask("GET", &self.path("/screenshot")?, None)?;
        from_base64(picture.as_str().context("no picture")?)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        let body = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", &body)
    }

    fn path(&self, command: &str) -> Result<String> {
        let (session, _) = self.session.as_ref().context("there is no session")?;
        Ok(format!("{session}{command}"))
    }

    fn post(&self, command: &str, body: &Value) -> Result<Value> {
        self.ask("POST", &self.path(command)?, Some(body))
    }

    /// One request on a connection of its own, and the `value` of its answer.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let address = (Ipv4Addr::LOCALHOST, PORT);
        let mut connection = self
            .lab
            .in_ns(self.side, || TcpStream::connect(address))??;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nConnection: close\r\n");
        if let Some(body) = body {
            let body = body.to_string();
            let length = body.len();
            let _ = write!(
                request,
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        } else {
            request.push_str("\r\n");
        }
        connection.write_all(request.as_bytes())?;
        let mut answer = BufReader::new(connection);
        // It keeps the connection, whatever it is asked for.
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(told) = line.strip_prefix("content-length:") {
                length = told.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        let mut answer: Value = serde_json::from_slice(&body).with_context(|| {
            let body = String::from_utf8_lossy(&body);
            format!("chromedriver answers {path} with {body:?}")
        })?;
        let value = answer["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{path}: {error}: {}", value["message"]);
        }
        Ok(value)
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if let Some((session, process)) = self.session.take()
            && self.ask("DELETE", &session, None).is_err()
        {
            // Nobody else would end it.
            kill(process, Signal::SIGKILL).ok();
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

/// The bytes of base64 (RFC 4648).
fn from_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("{:?} in base64", char::from(other)),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standard() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base64("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert!(from_base64("Zm9v!").is_err());
    }
}
