//! Where policy text comes from: files, folders, standard input.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::unistd::geteuid;

use super::list;

/// The largest file that is read, in bytes. Spans are 32-bit because of it.
pub const MAX_BYTES: u64 = 32 << 20;

/// The name that standard input has in diagnostics.
pub const STDIN: &str = "<stdin>";

/// One text with the name that diagnostics call it by.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    text: String,
    index: OnceLock<Index>,
    content: Content,
    open: Option<String>,
}

/// What a source holds.
#[derive(Debug)]
enum Content {
    /// YAML documents.
    Documents,
    /// Networks, one a line.
    List,
    /// Nothing: a list that can't be read, and why.
    Unreadable(String),
}

/// What positions are looked up in. Built once, and only if somebody asks.
#[derive(Debug)]
struct Index {
    /// The first byte of each line.
    line_starts: Vec<u32>,
    /// How many characters come before each block of bytes: a line may be as
    /// long as its file, as in JSON that a machine wrote.
    characters: Vec<u32>,
}

/// Bytes per entry of [`Index::characters`].
const BLOCK: usize = 1_024;

/// A range of bytes in one of the sources of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The index of the source.
    pub file: u32,
    /// The first byte.
    pub start: u32,
    /// The byte after the last one.
    pub end: u32,
}

impl Span {
    /// Where a source begins.
    pub(super) const fn start_of(file: u32) -> Self {
        Self {
            file,
            start: 0,
            end: 0,
        }
    }
}

/// A place in a text as people and editors count: both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl Source {
    /// A text under a name. A byte-order mark is dropped, so that columns
    /// count what an editor shows.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Self {
            name: name.into(),
            text,
            index: OnceLock::new(),
            content: Content::Documents,
            open: None,
        }
    }

    /// The same, read from where everybody may write: what has that mode, if something does.
    pub(super) fn open_to_others(mut self, what: Option<String>) -> Self {
        self.open = what;
        self
    }

    /// What everybody may change so that this is another text.
    pub(super) fn what_is_open(&self) -> Option<&str> {
        self.open.as_deref()
    }

    /// A list of networks, one a line, under the path that sets find it by.
    #[must_use]
    pub fn list(name: impl Into<Arc<str>>, text: impl Into<String>) -> Self {
        Self {
            content: Content::List,
            ..Self::new(name, text)
        }
    }

    /// A list that can't be read, for the reason to be told where a set asks
    /// for it.
    pub(super) fn unreadable_list(name: impl Into<Arc<str>>, why: impl Into<String>) -> Self {
        Self {
            content: Content::Unreadable(why.into()),
            ..Self::new(name, "")
        }
    }

    /// Whether it is a list, and not documents.
    pub(super) fn is_list(&self) -> bool {
        !matches!(self.content, Content::Documents)
    }

    /// Why it is without text.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.content {
            Content::Unreadable(why) => Some(why),
            Content::Documents | Content::List => None,
        }
    }

    /// The name: the path as it was given, or [`STDIN`].
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line and column of a byte. An offset past the end is the end.
    #[must_use]
    pub fn position(&self, offset: u32) -> Position {
        let line = self.line_of(offset);
        let start = self.index().line_starts[line] as usize;
        let column = self.characters_before(self.clamp(offset)) - self.characters_before(start);
        Position {
            line: saturating_u32(line + 1),
            column: saturating_u32(column + 1),
        }
    }

    /// The byte at a line and column; `None` where the text has no such place.
    #[must_use]
    pub fn offset(&self, line: u32, column: u32) -> Option<u32> {
        let starts = &self.index().line_starts;
        let start = *starts.get((line as usize).checked_sub(1)?)?;
        let rest = &self.text[start as usize..];
        let skipped = (column as usize).checked_sub(1)?;
        let (bytes, _) = rest.char_indices().nth(skipped)?;
        Some(start + saturating_u32(bytes))
    }

    /// The byte range of the line that holds `offset`, without its line end.
    pub(super) fn line_range(&self, offset: u32) -> std::ops::Range<usize> {
        let starts = &self.index().line_starts;
        let line = self.line_of(offset);
        let start = starts[line] as usize;
        let end = starts
            .get(line + 1)
            .map_or(self.text.len(), |&next| next as usize);
        let text = &self.text[start..end];
        start..start + text.trim_end_matches(['\n', '\r']).len()
    }

    fn line_of(&self, offset: u32) -> usize {
        self.index()
            .line_starts
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let rest = &self.text.as_bytes()[block * BLOCK..offset];
        self.index().characters[block] as usize + count_characters(rest)
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let ends = self.text.match_indices('\n');
            let next_starts = ends.map(|(at, _)| saturating_u32(at + 1));
            let blocks = self.text.as_bytes().chunks(BLOCK);
            let counts = blocks.scan(0, |sum, block| {
                *sum += count_characters(block);
                Some(saturating_u32(*sum))
            });
            Index {
                line_starts: std::iter::once(0).chain(next_starts).collect(),
                characters: std::iter::once(0).chain(counts).collect(),
            }
        })
    }

    fn clamp(&self, offset: u32) -> usize {
        (offset as usize).min(self.text.len())
    }
}

