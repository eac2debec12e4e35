//! Debian's kernels, as `apt` has them on this machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::place::Place;
use crate::run;
use crate::say::Step;

/// A kernel package, unpacked and not installed.
pub(crate) struct Kernel {
    /// As `uname -r` says it there.
    pub(crate) release: String,
    /// The unpacked package.
    folder: PathBuf,
}

impl Kernel {
    /// Brings the newest kernel of a series, `6.1` say; `None` where no source of this
    /// machine's `apt` has one.
    pub(crate) fn bring(place: &Place, series: &str) -> Result<Option<Self>> {
        let packages = place.target.join("kernels");
        fs::create_dir_all(&packages)?;
        let Some(release) = newest(series)? else {
            return Ok(None);
        };
        let folder = packages.join(&release);
        let kernel = Self { release, folder };
        if !kernel.folder.exists() {
            kernel.unpack()?;
        }
        Ok(Some(kernel))
    }

    /// What QEMU starts.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    /// Its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    fn unpack(&self) -> Result<()> {
        let package = format!("linux-image-{}", self.release);
        let step = Step::begin(&package, "downloading and unpacking it (30 MB, once)");
        // What is half done is nobody's kernel.
        let new = self.folder.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        let downloads = new.join("package");
        fs::create_dir_all(&downloads)?;
        run::output(
            Command::new("apt-get")
                // Its own user may not write to our folder.
                .args(["-q", "-o", "APT::Sandbox::User=root", "download", &package])
                .current_dir(&downloads),
        )?;
        let file = fs::read_dir(&downloads)?.next();
        let file = file.context("`apt-get download` brought nothing")??.path();
        run::output(Command::new("dpkg-deb").arg("-x").arg(file).arg(&new))?;
        fs::remove_dir_all(&downloads)?;
        // Debian makes the list of modules when it installs the package.
        run::output(
            Command::new("depmod")
                .arg("-b")
                .arg(&new)
                .arg(&self.release),
        )?;
        fs::rename(&new, &self.folder)?;
        step.done();
        Ok(())
    }
}

/// The newest release of a series that `apt` has for machines in a cloud: few drivers.
fn newest(series: &str) -> Result<Option<String>> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !series.split('.').all(digits) {
        bail!("{series:?} is no series of kernels, as 6.1 is one");
    }
    let pattern = format!(
        r"^linux-image-{}\.[0-9].*-cloud-amd64$",
        series.replace('.', r"\.")
    );
    let search =
        || run::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]));
    let mut found = search()?;
    if found.is_empty() {
        // A fresh machine or container has no package lists yet.
        run::output(Command::new("apt-get").args(["-q", "update"]))?;
        found = search()?;
    }
    Ok(newest_of(&found))
}

/// Of what `apt-cache search` prints.
fn newest_of(packages: &str) -> Option<String> {
    let names = packages
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let releases = names.filter_map(|name| name.strip_prefix("linux-image-"));
    releases
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// `6.12.117+deb12-cloud-amd64` → 6, 12, 117, 12, 64
fn numbers(release: &str) -> Vec<u32> {
    let parts = release.split(|letter: char| !letter.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_the_one_with_the_highest_numbers() {
        let found = "linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
                     linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
                     linux-image-6.1.0-10-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n";
        assert_eq!(newest_of(found).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest_of(""), None);
        assert!(numbers("6.12.117+deb12-cloud-amd64") > numbers("6.12.99+deb12-cloud-amd64"));
    }

    #[test]
    fn what_is_no_series_is_refused() {
        for series in ["", "6.", "6.1;", "six"] {
            assert!(newest(series).is_err(), "{series:?}");
        }
    }
}
