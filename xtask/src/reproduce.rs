//! Whether the BPF objects are the same bytes wherever they are built: a second time, from a
//! copy of the sources in another folder, into another target folder.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::place::Place;
use crate::say::note;

/// What of the workspace is no source.
const NOT_COPIED: [&str; 2] = ["target", ".git"];

/// Builds them twice and compares.
pub(crate) fn run(place: &Place) -> Result<()> {
    let here = build::object(place, false)?;
    let elsewhere = std::env::temp_dir().join(format!(
        "nodewall built a second time {}",
        std::process::id()
    ));
    let there = compare(place, &elsewhere, &here);
    fs::remove_dir_all(&elsewhere).ok();
    there
}

fn compare(place: &Place, elsewhere: &Path, here: &Path) -> Result<()> {
    let sources = elsewhere.join("sources");
    copy(&place.root, &sources)?;
    let there = build::object(&place.at(sources, elsewhere.join("built")), false)?;
    for name in build::OBJECTS {
        let [first, second] = [here, &*there].map(|object| object.with_file_name(name));
        let [first, second] = [read(&first)?, read(&second)?];
        if first != second {
            let place = first.iter().zip(&second).position(|(a, b)| a != b);
            bail!(
                "{name} depends on where it is built: {} and {} bytes, different from byte {}",
                first.len(),
                second.len(),
                place.unwrap_or_else(|| first.len().min(second.len()))
            );
        }
        note(&format!("{name}: {} bytes, twice the same", first.len()));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Copies the folder `from`, but for what is no source of the objects.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if NOT_COPIED.iter().any(|other| name == *other) {
            continue;
        }
        if kind.is_dir() {
            copy(&entry.path(), &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
