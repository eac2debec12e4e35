//! `nodewall run`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::builder::FalseyValueParser;
use clap::{Args, value_parser};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::args::{Files, Global};
use super::compiled::{Found, Target};
use super::error::Failure;
use super::get::gather;
use super::put::{MOST_SAMPLES, Put, PutFlags};
use crate::daemon::{self, Done, Journal, Origin, Policies, Settings};
use crate::datapath::{self, Datapath, Status};
use crate::ours;
use crate::policy::print;
use crate::telemetry::http;

/// Keep policies in force, and serve what they count and drop
///
/// Applies the policies, and again whenever their files, this host's interfaces or
/// addresses change; what is wrong is reported, and the last good policies stay in
/// force. SIGHUP reads the files again. The filter goes on when this ends, unless
/// --detach-on-exit is given.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall run --interface eth0 --label ibm.role=worker_public
  nodewall run -R -f /etc/nodewall/policies.d --listen 127.0.0.1:9469
  curl -s http://127.0.0.1:9469/metrics")]
pub(super) struct Run {
    /// Policy file or folder, which is watched; may be repeated
    #[arg(
        short,
        long = "filename",
        value_name = "PATH",
        num_args = 1..,
        default_value = "/etc/nodewall/policies.d",
        env = "NODEWALL_POLICIES",
        value_delimiter = ':'
    )]
    filenames: Vec<PathBuf>,

    /// Read the sub-folders of folders as well
    #[arg(short = 'R', long, env = "NODEWALL_RECURSIVE", value_parser = FalseyValueParser::new())]
    recursive: bool,

    /// Report up to this many dropped packets a second and CPU; 0 reports none, and
    /// costs nothing
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        env = "NODEWALL_SAMPLE_DROPS",
        value_parser = value_parser!(u32).range(..=MOST_SAMPLES)
    )]
    sample_drops: u32,

    #[command(flatten)]
    http: HttpFlags,

    #[cfg(feature = "otlp")]
    #[command(flatten)]
    otlp: super::otlp::OtlpFlags,

    /// Folder in which the last good policies are kept
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/nodewall",
        env = "NODEWALL_STATE_DIR"
    )]
    state_dir: PathBuf,

    /// Take the filters off at the end
    #[arg(long, env = "NODEWALL_DETACH_ON_EXIT", value_parser = FalseyValueParser::new())]
    detach_on_exit: bool,

    #[command(flatten)]
    put: PutFlags,
}

/// What is served over HTTP, and to whom.
#[derive(Args, Debug)]
struct HttpFlags {
    /// Where HTTP is served: metrics, streams, the dashboard
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9469",
        env = "NODEWALL_LISTEN"
    )]
    listen: SocketAddr,

    /// Let --listen be an address that other hosts reach: whoever does reads all
    #[arg(long, env = "NODEWALL_ALLOW_REMOTE", value_parser = FalseyValueParser::new())]
    allow_remote: bool,

    /// Serve no HTTP
    #[arg(long, env = "NODEWALL_NO_HTTP", value_parser = FalseyValueParser::new())]
    no_http: bool,
}

impl HttpFlags {
    /// What HTTP is served with, before anything is changed.
    fn open(&self) -> Result<Option<daemon::Serve>, Failure> {
        if self.no_http {
            return Ok(None);
        }
        http::check_listen(self.listen, self.allow_remote).map_err(Failure::Usage)?;
        if !http::is_loopback(self.listen) {
            Journal::new().warning(&format!(
                "whoever reaches {} reads all about the filters and the packets they drop",
                self.listen
            ));
        }
        let listener = http::listen(self.listen).map_err(Failure::Failed)?;
        let serve: daemon::Serve = Box::new(|live, ended| {
            Box::pin(async {
                if let Err(error) = http::serve(listener, live, ended).await {
                    Journal::new().error(&format!("HTTP can't be served: {error}"));
                }
            })
        });
        Ok(Some(serve))
    }
}

impl Run {
    /// Runs the verb.
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        if self.filenames.iter().any(|path| path.as_os_str() == "-") {
            return Err(Failure::Usage(
                "standard input can't be read again: give `run` a file or a folder, or use \
                 `nodewall apply -f -`"
                    .to_owned(),
            ));
        }
        let work = Work {
            flags: self.put.clone(),
            files: Files {
                filenames: self.filenames.clone(),
                recursive: self.recursive,
            },
            sample_drops: self.sample_drops,
            global: global.clone(),
            last_good: LastGood {
                folder: self.state_dir.clone(),
            },
        };
        let settings = Settings {
            pin_root: global.pin_root.clone(),
            run_dir: global.run_dir.clone(),
            policies: self.filenames.clone(),
            recursive: self.recursive,
            sample_drops: self.sample_drops,
            detach_on_exit: self.detach_on_exit,
            journal: Journal::new(),
        };
        let servers = self.http.open()?.into_iter();
        #[cfg(feature = "otlp")]
        let servers = servers.chain(self.otlp.open()?);
        daemon::run(settings, work, servers.collect()).map_err(Failure::failed)
    }
}