/// How many characters begin in these bytes of UTF-8.
fn count_characters(bytes: &[u8]) -> usize {
    let continues = |&&byte: &&u8| byte & 0xc0 == 0x80;
    bytes.len() - bytes.iter().filter(continues).count()
}

fn saturating_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Why policy files can't be read. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No path was given.
    #[error("no policy files were named; name files or folders with -f, or - for standard input")]
    NoPaths,
    /// A path that is not there.
    #[error(
        "{path}: no such file or folder; check the spelling, and the folder the command runs in"
    )]
    NotFound {
        /// The path.
        path: String,
    },
    /// A path that can't be read.
    #[error(
        "{path}: can't be read: {error}; check the permissions of the file and its folders{}",
        for_root(error)
    )]
    Unreadable {
        /// The path.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// A folder that holds nothing to load.
    #[error(
        "{path}: the folder holds no policy file (*.yaml, *.yml or *.json){}; \
         name another folder, or the files themselves",
        if *.below { "; its sub-folders do: add -R to read them too" } else { "" }
    )]
    EmptyFolder {
        /// The folder.
        path: String,
        /// Whether `-R` would find some.
        below: bool,
    },
    /// A file too large to be a policy.
    #[error(
        "{path}: larger than the {} MiB that a policy file may have; split it into several files",
        MAX_BYTES >> 20
    )]
    TooLarge {
        /// The file.
        path: String,
    },
    /// A file that is not text.
    #[error(
        "{path}: not UTF-8 text (line {line} has a byte that isn't); \
         save the file as UTF-8, or check that it is the right file"
    )]
    NotText {
        /// The file.
        path: String,
        /// The line of the first bad byte, from 1.
        line: usize,
    },
}

/// Reads policy files: a file as it is, of a folder the `*.yaml`, `*.yml` and
/// `*.json` directly in it (with `recursive` also those of its sub-folders),
/// and standard input for `-`.
///
/// Entries of a folder come in the order of their names; those that begin with
/// a dot are left out, as editors and mounted `ConfigMap`s keep their own
/// things there. A file that is named twice is read once. The lists that sets
/// name follow behind the policy files.
pub fn load(paths: &[PathBuf], recursive: bool) -> Result<Vec<Source>, LoadError> {
    if paths.is_empty() {
        return Err(LoadError::NoPaths);
    }
    let mut loader = Loader::default();
    for path in paths {
        if path.as_os_str() == "-" {
            loader.stdin()?;
        } else if metadata(path)?.is_dir() {
            let before = loader.found;
            loader.folder(path, recursive)?;
            if loader.found == before {
                return Err(LoadError::EmptyFolder {
                    path: show(path),
                    below: !recursive && policy_below(path),
                });
            }
        } else {
            loader.file(path)?;
        }
    }
    let mut sources = loader.sources;
    let lists = list::load(&sources);
    sources.extend(lists);
    Ok(sources)
}

