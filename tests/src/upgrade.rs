//! One build of nodewall follows another on the same node, forth and back, while packets come
//! that no policy lets through: none gets through, none is forgotten, and each build goes on
//! with what the other one has left.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::crash::{InForce, Policy, Stage, succeed};
use crate::lab::Side;

/// Between two packets: some thousands come within a change.
const PAUSE: Duration = Duration::from_micros(100);
/// Packets in one change at most.
const MOST: u64 = 100_000;

/// Lets `older` put a policy in force, and then both builds change and end it in turns; returns
/// how many packets were denied, all of which are counted. `tell` hears of each step. Needs
/// root.
pub fn upgrade(older: &Path, newer: &Path, tell: impl Fn(&str)) -> Result<u64> {
    let mut node = Upgraded::new(newer)?;
    let (older, newer) = (("older", older), ("newer", newer));
    let mut step = |(who, program): (&str, &Path), what: &str, makes: Makes, policy| {
        let sent = node.step(program, makes, Some(policy))?;
        tell(&format!("{who}: {what}: {sent} packets denied meanwhile"));
        anyhow::Ok(())
    };
    let (a, b) = (Policy::A, Policy::B);
    step(older, "apply", Makes::Apply(a), a)?;
    step(newer, "apply over the older one's", Makes::Apply(b), b)?;
    step(newer, "rollback to the older one's", Makes::Rollback, a)?;
    step(newer, "apply --confirm", Makes::Try(b), b)?;
    step(newer, "confirm", Makes::Confirm, b)?;
    step(older, "apply over the newer one's", Makes::Apply(a), a)?;
    step(older, "run", Makes::Run(b), b)?;
    step(newer, "run after the older one", Makes::Run(a), a)?;
    step(newer, "run with another policy", Makes::Run(b), b)?;
    if has_trials(older.1)? {
        step(older, "apply --confirm", Makes::Try(a), a)?;
        step(newer, "rollback of its trial", Makes::Rollback, b)?;
    } else {
        tell("older: has no trials");
    }
    node.step(newer.1, Makes::Detach, None)?;
    tell("newer: detach: nothing is left");
    Ok(node.denied)
}

/// Whether a build knows `apply --confirm`.
fn has_trials(program: &Path) -> Result<bool> {
    let help = Command::new(program).args(["apply", "--help"]).output()?;
    ensure!(help.status.success(), "{} has no help", program.display());
    Ok(String::from_utf8_lossy(&help.stdout).contains("--confirm"))
}

/// What a command does.
#[derive(Clone, Copy, Debug)]
enum Makes {
    Apply(Policy),
    Try(Policy),
    Confirm,
    Rollback,
    /// A daemon, which is killed once it is ready.
    Run(Policy),
    Detach,
}

struct Upgraded<'a> {
    stage: Stage,
    newer: &'a Path,
    from: UdpSocket,
    /// Hears what should not come.
    to: UdpSocket,
    is_attached: bool,
    denied: u64,
}

impl<'a> Upgraded<'a> {
    fn new(newer: &'a Path) -> Result<Self> {
        let stage = Stage::new()?;
        let bind = |side: Side, port| {
            let socket = stage
                .node()
                .lab()
                .in_ns(side, || UdpSocket::bind((side.v4(), port)))??;
            anyhow::Ok(socket)
        };
        let (from, to) = (bind(Side::Client, 0)?, bind(Side::Node, Policy::DENIED)?);
        from.connect((Side::Node.v4(), Policy::DENIED))?;
        to.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(Self {
            stage,
            newer,
            from,
            to,
            is_attached: false,
            denied: 0,
        })
    }

    /// Lets a program do that while packets come, if something was in force; then this policy
    /// decides, and the newer program says so. Returns how many packets came.
    fn step(&mut self, program: &Path, makes: Makes, policy: Option<Policy>) -> Result<u64> {
        self.stage.install(program);
        let (mut command, ready) = match makes {
            Makes::Run(policy) => (self.stage.run(policy)?, Some(self.stage.hear()?)),
            Makes::Apply(policy) => (self.stage.apply(policy), None),
            Makes::Try(policy) => (self.stage.try_out(policy), None),
            Makes::Confirm => (self.stage.nodewall(&["confirm"]), None),
            Makes::Rollback => (self.stage.nodewall(&["rollback"]), None),
            Makes::Detach => (self.stage.detach_all(), None),
        };
        let sent = if self.is_attached && policy.is_some() {
            self.sent_during(&mut command, |command| succeed(command, ready.as_ref()))?
        } else {
            succeed(&mut command, ready.as_ref())?;
            0
        };
        self.denied += sent;
        self.stage.also_denied(sent);
        self.is_attached = policy.is_some();
        if policy.is_none() {
            self.stage.forget_totals();
        }
        self.stage.install(self.newer);
        let observed = self.stage.observe()?;
        ensure!(
            observed.in_force == InForce::both(policy),
            "after {makes:?} this is in force: {:?}",
            observed.in_force
        );
        let mut bytes = [0; 8];
        if policy.is_some() {
            let came = self.to.recv(&mut bytes);
            ensure!(
                matches!(&came, Err(error) if error.kind() == ErrorKind::WouldBlock),
                "during {makes:?} a packet came that no policy lets through: {came:?}"
            );
        } else {
            ensure!(observed.pins.is_empty(), "left is {:?}", observed.pins);
            // It would have been heard.
            self.from.send(&bytes)?;
            self.to.recv(&mut bytes)?;
        }
        Ok(sent)
    }

    /// How many packets were sent while `action` went on.
    fn sent_during(
        &self,
        command: &mut Command,
        action: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<u64> {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<u64> {
                let mut sent = 0;
                while !is_over.load(Ordering::Relaxed) && sent < MOST {
                    self.from.send(&[0; 8])?;
                    sent += 1;
                    thread::sleep(PAUSE);
                }
                Ok(sent)
            });
            let done = action(command);
            is_over.store(true, Ordering::Relaxed);
            let sent = sender
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            done?;
            ensure!(sent > 0, "no packet was sent meanwhile");
            Ok(sent)
        })
    }
}
