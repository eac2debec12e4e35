//! A command under ptrace(2): every system call of each of its threads has a place, and at
//! one of them something may happen to it.
//!
//! strace counts calls by name and thread. Here a place is a thread, named by who began it
//! (the third thread of the second thread of the process is `1.2`), and the number of the call
//! in that thread, from its first one after the program began. How threads take turns does
//! not change that.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls;

/// Where a system call is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    thread: Vec<u32>,
    number: u32,
}

/// One system call, as it began.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where it is.
    pub place: Place,
    /// Which one it is.
    pub number: i64,
    /// Its first argument.
    pub argument: u64,
    /// Whether it is a write(2) to a file of a file system, and not to a counter, a pipe or a
    /// socket.
    pub to_file: bool,
    /// What the thread might do then, as a set of capabilities(7), at a call to bpf(2).
    pub capabilities: Option<u64>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&calls::name(self))?;
        f.write_str(" (call ")?;
        write!(f, "{} of thread 0", self.place.number)?;
        for ordinal in &self.place.thread {
            write!(f, ".{ordinal}")?;
        }
        f.write_str(")")
    }
}

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed; the call is not made.
    Kill,
    /// The call is not made, and says that it failed. Where there is another call, as
    /// threads may wait for each other in one run and not in the next, the next call in that
    /// thread of the same name fails.
    Error(Errno),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("SIGKILL"),
            Self::Error(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// A fault, and the call that it is for, as it was in another run.
#[derive(Clone, Debug)]
pub struct Injection {
    /// The call.
    pub call: Call,
    /// What happens to it.
    pub fault: Fault,
}

impl Injection {
    fn is_for(&self, call: &Call) -> bool {
        let (wanted, here) = (&self.call.place, &call.place);
        wanted.thread == here.thread
            && match self.fault {
                Fault::Kill => wanted.number == here.number,
                Fault::Error(_) => {
                    here.number >= wanted.number
                        && self.call.number == call.number
                        && self.call.to_file == call.to_file
                }
            }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal: the injected one, or its own `abort`.
    Killed(Signal),
    /// It said that it was ready, and was killed then.
    Ready,
    /// It went on for too long, and was killed then.
    Hung,
}

/// What became of it.
#[derive(Debug)]
pub struct Traced {
    /// Its calls, in the order in which they began.
    pub calls: Vec<Call>,
    /// The call that the fault happened to.
    pub hit: Option<Call>,
    /// How it ended.
    pub end: End,
    /// What it said on stderr.
    pub stderr: String,
    /// The programs and maps that it made in the kernel, by their ids.
    pub made: Made,
}

/// Programs and maps, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Programs.
    pub programs: HashSet<u32>,
    /// Maps.
    pub maps: HashSet<u32>,
}

/// How long a command may take: the slowest takes a second, alone.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a command whose last program is `program`; until it says that it is ready, where
/// somebody listens for that.
pub(super) fn trace(
    command: &Command,
    program: &Path,
    injection: Option<&Injection>,
    ready: Option<&UnixDatagram>,
    files: &Path,
) -> Result<Traced> {
    // Only the thread that traces may ask, and it must have no other children.
    thread::scope(|scope| {
        scope
            .spawn(|| trace_here(command, program, injection, ready, files))
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn trace_here(
    command: &Command,
    program: &Path,
    injection: Option<&Injection>,
    ready: Option<&UnixDatagram>,
    files: &Path,
) -> Result<Traced> {
    let heard = files.join("stderr");
    // It stops itself, so that all of it is traced from its first call.
    let mut stopped = Command::new("sh");
    stopped
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&heard)?);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => stopped.env(name, value),
            None => stopped.env_remove(name),
        };
    }
    let child = stopped.spawn().context("cannot run a shell")?;
    let leader = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(leader, Some(WaitPidFlag::WUNTRACED)).context("the shell does not stop")?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).context("cannot trace")?;
    kill(leader, Signal::SIGCONT)?;

    let over = AtomicBool::new(false);
    let (mut tracer, cut) = thread::scope(|scope| {
        let watchdog = scope.spawn(|| watch(leader, ready, &over));
        let mut tracer = Tracer::new(leader, program, injection);
        let followed = tracer.follow();
        over.store(true, Ordering::Relaxed);
        let cut = watchdog.join().unwrap_or(None);
        followed.map(|()| (tracer, cut))
    })?;
    // Its end was waited for already.
    drop(child);
    let Some(end) = tracer.end.take() else {
        bail!("the traced command is gone, and nobody knows how it ended");
    };
    Ok(Traced {
        calls: tracer.calls,
        hit: tracer.hit,
        end: match (end, cut) {
            // It may have been killed by the fault at that very moment.
            (End::Killed(Signal::SIGKILL), Some(cut)) => cut,
            (end, _) => end,
        },
        stderr: fs::read_to_string(&heard)?,
        made: tracer.made,
    })
}

