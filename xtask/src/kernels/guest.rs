//! A machine with another kernel: programs, what they need of this machine, and QEMU.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::package::Kernel;
use crate::{run, setup};

/// What begins a line that the guest says to us, and not to a person.
const MARK: &str = "@@";
/// The guest's last word.
const END: &str = "@@ end";
/// Where `nodewall` is in the guest.
const NODEWALL: &str = "/nodewall";

/// The programs of this machine that the guest has as well: what the tests run, and
/// what sets it up.
const TOOLS: [&str; 15] = [
    "cat", "env", "ethtool", "ip", "ls", "modprobe", "mount", "nsenter", "prlimit", "setpriv",
    "sh", "sleep", "tc", "umount", "unshare",
];

/// The modules that it has. The kernel asks for them by itself.
const MODULES: [&str; 5] = [
    "kernel/crypto",
    "kernel/drivers/net",
    "kernel/lib",
    "kernel/net",
    "kernel/arch/x86/crypto",
];

/// Files of this machine that programs read.
const FILES: [&str; 4] = [
    "/etc/group",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/services",
];

/// A program that is to run there.
pub(super) struct Program<'p> {
    pub(super) name: &'p str,
    pub(super) file: &'p Path,
    pub(super) arguments: &'p [&'p str],
}

/// What became of a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) status: i32,
    pub(super) seconds: u64,
    pub(super) output: String,
}

/// Writes the guest's files into an archive for the kernel. `folders` it has at the same
/// place as this machine.
pub(super) fn pack(
    kernel: &Kernel,
    nodewall: &Path,
    programs: &[Program<'_>],
    folders: &[PathBuf],
    archive: &Path,
) -> Result<()> {
    let root = archive.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let root = Root(root);
    root.lay_out()?;
    for tool in TOOLS {
        let path = setup::on_path(tool).with_context(|| format!("there is no {tool}"))?;
        root.program(&path, &Path::new("/usr/bin").join(tool))?;
    }
    // Where the kernel looks for it.
    symlink("../bin/modprobe", root.at("/usr/sbin/modprobe"))?;
    for file in FILES {
        if Path::new(file).exists() {
            fs::copy(file, root.at(file))?;
        }
    }
    for folder in folders {
        root.folder(folder, folder)?;
    }
    let modules = Path::new("/usr/lib/modules").join(&kernel.release);
    for folder in MODULES {
        root.folder(&kernel.modules().join(folder), &modules.join(folder))?;
    }
    for entry in fs::read_dir(kernel.modules())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), root.at(modules.join(entry.file_name())))?;
        }
    }
    root.program(nodewall, Path::new(NODEWALL))?;
    root.strip(Path::new(NODEWALL))?;
    for program in programs {
        let place = Path::new("/tests").join(program.name);
        root.program(program.file, &place)?;
        root.strip(&place)?;
    }
    let init = root.at("/init");
    fs::write(&init, script(programs))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    root.archive(archive)?;
    fs::remove_dir_all(&root.0)?;
    Ok(())
}

