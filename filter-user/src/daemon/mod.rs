//! `nodewall run`: keeps policies in force, and tells what they do.
//!
//! The kernel is the database: what filters goes on without this process. It reads the
//! policies again when they change, puts them on interfaces that come back, and gives
//! what is counted and reported to whoever listens.

mod events;
mod journal;
mod lock;
mod socket;
pub(crate) mod state;
mod supervisor;
mod watch;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

pub use journal::Journal;

use crate::datapath::{self, Datapath, HostChange, HostChanges, Status, TrialState};
use crate::privileges::{self, Keep};
use crate::telemetry::live::{Asked, Live};
use crate::worker::Worker;
use lock::RunLock;
use supervisor::Supervisor;
use watch::Watch;

/// What a daemon is asked to do.
#[derive(Debug)]
pub struct Settings {
    /// Everything is pinned below it.
    pub pin_root: PathBuf,
    /// Where other verbs find the daemon.
    pub run_dir: PathBuf,
    /// Files and folders with policies.
    pub policies: Vec<PathBuf>,
    /// Whether folders in folders count.
    pub recursive: bool,
    /// Dropped packets that are reported, a second and CPU.
    pub sample_drops: u32,
    /// Whether the filters are taken off at the end.
    pub detach_on_exit: bool,
    /// How it speaks.
    pub journal: Journal,
}

/// Puts policies in force. Each call blocks for as long as that takes.
pub trait Policies: Send + Sync + 'static {
    /// Reads the policies, and puts in force what is not.
    fn put(&self, from: Origin) -> Result<Done, String>;
    /// Finishes trials that are over.
    fn finish_trials(&self) -> Result<(), String>;
    /// Takes the filter off an interface.
    fn detach(&self, interface: &str) -> Result<(), String>;
}

/// Where policies are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The files.
    Files,
    /// What was last read from them and put in force: on interfaces without a filter.
    LastGood,
}

/// What was done to put policies in force.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The interfaces that are meant.
    pub interfaces: Vec<String>,
    /// Those that were changed, with the generation that is in force now.
    pub changed: BTreeMap<String, u64>,
    /// Those that are not there.
    pub missing: Vec<String>,
    /// Those where something else is on trial, which is not disturbed.
    pub on_trial: Vec<String>,
    /// Those on which it failed, and why; what was in force there is.
    pub failed: Vec<(String, String)>,
    /// The files that were read.
    pub sources: Vec<PathBuf>,
}

impl Done {
    /// In a sentence.
    fn summary(&self) -> String {
        let list = |names: &[String]| names.join(", ");
        let changed: Vec<String> = self
            .changed
            .iter()
            .map(|(interface, generation)| format!("{interface} generation {generation}"))
            .collect();
        let mut text = if changed.is_empty() {
            format!("in force on {}: unchanged", list(&self.interfaces))
        } else {
            format!("in force: {}", list(&changed))
        };
        if !self.missing.is_empty() {
            let _ = write!(text, "; waiting for {}", list(&self.missing));
        }
        if !self.on_trial.is_empty() {
            let _ = write!(
                text,
                "; waiting for the end of a trial on {}",
                list(&self.on_trial)
            );
        }
        text
    }