/// What a thread may do, where its call is one to bpf(2).
fn capabilities(thread: Pid, number: i64) -> Result<Option<u64>> {
    if number != libc::SYS_bpf {
        return Ok(None);
    }
    // Where it is gone, it was killed between its stop and this.
    let status = fs::read_to_string(format!("/proc/{thread}/status")).map_err(|_| Errno::ESRCH)?;
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let permitted = permitted.context("it has no capabilities to tell")?;
    Ok(Some(u64::from_str_radix(permitted.trim(), 16)?))
}

/// Whether what a process has open there is a file of a file system.
fn is_file(pid: Pid, descriptor: u64) -> bool {
    let open = fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
    open.is_ok_and(|path| path.is_absolute())
}

/// Ends what is ready, or takes too long; says which.
fn watch(leader: Pid, ready: Option<&UnixDatagram>, over: &AtomicBool) -> Option<End> {
    let until = Instant::now() + LIMIT;
    let mut bytes = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        let says = ready.and_then(|socket| socket.recv(&mut bytes).ok());
        let end = match says {
            Some(length) if bytes[..length].starts_with(b"READY=1") => End::Ready,
            _ if Instant::now() > until => End::Hung,
            Some(_) => continue,
            None => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        kill(leader, Signal::SIGKILL).ok()?;
        return Some(end);
    }
    None
}

/// A thread that is traced.
#[derive(Debug, Default)]
struct Thread {
    name: Vec<u32>,
    /// Threads that it has begun.
    began: u32,
    /// Calls that it has made.
    number: u32,
    /// The call that it is in.
    inside: Option<Inside>,
}

#[derive(Clone, Copy, Debug)]
struct Inside {
    number: i64,
    argument: u64,
    fails: Option<Errno>,
}

struct Tracer<'a> {
    leader: Pid,
    program: &'a Path,
    injection: Option<&'a Injection>,
    threads: HashMap<Pid, Thread>,
    /// Stopped threads whose beginning was not told yet.
    unnamed: HashSet<Pid>,
    /// Whether it is the program already.
    begun: bool,
    calls: Vec<Call>,
    hit: Option<Call>,
    end: Option<End>,
    made: Made,
}

impl<'a> Tracer<'a> {
    fn new(leader: Pid, program: &'a Path, injection: Option<&'a Injection>) -> Self {
        Self {
            leader,
            program,
            injection,
            threads: HashMap::from([(leader, Thread::default())]),
            unnamed: HashSet::new(),
            begun: false,
            calls: Vec::new(),
            hit: None,
            end: None,
            made: Made::default(),
        }
    }