#[derive(Default)]
struct Loader {
    sources: Vec<Source>,
    // Resolved paths, so that neither a file named twice nor a loop of
    // symbolic links is read again.
    seen: BTreeSet<PathBuf>,
    stdin_read: bool,
    // Counts files named twice as well: a folder of those is not empty.
    found: usize,
    // The folder that is being read, where everybody may write to it.
    open: Option<String>,
}

impl Loader {
    fn stdin(&mut self) -> Result<(), LoadError> {
        if !std::mem::replace(&mut self.stdin_read, true) {
            self.sources.push(read(STDIN, io::stdin().lock())?);
        }
        Ok(())
    }

    fn folder(&mut self, folder: &Path, recursive: bool) -> Result<(), LoadError> {
        if !self.first_visit(folder)? {
            return Ok(());
        }
        // Below an open folder nothing is safe.
        let around = self.open.clone();
        self.open = open_to_others(folder, &metadata(folder)?).or(self.open.take());
        for path in entries(folder)? {
            if metadata(&path)?.is_dir() {
                if recursive {
                    self.folder(&path, recursive)?;
                }
            } else if has_policy_extension(&path) {
                self.file(&path)?;
            }
        }
        self.open = around;
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), LoadError> {
        self.found += 1;
        if self.first_visit(path)? {
            let file = fs::File::open(path).map_err(|error| unreadable(path, error))?;
            let found = file.metadata().map_err(|error| unreadable(path, error))?;
            let open = open_to_others(path, &found).or_else(|| self.open.clone());
            self.sources
                .push(read(&show(path), file)?.open_to_others(open));
        }
        Ok(())
    }

    fn first_visit(&mut self, path: &Path) -> Result<bool, LoadError> {
        let resolved = path
            .canonicalize()
            .map_err(|error| unreadable(path, error))?;
        Ok(self.seen.insert(resolved))
    }
}

fn read(name: &str, input: impl Read) -> Result<Source, LoadError> {
    let mut bytes = Vec::new();
    input
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(Path::new(name), error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError::TooLarge { path: name.into() });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            Err(LoadError::NotText {
                path: name.into(),
                line: good.split(|&byte| byte == b'\n').count(),
            })
        }
    }
}

/// The entries of a folder in the order of their names, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let entry = entry.map_err(|error| unreadable(folder, error))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a sub-folder holds a policy file directly. Only a hint hangs on it,
/// so it neither looks deeper nor fails.
fn policy_below(folder: &Path) -> bool {
    let sub_folders = entries(folder).unwrap_or_default().into_iter();
    sub_folders
        .filter(|path| path.is_dir())
        .flat_map(|path| entries(&path).unwrap_or_default())
        .any(|path| has_policy_extension(&path) && path.is_file())
}

fn has_policy_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn metadata(path: &Path) -> Result<fs::Metadata, LoadError> {
    fs::metadata(path).map_err(|error| unreadable(path, error))
}

/// A file or folder and its mode, where everybody may write to it: who may change policies
/// changes what is filtered.
pub(super) fn open_to_others(path: &Path, found: &fs::Metadata) -> Option<String> {
    let mode = found.permissions().mode() & 0o7777;
    let counts = found.is_file() || found.is_dir();
    (counts && mode & 0o002 != 0).then(|| format!("{} has the mode {mode:04o}", show(path)))
}

/// What surprises root about permissions.
fn for_root(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied && geteuid().is_root() {
        " (they count for root as well: nodewall has given up the privilege to pass over them)"
    } else {
        ""
    }
}

