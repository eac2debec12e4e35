//! `nodewall run` on the lab's node.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Node;

/// A daemon that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

/// How long a daemon may take to say something on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

impl Daemon {
    /// Starts `nodewall run` with these arguments.
    ///
    /// # Panics
    ///
    /// Where there is no such program.
    #[must_use]
    pub fn start(node: &Node, arguments: &[&str]) -> Self {
        Self::start_with(node, arguments, &[])
    }

    /// The same, with these variables in its environment.
    ///
    /// # Panics
    ///
    /// Likewise.
    #[must_use]
    pub fn start_with(node: &Node, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = node.command(&[&["run"], arguments].concat());
        command.envs(variables.iter().copied());
        Self::of(command)
    }

    /// The same by a command that becomes `nodewall run`.
    ///
    /// # Panics
    ///
    /// Likewise.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nodewall runs");
        let stderr = child.stderr.take().expect("a pipe");
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        // Ends with the daemon.
        let listener = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = heard.lock().unwrap_or_else(PoisonError::into_inner);
                said.push(line);
            }
        });
        Self {
            child,
            said,
            listener: Some(listener),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said on stderr.
    #[must_use]
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.join("\n")
    }

    /// Waits until it has said this `times` times.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn says(&self, text: &str, times: usize) {
        let until = Instant::now() + PATIENCE;
        while self.said().matches(text).count() < times {
            assert!(
                Instant::now() < until,
                "{text:?} was not said {times} times:\n{}",
                self.said()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// Where it does not end.
    pub fn ends(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                // What it said at last, too.
                if let Some(listener) = self.listener.take() {
                    listener.join().expect("it only reads");
                }
                return status;
            }
            assert!(Instant::now() < until, "it goes on:\n{}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Panics
    ///
    /// Where it does not.
    #[must_use]
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ends()
    }

    /// Kills it.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