    /// What failed, in a sentence.
    fn failure(&self) -> Option<String> {
        let failed: Vec<String> = self
            .failed
            .iter()
            .map(|(interface, error)| format!("{interface}: {error}"))
            .collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

/// Gives what a daemon knows to others, until the future that it is given ends.
pub type Serve = Box<dyn FnOnce(Arc<Live>, Ended) -> Ended>;
/// A future without a value.
pub type Ended = Pin<Box<dyn Future<Output = ()>>>;

/// Runs until a signal ends it, and whoever serves with it.
pub fn run(settings: Settings, policies: impl Policies, servers: Vec<Serve>) -> Result<(), String> {
    let lock = RunLock::take(&settings.run_dir)?;
    let workers = Workers::begin(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let tasks = tokio::task::LocalSet::new();
    let ended = tasks.block_on(&runtime, async move {
        Daemon::begin(settings, Arc::new(policies), workers, &lock)?
            .run(servers, lock)
            .await
    });
    // A reading that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended
}

/// The threads that may still do something in the kernel when all others have given that up:
/// what comes over a network meets nothing that could change a filter.
struct Workers {
    /// Changes what is in force.
    changes: Worker,
    /// Reads what is in force: a change that takes its time holds up no reading.
    readings: Worker,
}

impl Workers {
    fn begin(settings: &Settings) -> Result<Self, String> {
        // Mounting takes more than what is kept.
        Datapath::open(&settings.pin_root)
            .and_then(|datapath| datapath.mount())
            .map_err(|error| error.to_string())?;
        let give_up_all_but =
            |keep| privileges::give_up_all_but(keep).map_err(|error| error.to_string());
        give_up_all_but(Keep::Kernel)?;
        let begin = |name| Worker::begin(name).map_err(no_thread);
        let workers = Self {
            changes: begin("changes")?,
            readings: begin("readings")?,
        };
        give_up_all_but(Keep::Nothing)?;
        Ok(workers)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn no_thread(error: io::Error) -> String {
    format!("cannot begin a thread: {error}")
}

struct Daemon<P> {
    settings: Settings,
    policies: Arc<P>,
    changes: Worker,
    live: Arc<Live>,
    supervisor: Supervisor,
    watch: Watch,
    host: HostChanges,
    /// Whether policies are to be put in force when a trial is over.
    after_trial: bool,
    signals: Signals,
    /// The interfaces that should be filtered and were not, when it was last looked, and when
    /// it was last tried to filter those.
    lacking: Vec<String>,
    tried: Instant,
    /// Keeps the socket's task, and the folder.
    _socket: socket::Server,
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
        Ok(Self {
            reload: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }
}

/// Why the policies are put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Start,
    Asked,
    Files,
    Interface,
    Addresses,
}

/// After an address came or went: more are to follow.
const SETTLING: Duration = Duration::from_millis(300);
/// How often it is looked whether every interface is filtered that should be: nobody tells
/// where a link is detached or loses its pin.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is tried again where one is not.
const RETRY: Duration = Duration::from_secs(10);
/// How long those who serve have to end.
const FAREWELL: Duration = Duration::from_secs(3);

impl<P: Policies> Daemon<P> {
    fn begin(
        settings: Settings,
        policies: Arc<P>,
        workers: Workers,
        lock: &RunLock,
    ) -> Result<Self, String> {
        let live = Arc::new(Live::new(
            &settings.pin_root,
            Asked {
                policies: settings.policies.clone(),
                sample_drops: settings.sample_drops,
            },
            workers.readings,
        ));
        let words = |error: datapath::Error| error.to_string();
        Ok(Self {
            // Before the policies are read, so that no change of either is missed.
            watch: Watch::new(&settings.policies, settings.recursive)?,
            host: HostChanges::listen().map_err(words)?,
            after_trial: false,
            signals: Signals::new()?,
            lacking: Vec::new(),
            tried: Instant::now(),
            supervisor: Supervisor::new(),
            _socket: socket::Server::begin(lock.folder(), &settings.pin_root, Arc::clone(&live))?,
            live,
            policies,
            changes: workers.changes,
            settings,
        })
    }

    async fn run(mut self, servers: Vec<Serve>, lock: RunLock) -> Result<(), String> {
        self.first().await?;
        let (stop, stopped) = tokio::sync::watch::channel(());
        let mut serving = tokio::task::JoinSet::new();
        for serve in servers {
            let mut stopped = stopped.clone();
            let stopped: Ended = Box::pin(async move {
                // It ends where the sender is gone.
                while stopped.changed().await.is_ok() {}
            });
            serving.spawn_local(serve(Arc::clone(&self.live), stopped));
        }
        let reader = events::Reader::new(&self.settings, Arc::clone(&self.live));
        let pulse = self.change(|_| reader.begin()).await.map_err(no_thread)?;
        self.show(&lock).await;
        let result = self.follow(&pulse, &lock).await;
        self.supervisor.stopping();
        drop(stop);
        let ended = async { while serving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, ended).await;
        pulse.end();
        if self.settings.detach_on_exit {
            self.detach().await;
        }
        result
    }

    /// Puts the policies in force for the first time. Where they are wrong, and nothing
    /// is in force yet, the last good ones are; where there are none, it is the end.
    async fn first(&mut self) -> Result<(), String> {
        let Err(error) = self.put(Why::Start).await else {
            return Ok(());
        };
        let last_good = self.put_last_good().await;
        let in_force = self.read().await.map_err(|other| other.to_string());
        let journal = self.settings.journal;
        if !in_force?.is_empty() {
            journal.error(&error);
            journal.warning("what is in force stays in force");
        } else if last_good {
            journal.error(&error);
        } else {
            return Err(error);
        }
        Ok(())
    }

    /// Where the policies can't be put in force, those that were last good are, on
    /// interfaces without a filter: on none of them packets pass for the sake of a
    /// mistake in a file. Whether there are such policies, and they can be put there.
    async fn put_last_good(&self) -> bool {
        let Ok(done) = self.change(|policies| policies.put(Origin::LastGood)).await else {
            return false;
        };
        // What stands in the way of these stood in the way of the others, and was said.
        if done.failure().is_some() {
            return false;
        }
        self.live.wants(&done.interfaces);
        if !done.changed.is_empty() {
            let journal = self.settings.journal;
            journal.warning(&format!(
                "the last policies that were good are put in force instead: {}",
                done.summary()
            ));
        }
        true
    }

    /// Goes on until a signal says that it is enough.
    async fn follow(&mut self, pulse: &events::Pulse, lock: &RunLock) -> Result<(), String> {
        let mut round = tokio::time::interval_at((Instant::now() + LOOK).into(), LOOK);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pat = tokio::time::interval(self.supervisor.interval());
        let mut settled: Option<tokio::time::Instant> = None;
        loop {
            let settles = async {
                match settled {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let why = tokio::select! {
                _ = self.signals.terminate.recv() => return Ok(()),
                _ = self.signals.interrupt.recv() => return Ok(()),
                _ = self.signals.reload.recv() => Some(Why::Asked),
                () = self.watch.changed() => Some(Why::Files),
                change = self.host.next() => match change {
                    Some(HostChange::Unfiltered(interface)) => {
                        self.is_wanted(&interface).then_some(Why::Interface)
                    }
                    Some(HostChange::Addresses) => {
                        settled = Some(tokio::time::Instant::now() + SETTLING);
                        None
                    }
                    None => {
                        self.settings.journal.warning("the kernel tells no more of interfaces");
                        self.host = HostChanges::listen().map_err(|error| error.to_string())?;
                        None
                    }
                },
                () = settles => {
                    settled = None;
                    Some(Why::Addresses)
                }
                _ = round.tick() => {
                    self.supervisor.again();
                    let all = self.read().await;
                    let lacks = all.as_ref().map_or_else(|_| Vec::new(), |all| self.live.missing(all));
                    match all {
                        _ if self.must_put_back(lacks) => Some(Why::Interface),
                        Ok(all) => self.look_after_trials(&all).await,
                        Err(_) => None,
                    }
                }
                _ = pat.tick() => {
                    if pulse.beats() {
                        self.supervisor.alive();
                    }
                    None
                }
            };
            if let Some(why) = why {
                // What is not filtered is told of, whatever it was that leads to its being
                // put back.
                if let Ok(all) = self.read().await {
                    let lacks = self.live.missing(&all);
                    self.must_put_back(lacks);
                }
                if matches!(why, Why::Asked | Why::Files) {
                    self.supervisor.reloading();
                }
                // What is wrong was said already.
                match self.put(why).await {
                    Ok(waits) => self.tell_who_is_back(waits).await,
                    Err(_) => {
                        self.put_last_good().await;
                    }
                }
                self.show(lock).await;
            }
        }
    }

    /// Whether it is to be tried now to filter these, which should be filtered and are not;
    /// who was not among them before is told of.
    fn must_put_back(&mut self, lacks: Vec<String>) -> bool {
        let is_new = |name: &&String| !self.lacking.contains(name);
        let new: Vec<&str> = lacks.iter().filter(is_new).map(String::as_str).collect();
        if !new.is_empty() {
            let journal = self.settings.journal;
            journal.warning(&format!("not filtered: {}", new.join(", ")));
        }
        let now = !new.is_empty() || !lacks.is_empty() && self.tried.elapsed() > RETRY;
        self.lacking = lacks;
        if now {
            self.tried = Instant::now();
        }
        now
    }

    /// All is put back but what `waits`. Who was told of is told of again; and whoever else
    /// lacks from now on is news, also where somebody took it off at once, while it was put
    /// there.
    async fn tell_who_is_back(&mut self, waits: Vec<String>) {
        let mut back = std::mem::replace(&mut self.lacking, waits);
        if back.is_empty() {
            return;
        }
        if let Ok(all) = self.read().await {
            let lacks = self.live.missing(&all);
            back.retain(|name| !lacks.contains(name));
            if !back.is_empty() {
                let journal = self.settings.journal;
                journal.note(&format!("filtered again: {}", back.join(", ")));
            }
        }
    }

    /// Finishes trials that somebody else began and that are over; whether there is
    /// something to put in force that waited for that.
    async fn look_after_trials(&mut self, all: &[Status]) -> Option<Why> {
        let runs = |trial: &TrialState| matches!(trial, TrialState::Runs(_));
        let trials = || {
            all.iter()
                .filter_map(|status| Some((status, status.trial?)))
        };
        if trials().any(|(_, trial)| !runs(&trial)) {
            for (status, _) in trials().filter(|(_, trial)| *trial == TrialState::Over) {
                self.settings.journal.warning(&format!(
                    "{}: a trial was not confirmed in time: generation {} is in force again",
                    status.interface, status.generation
                ));
            }
            if let Err(error) = self.change(Policies::finish_trials).await {
                self.settings.journal.error(&error);
            }
        }
        let over = self.after_trial && !trials().any(|(_, trial)| runs(&trial));
        over.then_some(Why::Files)
    }

    fn is_wanted(&self, interface: &str) -> bool {
        let wanted = self.live.policies().interfaces;
        wanted.iter().any(|name| name == interface)
    }

    /// Reads the policies and puts them in force; says what came of it. The interfaces that
    /// have to wait: they are not there, or on trial.
    async fn put(&mut self, why: Why) -> Result<Vec<String>, String> {
        let journal = self.settings.journal;
        let result = self.change(|policies| policies.put(Origin::Files)).await;
        let result = match result {
            Ok(done) => {
                self.watch.also(&done.sources);
                self.after_trial = !done.on_trial.is_empty();
                let summary = done.summary();
                match done.failure() {
                    None => {
                        // What nobody asked for, and what changed nothing, is not worth a word.
                        if matches!(why, Why::Start | Why::Asked | Why::Files)
                            || !done.changed.is_empty()
                            || self.live.policies().last_error.is_some()
                        {
                            journal.note(&summary);
                            self.live
                                .succeeded(&done.interfaces, &done.changed, &summary);
                        }
                        Ok([done.missing, done.on_trial].concat())
                    }
                    Some(failure) => {
                        self.live.wants(&done.interfaces);
                        Err(failure)
                    }
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            // The same again is told once.
            if matches!(why, Why::Start | Why::Asked | Why::Files) || self.live.is_news(error) {
                // At the start it may be the end, and is told by that.
                if why != Why::Start {
                    journal.error(error);
                }
                self.live.failed(error);
            }
        }
        result
    }

    /// Does something by who may change what is in force.
    async fn change<T: Send + 'static>(&self, work: impl FnOnce(&P) -> T + Send + 'static) -> T {
        let (changes, policies) = (self.changes.clone(), Arc::clone(&self.policies));
        blocking(move || changes.call(move || work(&policies))).await
    }

    async fn read(&self) -> Result<Vec<Status>, datapath::Error> {
        let live = Arc::clone(&self.live);
        blocking(move || live.read()).await
    }

    /// Shows how it fares: to who supervises it, in a line, and to `nodewall status`.
    async fn show(&mut self, lock: &RunLock) {
        let not_ready = self.live.not_ready(&self.read().await);
        let journal = self.settings.journal;
        let state = not_ready.as_deref().unwrap_or("filtering");
        if let Err(error) = self.supervisor.ready(state) {
            journal.warning(&format!(
                "who waits at NOTIFY_SOCKET can't be told, and is told later: {error}"
            ));
        }
        if let Err(error) = state::write(lock.folder(), &self.settings.pin_root, &self.live) {
            journal.warning(&format!("`nodewall status` can't be told: {error}"));
        }
    }

    async fn detach(&self) {
        for interface in self.live.policies().interfaces {
            let name = interface.clone();
            if let Err(error) = self.change(move |policies| policies.detach(&name)).await {
                self.settings.journal.error(&error);
            } else {
                self.settings
                    .journal
                    .note(&format!("{interface}: detached"));
            }
        }
    }
}

/// Does what blocks on a thread of its own, which may do nothing else than wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