fn unreadable(path: &Path, error: io::Error) -> LoadError {
    let path = show(path);
    match error.kind() {
        io::ErrorKind::NotFound => LoadError::NotFound { path },
        _ => LoadError::Unreadable { path, error },
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sources: &[Source], root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        sources
            .iter()
            .map(|source| source.name().replace(&root, ""))
            .collect()
    }

    #[test]
    fn a_folder_gives_its_policy_files_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "notes.txt", ".hidden.yaml"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/d.YAML"), "").unwrap();
        let flat = load(&[dir.path().into()], false).unwrap();
        assert_eq!(names(&flat, dir.path()), ["a.yaml", "b.yml", "c.json"]);
        let deep = load(&[dir.path().into()], true).unwrap();
        assert_eq!(
            names(&deep, dir.path()),
            ["a.yaml", "b.yml", "c.json", "sub/d.YAML"]
        );
    }

    #[test]
    fn a_file_named_twice_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "x").unwrap();
        let sources = load(&[file.clone(), dir.path().into(), file], true).unwrap();
        assert_eq!(sources.len(), 1);
    }

    #[test]
    fn what_everybody_may_write_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let (sub, list) = (dir.path().join("sub"), dir.path().join("list.txt"));
        fs::create_dir(&sub).unwrap();
        let set = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s, \
                   annotations: {nodewall.io/nets-from: list.txt}}\n";
        fs::write(dir.path().join("a.yaml"), set).unwrap();
        fs::write(sub.join("b.yaml"), "").unwrap();
        fs::write(&list, "").unwrap();
        for path in [&sub, dir.path()] {
            mode(path, 0o755);
        }
        for path in [&dir.path().join("a.yaml"), &sub.join("b.yaml"), &list] {
            mode(path, 0o664);
        }
        let open = || -> Vec<bool> {
            let sources = load(&[dir.path().into()], true).unwrap();
            let open = sources.iter().map(|source| source.what_is_open().is_some());
            open.collect()
        };
        // The file, the one in the sub-folder, the list.
        assert_eq!(open(), [false, false, false]);
        mode(&list, 0o666);
        assert_eq!(open(), [false, false, true]);
        mode(&sub, 0o777);
        assert_eq!(open(), [false, true, true]);
        mode(&dir.path().join("a.yaml"), 0o646);
        assert_eq!(open(), [true, true, true]);
        for path in [&dir.path().join("a.yaml"), &list] {
            mode(path, 0o644);
        }
        mode(&sub, 0o755);
        mode(dir.path(), 0o1777);
        assert_eq!(open(), [true, true, false]);
        let sources = load(&[dir.path().into()], true).unwrap();
        let said = super::super::check(&sources).diagnostics;
        let said: Vec<_> = said
            .iter()
            .map(|found| (found.code, &*found.message))
            .collect();
        assert!(
            said.iter()
                .any(|(code, text)| *code == super::super::Code::OpenToOthers
                    && text.contains("1777")),
            "{said:?}"
        );
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        assert_eq!(load(&[dir.path().into()], true).unwrap().len(), 1);
    }

    #[test]
    fn errors_name_the_path_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: PathBuf| load(&[path], false).unwrap_err().to_string();
        assert!(load(&[], false).unwrap_err().to_string().contains("-f"));
        let empty = message(dir.path().into());
        assert!(
            empty.contains("no policy file") && !empty.contains("-R"),
            "{empty}"
        );
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.yaml"), "").unwrap();
        assert!(message(dir.path().into()).contains("add -R"));
        assert!(message(dir.path().join("gone.yaml")).contains("gone.yaml: no such file"));
        fs::write(dir.path().join("bin"), b"a\nb\xff").unwrap();
        assert!(message(dir.path().join("bin")).contains("line 2"));
        let large = fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        assert!(message(dir.path().join("large")).contains("32 MiB"));
    }

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("x", "\u{feff}aé\r\n→b");
        let at = |offset| {
            let position = source.position(offset);
            (position.line, position.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(3), (1, 3));
        assert_eq!(at(5), (2, 1));
        assert_eq!(at(8), (2, 2));
        assert_eq!(at(9), (2, 3));
        assert_eq!(at(999), (2, 3));
        // Beyond a block of the index, and in the middle of a character there.
        let long = Source::new("x", format!("\n{}b", "é".repeat(1_000)));
        assert_eq!(long.position(2_001).column, 1_001);
        assert_eq!(long.position(2_002).column, 1_002);
        assert_eq!(&source.text()[source.line_range(0)], "aé");
        assert_eq!(&source.text()[source.line_range(6)], "→b");
    }
}