/// What the guest does.
fn script(programs: &[Program<'_>]) -> String {
    let mut script = format!(
        "#!/bin/sh\n\
         export PATH=/usr/bin HOME=/root CI=true NODEWALL_BIN={NODEWALL}\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t tmpfs tmpfs /run\n\
         mount -t tmpfs tmpfs /tmp\n\
         ip link set lo up\n"
    );
    for program in programs {
        let Program {
            name, arguments, ..
        } = program;
        let _ = write!(
            script,
            "read -r began rest </proc/uptime\n\
             echo; echo '{MARK} begin {name}'\n\
             /tests/{name}{} 2>&1 </dev/null\n\
             status=$?\n\
             read -r now rest </proc/uptime\n\
             echo; echo \"{MARK} done $status $((${{now%.*}} - ${{began%.*}}))\"\n",
            arguments
                .iter()
                .fold(String::new(), |text, argument| text + " " + argument)
        );
    }
    // What was said must be on the wire before the machine is gone.
    let _ = write!(
        script,
        "echo '{END}'\nsleep 1\necho b >/proc/sysrq-trigger\nsleep 60\n"
    );
    script
}

/// The guest's files.
struct Root(PathBuf);

impl Root {
    fn at(&self, place: impl AsRef<Path>) -> PathBuf {
        let place = place.as_ref();
        self.0.join(place.strip_prefix("/").unwrap_or(place))
    }

    fn lay_out(&self) -> Result<()> {
        for folder in [
            "dev",
            "etc",
            "proc",
            "root",
            "run",
            "sys",
            "tests",
            "tmp",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "usr/sbin",
            "var/lib",
            "var/tmp",
        ] {
            fs::create_dir_all(self.0.join(folder))?;
        }
        for folder in ["bin", "lib", "lib64", "sbin"] {
            symlink(Path::new("usr").join(folder), self.0.join(folder))?;
        }
        Ok(())
    }

    /// A program of this machine, with its libraries.
    fn program(&self, from: &Path, place: &Path) -> Result<()> {
        copy(from, &self.at(place))?;
        // Fails where it has none.
        let libraries = run::output(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            if !self.at(library).exists() {
                copy(Path::new(library), &self.at(library))?;
            }
        }
        Ok(())
    }

    /// Takes the names of lines out of a program, which are most of it.
    fn strip(&self, place: &Path) -> Result<()> {
        run::output(
            Command::new("strip")
                .arg("--strip-debug")
                .arg(self.at(place)),
        )
        .map(drop)
    }

    fn folder(&self, from: &Path, place: &Path) -> Result<()> {
        if !from.exists() {
            return Ok(());
        }
        let to = self.at(place);
        fs::create_dir_all(&to)?;
        run::output(Command::new("cp").arg("-rT").arg(from).arg(to)).map(drop)
    }

    fn archive(&self, to: &Path) -> Result<()> {
        let files = run::output(Command::new("find").arg(".").current_dir(&self.0))?;
        let mut cpio = Command::new("cpio")
            .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(File::create(to)?)
            .spawn()
            .context("cannot run `cpio`")?;
        // Dropped, so that cpio sees the end.
        if let Some(mut names) = cpio.stdin.take() {
            names.write_all(files.as_bytes())?;
        }
        if !cpio.wait()?.success() {
            bail!("`cpio` failed");
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Starts the kernel with these files, and waits until it is done; what it said goes to
/// `log`.
///
/// The processors are emulated, since machines that build have no others, and in one thread:
/// in several, one of them may still see a breakpoint that the kernel has taken out of
/// its text again (`int3` oopses in `bpf_dispatcher_xdp_func` while programs were swapped).
pub(super) fn boot(kernel: &Kernel, archive: &Path, log: &Path, patience: Duration) -> Result<()> {
    // What an earlier one said is no answer.
    fs::write(log, "")?;
    let mut serial = OsStr::new("file:").to_owned();
    serial.push(log);
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max",
        ])
        .args([
            "-smp",
            "2",
            "-m",
            "3G",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-serial")
        .arg(serial)
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(archive)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 oops=panic panic_on_warn=1",
        ])
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run `qemu-system-x86_64`")?;
    let began = Instant::now();
    loop {
        if let Some(status) = qemu.try_wait()? {
            if !status.success() {
                bail!("`qemu-system-x86_64` failed ({status})");
            }
            return Ok(());
        }
        if began.elapsed() > patience {
            qemu.kill()?;
            qemu.wait()?;
            bail!(
                "Linux {} was not done after {} s; what it said is in {}",
                kernel.release,
                patience.as_secs(),
                log.display()
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// What the guest said of its programs. An error where it did not come to its end.
pub(super) fn read(log: &str) -> Result<Vec<Ended>> {
    let mut ended = Vec::new();
    let mut running: Option<(String, String)> = None;
    for line in log.lines().map(|line| line.trim_end_matches('\r')) {
        if line == END {
            return Ok(ended);
        }
        let mut words = line.split_whitespace();
        if words.next() != Some(MARK) {
            if let Some((_, output)) = &mut running {
                output.push_str(line);
                output.push('\n');
            }
            continue;
        }
        match (words.next(), words.next(), words.next()) {
            (Some("begin"), Some(name), None) => running = Some((name.to_owned(), String::new())),
            (Some("done"), Some(status), Some(seconds)) => {
                let (name, output) = running.take().context("what never began is done")?;
                ended.push(Ended {
                    name,
                    status: status.parse()?,
                    seconds: seconds.parse()?,
                    output,
                });
            }
            _ => bail!("the guest says {line:?}, which has no meaning"),
        }
    }
    let last: Vec<&str> = log.lines().rev().take(30).collect();
    let last: String = last
        .iter()
        .rev()
        .fold(String::new(), |text, line| text + "\n  " + line);
    match running {
        Some((name, _)) => bail!("the kernel ended while {name} ran. Its last words:{last}"),
        None => bail!("the kernel ended before its tests did. Its last words:{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_asked_for_what_it_answers() {
        let program = Program {
            name: "edge",
            file: Path::new("edge"),
            arguments: &["the_kernel"],
        };
        let script = script(&[program]);
        assert!(script.contains("\n/tests/edge the_kernel 2>&1"), "{script}");
        assert!(script.contains("echo '@@ begin edge'"), "{script}");
        assert!(script.contains("echo '@@ end'"), "{script}");
    }

    #[test]
    fn what_the_guest_says_is_read() {
        let said = "booting\r\n@@ begin edge\r\ntest result: ok. 2 passed\r\n\r\n@@ done 0 12\r\n\
                    @@ begin other\r\nfailed\r\n@@ done 101 3\r\n@@ end\r\n[    6.1] sysrq\r\n";
        let ended = read(said).unwrap();
        assert_eq!(ended.len(), 2);
        assert_eq!(ended[0].name, "edge");
        assert_eq!((ended[0].status, ended[0].seconds), (0, 12));
        assert_eq!(ended[0].output, "test result: ok. 2 passed\n\n");
        assert_eq!((ended[1].status, ended[1].seconds), (101, 3));
    }

    #[test]
    fn a_guest_that_ends_early_has_failed() {
        for said in [
            "",
            "booting\n",
            "@@ begin edge\nKernel panic\n",
            "@@ begin a\n@@ done 0 1\n",
        ] {
            assert!(read(said).is_err(), "{said:?}");
        }
        let error = read("@@ begin edge\nKernel panic\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("while edge ran") && error.contains("panic"),
            "{error}"
        );
    }
}
