//! The daemon, and other servers, on a node of the lab.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::{Node, Side};

/// Where the daemon listens unless told otherwise.
pub(crate) const DAEMON: u16 = 9469;
/// How long servers may take, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a server of the node answers: the status, and the body.
pub(crate) fn get(node: &Node, port: u16, path: &str, accept: &str) -> Option<(u16, String)> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // Of HTTP/1.0 the body ends where the connection does.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = node.lab().in_ns(Side::Node, ask).unwrap().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn settle(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
    // For --nocapture.
    eprintln!("{:5.1} s until {what}", began.elapsed().as_secs_f64());
}

/// A process that ends when this does; what it prints is shown where the test fails.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Process {
    pub(crate) fn new(node: &Node, name: &'static str, command: &mut Command) -> Self {
        let log = node.files().join(format!("{name}.log"));
        let out = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, name, log }
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it is up, which it must be before it ends.
    #[track_caller]
    fn settle(&mut self, mut is_up: impl FnMut() -> bool) {
        let name = self.name;
        settle(&format!("{name} is up"), || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} ended: {}", self.log());
            is_up()
        });
    }

    /// Waits until a path of its own says that it is ready.
    #[track_caller]
    pub(crate) fn ready(mut self, node: &Node, port: u16, path: &str) -> Self {
        self.settle(|| get(node, port, path, "*/*").is_some_and(|(status, _)| status == 200));
        self
    }

    /// Ends it as its supervisor would.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {}:\n{}", self.name, self.log());
        }
    }
}

/// Starts `nodewall run` with these flags, and waits until it is ready.
pub(crate) fn start(node: &Node, flags: &[&str], environment: &[(&str, &str)]) -> Process {
    let [run, state] = ["run", "state"].map(|name| node.files().join(name));
    let mut command = node.command(&[&["run"], flags].concat());
    command
        .env("NODEWALL_RUN_DIR", run)
        .env("NODEWALL_STATE_DIR", state)
        .envs(environment.iter().copied());
    Process::new(node, "nodewall", &mut command).ready(node, DAEMON, "/readyz")
}

/// Writes a file at one blow: the daemon reads it as soon as it sees it.
pub(crate) fn write(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}