/// Puts policies in force as the flags ask for it.
struct Work {
    flags: PutFlags,
    files: Files,
    sample_drops: u32,
    global: Global,
    last_good: LastGood,
}

impl Policies for Work {
    fn put(&self, origin: Origin) -> Result<Done, String> {
        let last_good;
        let put = Put {
            flags: &self.flags,
            files: &self.files,
            sample_drops: self.sample_drops,
            global: &self.global,
        };
        let mut put = put;
        let flags;
        if origin == Origin::LastGood {
            if let Some(why) = self.last_good.doubt() {
                Journal::new().warning(&why);
                return Err(why);
            }
            // The endpoints are among its documents.
            flags = self.flags.clone().by_documents();
            last_good = Files {
                filenames: vec![self.last_good.file()],
                recursive: false,
            };
            put.flags = &flags;
            put.files = &last_good;
        }
        let found = Rc::<Found>::default();
        let targets = put.targets(&Rc::default(), &found).map_err(|failure| {
            let message = failure.message().unwrap_or("the policies are not valid");
            match found.error.take() {
                Some(first) => format!("{message}. The first: {first}"),
                None => message.to_owned(),
            }
        })?;
        let mut done = put_all(&put, &targets, origin)?;
        done.sources = found.sources.take();
        if origin == Origin::Files && done.failed.is_empty() {
            self.last_good.keep(&targets);
        }
        Ok(done)
    }

    fn finish_trials(&self) -> Result<(), String> {
        let datapath = Datapath::open(&self.global.pin_root);
        let finished = datapath.and_then(|datapath| datapath.finish_trials());
        finished.map_err(|error| error.to_string())
    }

    fn detach(&self, interface: &str) -> Result<(), String> {
        let datapath = Datapath::open(&self.global.pin_root);
        let detached = datapath.and_then(|datapath| datapath.detach(interface));
        detached.map_err(|error| error.to_string())
    }
}

/// Puts each target in force that is not, where its interface is there; the last good
/// ones where nothing is in force.
fn put_all(put: &Put<'_>, targets: &[Target], origin: Origin) -> Result<Done, String> {
    let datapath = put
        .datapath()
        .map_err(|failure| failure.message().unwrap_or_default().to_owned())?;
    let filtered: Vec<String> = match origin {
        Origin::Files => Vec::new(),
        Origin::LastGood => {
            let all = datapath.status().map_err(|error| error.to_string())?;
            let attached = all.into_iter().filter(Status::is_attached);
            attached.map(|status| status.interface).collect()
        }
    };
    let mut done = Done::default();
    for target in targets {
        let interface = &target.interface;
        done.interfaces.push(interface.clone());
        if if_nametoindex(interface.as_str()) == Err(Errno::ENODEV) {
            done.missing.push(interface.clone());
        } else if !filtered.contains(interface) && !put.is_in_force(&datapath, target) {
            match put.apply(&datapath, target) {
                Ok(applied) => {
                    done.changed.insert(interface.clone(), applied.generation);
                }
                Err(datapath::Error::OnTrial { .. }) => done.on_trial.push(interface.clone()),
                Err(error) => done.failed.push((interface.clone(), error.to_string())),
            }
        }
    }
    Ok(done)
}

/// What was put in force last, in documents that go back into `apply`.
struct LastGood {
    folder: PathBuf,
}

impl LastGood {
    fn file(&self) -> PathBuf {
        self.folder.join("last-good.yaml")
    }

    /// Why what is there may have been written by somebody else, who would then say what is
    /// in force.
    fn doubt(&self) -> Option<String> {
        let file = self.file();
        for path in [&self.folder, &file] {
            // What is not there is nobody's, and what is a link is where that leads.
            let found = fs::metadata(path).ok()?;
            if let Some(why) = ours::doubt(&found, ours::WRITE) {
                return Some(format!(
                    "the policies that were good last are not used: {} is not this user's alone ({why})",
                    path.display()
                ));
            }
        }
        None
    }

    /// Keeps the policies. Where that fails, all else goes on: it is said.
    fn keep(&self, targets: &[Target]) {
        let parts = targets.iter();
        let parts = parts.map(|target| (target.interface.as_str(), &target.described));
        let kept = gather(parts, |_| true)
            .map_err(|failure| failure.message().unwrap_or_default().to_owned())
            .and_then(|documents| {
                let text = print::to_yaml(&documents);
                self.write(&text).map_err(|error| error.to_string())
            });
        if let Err(why) = kept {
            Journal::new().warning(&format!(
                "the policies are not kept in {} for a start with wrong ones: {why}",
                self.folder.display()
            ));
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let (file, new) = (self.file(), self.folder.join("last-good.yaml.new"));
        let written = if fs::read(&file).is_ok_and(|kept| kept == text.as_bytes()) {
            Ok(())
        } else {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder)
                .and_then(|()| write_whole(&new, text))
                .and_then(|()| fs::rename(&new, file))
        };
        // Once it is renamed it is not there; else this or an earlier process was cut short.
        let _ = fs::remove_file(new);
        written
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
