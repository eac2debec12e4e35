//! Network namespaces without a name: the kernel removes them, and the veth
//! pairs in them, when this process ends.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::tools::output;

/// A namespace that lives as long as this.
pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Result<Self> {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("cannot hold the network namespace")
        });
        Ok(Self(
            file.join().map_err(|_| anyhow!("a thread panicked"))??,
        ))
    }

    /// What stands for it on a command line, as long as this process lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// A command in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs this in it.
    pub(crate) fn enter<T: Send>(&self, task: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)
                    .context("cannot enter the network namespace")?;
                task()
            });
            inside.join().map_err(|_| anyhow!("a thread panicked"))?
        })
    }
}

/// One end of a veth pair in a namespace of its own; the other end is with the
/// sender.
pub(crate) struct Lane {
    pub(crate) namespace: Netns,
    /// The sender's end.
    pub(crate) sends: String,
    /// The end that receives.
    pub(crate) receives: String,
}

/// What packets of the lanes are sent to: a lane's receiving end has it.
pub(crate) const ADDRESS: &str = "192.0.2.1";

impl Lane {
    /// A new pair; `gro` is what makes an end without an XDP program take
    /// frames from another one's.
    pub(crate) fn new(sender: &Netns, gro: bool) -> Result<Self> {
        // The kernel takes its time to remove those that are gone.
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace = Netns::new()?;
        let (sends, receives) = (format!("tx{number}"), format!("rx{number}"));
        let ip = |arguments: &[&str]| output(sender.command("ip").args(arguments));
        ip(&[
            "link",
            "add",
            &sends,
            "type",
            "veth",
            "peer",
            "name",
            &receives,
            "address",
            "02:00:00:00:00:02",
        ])?;
        ip(&["link", "set", &receives, "netns", &namespace.path()])?;
        ip(&["link", "set", &sends, "up"])?;
        let inside =
            |program: &str, arguments: &[&str]| output(namespace.command(program).args(arguments));
        inside("ip", &["link", "set", "lo", "up"])?;
        inside(
            "ip",
            &["address", "add", &format!("{ADDRESS}/32"), "dev", &receives],
        )?;
        inside("ip", &["link", "set", &receives, "up"])?;
        // The pair's other end notices only when this one is up.
        if gro {
            inside("ethtool", &["-K", &receives, "gro", "on"])?;
        }
        Ok(Self {
            namespace,
            sends,
            receives,
        })
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(self.namespace.command(program).args(arguments))
    }

    /// Frames that its XDP program dropped, as the driver counts them.
    pub(crate) fn xdp_drops(&self) -> Result<u64> {
        let text = self.run("ethtool", &["-S", &self.receives])?;
        let sum = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rx_queue_"))
            .filter_map(|line| line.split_once("_xdp_drops:"))
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok());
        Ok(sum.sum())
    }
}
