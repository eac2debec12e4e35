//! The Debian package: files laid out in a folder, which `dpkg-deb` packs.
//!
//! Not by cargo-deb: compiling that takes CI longer than all else about the package, and
//! what it would do is the list of files below. Not by debhelper either, which wants
//! a source package around it.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::place::Place;
use crate::say::{Step, note};
use crate::{build, run, setup};

/// The revision of the package of a version.
const REVISION: u32 = 1;
const DOC: &str = "usr/share/doc/nodewall";

#[derive(Args)]
pub(crate) struct Options {
    /// Pack this binary, and don't build one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the package goes
    #[arg(long, value_name = "DIR", default_value = "target/debian")]
    out: PathBuf,
}

pub(crate) fn perform(place: &Place, options: &Options) -> Result<()> {
    setup::for_package()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build::nodewall(place, true, false)?,
    };
    let package = build(place, &binary, &place.root.join(&options.out))?;
    note(&format!("built {}", package.display()));
    Ok(())
}

/// Packs `binary` and all that goes with it; returns where the package is.
fn build(place: &Place, binary: &Path, out: &Path) -> Result<PathBuf> {
    let step = Step::begin("package", "laying out and packing the files");
    let epoch = epoch(place)?;
    let version = format!("{}-{REVISION}", env!("CARGO_PKG_VERSION"));
    let architecture = output("dpkg", &["--print-architecture"])?;
    let staged = out.join("nodewall");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    let stage = Stage {
        root: staged,
        epoch: epoch.clone(),
    };

    stage.put(binary, "usr/sbin/nodewall", 0o755)?;
    let installed = stage.root.join("usr/sbin/nodewall");
    run::status(
        Command::new("strip")
            .args(["--strip-unneeded", "--remove-section=.comment"])
            .arg(&installed),
    )?;
    generated(&stage, binary)?;
    written(place, &stage, &version)?;

    let control = fs::read_to_string(place.root.join("deploy/debian/control"))?
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", architecture.trim())
        .replace("@DEPENDS@", &dependencies(out, &installed)?)
        .replace("@INSTALLED_SIZE@", &stage.kibibytes()?.to_string());
    let scripts = ["postinst", "prerm", "postrm"];
    for script in scripts {
        let from = place.root.join("deploy/debian").join(script);
        stage.put(&from, &format!("DEBIAN/{script}"), 0o755)?;
    }
    stage.write("DEBIAN/md5sums", &stage.checksums()?)?;
    stage.write("DEBIAN/conffiles", "/etc/nodewall/nodewall.yaml\n")?;
    stage.write("DEBIAN/control", &control)?;

    let package = out.join(format!("nodewall_{version}_{}.deb", architecture.trim()));
    run::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "-z1", "--build"])
            .arg(&stage.root)
            .arg(&package)
            .env("SOURCE_DATE_EPOCH", &epoch),
    )?;
    step.done();
    Ok(package)
}

/// What the binary says of itself: manual pages and completions.
fn generated(stage: &Stage, binary: &Path) -> Result<()> {
    let said = |arguments: &[&str]| {
        run::output(
            Command::new(binary)
                .args(arguments)
                .env("NODEWALL_CONFIG", "/dev/null")
                .env("SOURCE_DATE_EPOCH", &stage.epoch),
        )
    };
    let pages = stage.path("usr/share/man/man8")?;
    said(&["man", "--out", &pages.to_string_lossy()])?;
    for page in listed(&pages)? {
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
        zip(&page)?;
    }
    for (shell, file) in [
        ("bash", "usr/share/bash-completion/completions/nodewall"),
        ("zsh", "usr/share/zsh/vendor-completions/_nodewall"),
        ("fish", "usr/share/fish/vendor_completions.d/nodewall.fish"),
    ] {
        stage.write(file, &said(&["completions", shell])?)?;
    }
    Ok(())
}

/// What is in the tree as it is installed.
fn written(place: &Place, stage: &Stage, version: &str) -> Result<()> {
    let tree = |file: &str| place.root.join(file);
    for (from, to) in [
        (
            "deploy/systemd/nodewall.service",
            "lib/systemd/system/nodewall.service",
        ),
        ("deploy/debian/nodewall.yaml", "etc/nodewall/nodewall.yaml"),
        (
            "deploy/debian/lintian-overrides",
            "usr/share/lintian/overrides/nodewall",
        ),
        (
            "deploy/debian/copyright",
            "usr/share/doc/nodewall/copyright",
        ),
        ("README.md", "usr/share/doc/nodewall/README.md"),
        ("docs/manual.md", "usr/share/doc/nodewall/manual.md"),
        ("CHANGELOG.md", "usr/share/doc/nodewall/changelog"),
    ] {
        stage.put(&tree(from), to, 0o644)?;
    }
    stage.path("etc/nodewall/policies.d")?;
    stage.put_all(&tree("examples"), &format!("{DOC}/examples"))?;
    for folder in ["prometheus", "grafana", "kubernetes", "helm"] {
        stage.put_all(
            &tree("deploy").join(folder),
            &format!("usr/share/nodewall/{folder}"),
        )?;
    }
    let date = output("date", &["-u", "-R", "-d", &format!("@{}", stage.epoch)])?;
    let maintainer = fs::read_to_string(tree("deploy/debian/control"))?;
    let maintainer = maintainer
        .lines()
        .find_map(|line| line.strip_prefix("Maintainer: "))
        .context("the control file names no maintainer")?
        .to_owned();
    let changelog = format!(
        "nodewall ({version}) unstable; urgency=medium\n\n  * Built from the repository; \
         changelog.gz has the changes.\n\n -- {maintainer}  {date}"
    );
    stage.write(&format!("{DOC}/changelog.Debian"), &changelog)?;
    for file in ["changelog", "changelog.Debian", "manual.md"] {
        zip(&stage.root.join(DOC).join(file))?;
    }
    Ok(())
}