    /// Goes along with it until its end.
    fn follow(&mut self) -> Result<()> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(status) => match self.step(status) {
                    // It was killed between its stop and our question.
                    Err(error) if error.downcast_ref() == Some(&Errno::ESRCH) => {}
                    other => other?,
                },
                Err(Errno::ECHILD) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn step(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Exited(pid, code) => self.gone(pid, End::Exited(code)),
            WaitStatus::Signaled(pid, signal, _) => self.gone(pid, End::Killed(signal)),
            WaitStatus::PtraceEvent(pid, _, event) => return self.event(pid, event),
            WaitStatus::PtraceSyscall(pid) => {
                if self.begun {
                    self.call(pid)?;
                }
                ptrace::syscall(pid, None)?;
            }
            WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal)?,
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
        Ok(())
    }

    fn gone(&mut self, pid: Pid, end: End) {
        self.threads.remove(&pid);
        if pid == self.leader {
            self.end = Some(end);
        }
    }

    fn event(&mut self, pid: Pid, event: i32) -> Result<()> {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let new = Pid::from_raw(i32::try_from(ptrace::getevent(pid)?)?);
                let parent = self.threads.get_mut(&pid).context("a thread of nobody's")?;
                parent.began += 1;
                let mut name = parent.name.clone();
                name.push(parent.began);
                let thread = Thread {
                    name,
                    ..Thread::default()
                };
                self.threads.insert(new, thread);
                if self.unnamed.remove(&new) {
                    ptrace::syscall(new, None)?;
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                let path = fs::read_link(format!("/proc/{pid}/exe"))?;
                self.begun = path == self.program;
                // This call ends before any is counted.
                if let Some(thread) = self.threads.get_mut(&pid) {
                    thread.inside = Some(Inside {
                        number: libc::SYS_execve,
                        argument: 0,
                        fails: None,
                    });
                }
            }
            libc::PTRACE_EVENT_STOP if !self.threads.contains_key(&pid) => {
                self.unnamed.insert(pid);
                return Ok(());
            }
            _ => {}
        }
        ptrace::syscall(pid, None)?;
        Ok(())
    }

    /// A thread stands before a call or after it.
    fn call(&mut self, pid: Pid) -> Result<()> {
        let mut registers = ptrace::getregs(pid)?;
        let thread = self.threads.get_mut(&pid).context("a thread of nobody's")?;
        if let Some(inside) = thread.inside.take() {
            if let Some(errno) = inside.fails {
                registers.rax = i64::from(-(errno as i32)).cast_unsigned();
                ptrace::setregs(pid, registers)?;
            } else if inside.number == libc::SYS_bpf {
                self.note(pid, inside.argument, registers.rax.cast_signed());
            }
            return Ok(());
        }
        thread.number += 1;
        let call = Call {
            place: Place {
                thread: thread.name.clone(),
                number: thread.number,
            },
            number: registers.orig_rax.cast_signed(),
            argument: registers.rdi,
            to_file: registers.orig_rax.cast_signed() == libc::SYS_write
                && is_file(pid, registers.rdi),
            capabilities: capabilities(pid, registers.orig_rax.cast_signed())?,
        };
        let mut fails = None;
        if self.hit.is_none()
            && self
                .injection
                .is_some_and(|injection| injection.is_for(&call))
        {
            match self.injection.map(|injection| injection.fault) {
                Some(Fault::Error(errno)) => {
                    // No call has this number.
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(pid, registers)?;
                    fails = Some(errno);
                }
                // A thread that is killed before its call does not make it.
                Some(Fault::Kill) => kill(self.leader, Signal::SIGKILL)?,
                None => {}
            }
            self.hit = Some(call.clone());
        }
        thread.inside = Some(Inside {
            number: call.number,
            argument: call.argument,
            fails,
        });
        self.calls.push(call);
        Ok(())
    }

    /// Notes what bpf(2) made.
    fn note(&mut self, pid: Pid, command: u64, result: i64) {
        let (ids, key) = match command {
            calls::BPF_MAP_CREATE => (&mut self.made.maps, "map_id:"),
            calls::BPF_PROG_LOAD => (&mut self.made.programs, "prog_id:"),
            _ => return,
        };
        // It has failed, or was killed since.
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{result}")).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix(key));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
}