/// The moment that everything is of: that of the commit, or what somebody says.
fn epoch(place: &Place) -> Result<String> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(&place.root);
    Ok(run::output(&mut git)?.trim().to_owned())
}

/// The packages of the libraries that the binary wants.
fn dependencies(out: &Path, binary: &Path) -> Result<String> {
    // Reads a source package's control file, of which it wants no more than a name.
    let folder = out.join("shlibdeps");
    fs::create_dir_all(folder.join("debian"))?;
    fs::write(
        folder.join("debian/control"),
        "Source: nodewall\n\nPackage: nodewall\nArchitecture: any\n",
    )?;
    let text = run::output(
        Command::new("dpkg-shlibdeps")
            .args(["-O", "-e"])
            .arg(binary)
            .current_dir(&folder),
    )?;
    fs::remove_dir_all(folder)?;
    let text = text
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(text.context("dpkg-shlibdeps names no packages")?.to_owned())
}

/// The folder whose content is packed.
struct Stage {
    root: PathBuf,
    epoch: String,
}

impl Stage {
    /// The folder of that name, which is there afterwards.
    fn path(&self, folder: &str) -> Result<PathBuf> {
        let path = self.root.join(folder);
        fs::create_dir_all(&path)?;
        // Whatever the umask.
        for folder in path
            .ancestors()
            .take_while(|path| path.starts_with(&self.root))
        {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        Ok(path)
    }

    fn place_for(&self, file: &str) -> Result<PathBuf> {
        let (folder, name) = file.rsplit_once('/').context("a file in a folder")?;
        Ok(self.path(folder)?.join(name))
    }

    fn put(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let to = self.place_for(to)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.place_for(file)?;
        fs::write(&file, text)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
        Ok(())
    }

    fn put_all(&self, from: &Path, to: &str) -> Result<()> {
        for path in listed(from)? {
            let name = path.file_name().context("a name")?.to_string_lossy();
            let to = format!("{to}/{name}");
            if path.is_dir() {
                self.put_all(&path, &to)?;
            } else {
                self.put(&path, &to, 0o644)?;
            }
        }
        Ok(())
    }

    /// As `md5sum` prints it, for all that is installed.
    fn checksums(&self) -> Result<String> {
        let mut files = Vec::new();
        for folder in listed(&self.root)? {
            if !folder.ends_with("DEBIAN") {
                walk(&folder, &mut files)?;
            }
        }
        let files = files.iter().map(|file| file.strip_prefix(&self.root));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        run::output(Command::new("md5sum").args(files).current_dir(&self.root))
    }

    fn kibibytes(&self) -> Result<u64> {
        let mut files = Vec::new();
        walk(&self.root, &mut files)?;
        let mut sum = 0;
        for file in files {
            sum += fs::metadata(file)?.len().div_ceil(1024);
        }
        Ok(sum)
    }
}

/// What is in a folder, by name: the order must not depend on the file system.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in listed(folder)? {
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn zip(file: &Path) -> Result<()> {
    run::output(Command::new("gzip").args(["-9nf"]).arg(file)).map(drop)
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let text = run::output(Command::new(program).args(arguments))?;
    if text.is_empty() {
        bail!("{program} said nothing");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The binary that the other tests have, too; without one the test is for nobody.
    fn binary() -> Option<PathBuf> {
        let binary = env::var_os("NODEWALL_BIN").map(PathBuf::from);
        let root = nix::unistd::geteuid().is_root();
        if binary.is_none() || !root {
            let message = "SKIPPED: the package wants root, and NODEWALL_BIN";
            eprintln!("{message}");
            assert!(env::var("CI").as_deref() != Ok("true"), "{message}");
        }
        binary.filter(|_| root)
    }

    fn succeeds(command: &mut Command) -> String {
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{command:?}:\n{said}");
        said
    }

    /// The same files with a higher version, and another conffile.
    fn newer(out: &Path) -> PathBuf {
        let staged = out.join("nodewall");
        let change = |file: &str, from: &str, to: &str| {
            let file = staged.join(file);
            let text = fs::read_to_string(&file).expect("it is laid out");
            assert!(text.contains(from));
            fs::write(file, text.replace(from, to)).expect("it is ours");
        };
        change("DEBIAN/control", "-1\n", "-2\n");
        change("etc/nodewall/nodewall.yaml", "# Flags", "# Newer: flags");
        let package = out.join("newer.deb");
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]);
        succeeds(dpkg.arg(staged).arg(&package));
        package
    }

    #[test]
    fn the_package_is_the_same_each_time_and_installs() {
        let Some(binary) = binary() else { return };
        let place = Place::find().expect("a workspace");
        let folder = place.target.join("debian-test");
        let build = |name| build(&place, &binary, &folder.join(name)).expect("a package");
        let (one, other) = (build("one"), build("other"));
        let read = |package: &Path| fs::read(package).expect("it was built");
        assert!(read(&one) == read(&other), "two builds differ");

        succeeds(
            Command::new("lintian")
                .args(["--allow-root", "--fail-on", "error,warning"])
                .arg(&one),
        );

        let newer = newer(&folder.join("one"));
        let tried = folder.join("tried");
        fs::create_dir_all(&tried).expect("a folder");
        let said = succeeds(
            Command::new("unshare")
                .args(["--mount", "--net", "bash", "-s"])
                .args([&one, &newer, &tried])
                .stdin(
                    fs::File::open(place.root.join("xtask/src/package/install.sh"))
                        .expect("it is in the tree"),
                ),
        );
        assert!(said.contains("\n== done\n"), "{said}");
        fs::remove_dir_all(folder).expect("it is ours");
    }
}
