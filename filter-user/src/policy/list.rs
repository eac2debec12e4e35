//! Sets from files: plain lists of networks, one a line, as public blocklists
//! come. A set names its list by the annotation [`NETS_FROM`].
//!
//! Lists are read by [`load`] together with the policy files that name them,
//! and are sources as those are, so that their errors show the line. What
//! could not be read is kept beside them and reported where it was asked for.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::diagnostic::{Code, Diagnostic, Reporter, quote};
use super::schema::{Path, Text};
use super::source::{STDIN, Source, Span, open_to_others};
use super::values;
use super::yaml::{self, Entry, Node, Value};

/// The annotation of a set that names the file with its networks.
pub const NETS_FROM: &str = "nodewall.io/nets-from";

/// The largest list that is read, in bytes: some ten million networks.
pub const MAX_LIST_BYTES: u64 = 256 << 20;

/// The kinds that can have a list.
const SETS: [&str; 2] = ["GlobalNetworkSet", "NetworkSet"];

/// Reads the lists that the sets in these sources name, each once. One that
/// can't be read is a source that says why.
pub(super) fn load(policies: &[Source]) -> Vec<Source> {
    let mut lists: Vec<Source> = Vec::new();
    for source in policies {
        // Most files have none, and are not parsed a second time for it.
        if !source.text().contains("nets-from") {
            continue;
        }
        // Whatever is wrong with the document is reported when it is checked.
        let mut silent = Reporter::new(std::slice::from_ref(source));
        for root in yaml::parse(0, source, &mut silent) {
            annotations(&root, &mut |_, entry| {
                if let Some(path) = path_in(entry) {
                    let name = name(source.name(), path);
                    if !lists.iter().any(|list| **list.name() == *name) {
                        lists.push(read(&name));
                    }
                }
            });
        }
    }
    lists
}

/// What a list is called and opened by: its path, seen from the folder of the
/// policy file, or for standard input from the working folder.
fn name(policy: &str, path: &str) -> String {
    let folder = match policy {
        STDIN => None,
        file => FilePath::new(file).parent(),
    };
    let path = folder.unwrap_or(FilePath::new("")).join(path);
    path.to_string_lossy().into_owned()
}

fn path_in<'n>(entry: &'n Entry<'_>) -> Option<&'n str> {
    match &entry.value.value {
        Value::Scalar(scalar) if !scalar.text.is_empty() => Some(&scalar.text),
        _ => None,
    }
}

/// Shows `found` every annotation of this name below a node, with the kind of
/// the object that has it.
fn annotations<'n>(node: &'n Node<'_>, found: &mut impl FnMut(Option<&'n str>, &'n Entry<'n>)) {
    match &node.value {
        Value::Sequence(items) => items.iter().for_each(|item| annotations(item, found)),
        Value::Mapping(entries) => {
            let kind = field(node, "kind").and_then(|entry| match &entry.value.value {
                Value::Scalar(scalar) => Some(&*scalar.text),
                _ => None,
            });
            let annotation = field(node, "metadata")
                .and_then(|entry| field(&entry.value, "annotations"))
                .and_then(|entry| field(&entry.value, NETS_FROM));
            if let Some(entry) = annotation {
                found(kind, entry);
            }
            for entry in entries {
                annotations(&entry.value, found);
            }
        }
        Value::Scalar(_) | Value::Invalid => {}
    }
}

fn field<'n, 't>(node: &'n Node<'t>, name: &str) -> Option<&'n Entry<'t>> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|entry| entry.key == name),
        _ => None,
    }
}

/// Refuses the annotation where it would be without effect.
pub(super) fn refuse_misplaced(root: &Node<'_>, reporter: &mut Reporter<'_>) {
    annotations(root, &mut |kind, entry| {
        if kind.is_some_and(|kind| SETS.contains(&kind)) {
            return;
        }
        let message = format!("the annotation `{NETS_FROM}` has no effect here");
        reporter.report(
            entry.key_span,
            Diagnostic::error(Code::UnknownField, message)
                .field(
                    Path::ROOT
                        .field("metadata")
                        .field("annotations")
                        .field(NETS_FROM),
                )
                .label("only sets draw their networks from a file")
                .help(
                    "give the list to a GlobalNetworkSet with a label, and let rules select that \
                     label",
                ),
        );
    });
}

fn read(path: &str) -> Source {
    let read = |file: fs::File| {
        let found = file.metadata()?;
        let open = open_to_others(FilePath::new(path), &found);
        // A pipe says 0, and is read to its end all the same.
        let text = read_bytes(file, found.len(), MAX_LIST_BYTES)?;
        Ok(text.map(|text| Source::list(path, text).open_to_others(open)))
    };
    match fs::File::open(path).and_then(read) {
        Ok(Ok(list)) => list,
        Ok(Err(why)) => Source::unreadable_list(path, why),
        Err(error) => Source::unreadable_list(path, open_failure(&error)),
    }
}

fn open_failure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::IsADirectory => "it is a folder".into(),
        io::ErrorKind::PermissionDenied => {
            "it may not be read; check the permissions of the file and its folders".into()
        }
        _ => error.to_string(),
    }
}

/// The text of a list of some `expected` bytes, or why it is none.
pub(crate) fn read_bytes(
    input: impl Read,
    expected: u64,
    most: u64,
) -> io::Result<Result<String, String>> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected.min(most)).unwrap_or(0) + 1);
    input.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Ok(Err(format!(
            "it is larger than the {} MiB that a list may have; split it over several sets",
            most >> 20
        )));
    }
    Ok(match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("it is UTF-16; save it as UTF-8".into()),
        [0x1f, 0x8b, ..] => Err("it is compressed with gzip; unpack it first".into()),
        // Comments in an old encoding hurt nobody, and in a value the
        // replacement characters are an error with a place.
        _ => Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())),
    })
}

/// The lists of a check. Each is validated once, when the first set asks.
pub(super) struct Lists<'s> {
    sources: HashMap<&'s str, (u32, &'s Source)>,
    /// `None`: it had errors, which are reported.
    read: HashMap<u32, Option<Arc<Vec<IpNet>>>>,
}

impl<'s> Lists<'s> {
    pub(super) fn new(sources: &'s [Source]) -> Self {
        let lists = (0..).zip(sources).filter(|(_, source)| source.is_list());
        Self {
            sources: lists
                .map(|(file, source)| (&**source.name(), (file, source)))
                .collect(),
            read: HashMap::new(),
        }
    }

    /// The networks of the list that the annotation's value names. `None` if
    /// there was an error, which is reported.
    pub(super) fn nets(
        &mut self,
        from: &Text<'_>,
        path: &Path<'_>,
        reporter: &mut Reporter<'_>,
    ) -> Option<Arc<Vec<IpNet>>> {
        let written = &*from.value.text;
        let mut refuse = |message: String, label: &str, help: &str| {
            reporter.report(
                from.span,
                Diagnostic::error(Code::UnreadableList, message)
                    .field(path)
                    .label(label)
                    .help(help),
            );
        };
        if written.is_empty() {
            let help = "write the path of a file, relative to the folder of this one";
            refuse(
                format!("`{NETS_FROM}` names no file"),
                "an empty path",
                help,
            );
            return None;
        }
        if written.contains("://") {
            refuse(
                format!("the list {} is not a file", quote(written)),
                "nothing is fetched at run time",
                "download the list to a file, and name that file",
            );
            return None;
        }
        let name = name(reporter.source(from.span).name(), written);
        let (why, list) = match self.sources.get(&*name) {
            None => ("it was not loaded", None),
            Some(&(file, source)) => match source.failure() {
                Some(why) => (why, None),
                None => ("", Some((file, source))),
            },
        };
        let Some((file, source)) = list else {
            reporter.report(
                from.span,
                Diagnostic::error(
                    Code::UnreadableList,
                    format!("the list {} can't be read: {why}", quote(written)),
                )
                .field(path)
                .label(format!("is the file {}", quote(&name)))
                .help("paths are relative to the folder of the file that names them"),
            );
            return None;
        };
        self.read
            .entry(file)
            .or_insert_with(|| parse(file, source, from.span, reporter).map(Arc::new))
            .clone()
    }
}

/// Bytes from which on a list is read by two threads.
const HALVED: usize = 1 << 20;

/// Reads a list: a network or address a line, with comments.
fn parse(
    file: u32,
    source: &Source,
    asked: Span,
    reporter: &mut Reporter<'_>,
) -> Option<Vec<IpNet>> {
    let text = source.text();
    let (nets, refused) = match halves(text) {
        Some((first, second)) => std::thread::scope(|scope| {
            let at = first.len();
            let second = scope.spawn(move || lines(second, at));
            let (mut nets, mut refused) = lines(first, 0);
            let (more, also) = second
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            nets.extend(more);
            refused.extend(also);
            (nets, refused)
        }),
        None => lines(text, 0),
    };
    for &(start, end) in &refused {
        refuse(&text[start..end], file, start, reporter);
    }
    if !refused.is_empty() {
        return None;
    }
    if nets.is_empty() {
        reporter.report(
            asked,
            Diagnostic::warning(
                Code::EmptyFile,
                format!("the list {} holds no network", quote(source.name())),
            )
            .label("the set draws nothing from it")
            .help("check that it is the right file, and that it was downloaded completely"),
        );
    }
    Some(nets)
}

/// A long text in two, between lines.
fn halves(text: &str) -> Option<(&str, &str)> {
    let middle = text.len() / 2;
    if text.len() < HALVED {
        return None;
    }
    let end = text.as_bytes()[middle..]
        .iter()
        .position(|&byte| byte == b'\n')?;
    text.split_at_checked(middle + end + 1)
}

/// The networks of these lines, which stand behind `at` bytes; and from where to
/// where that is which is none.
fn lines(text: &str, at: usize) -> (Vec<IpNet>, Vec<(usize, usize)>) {
    let mut nets = Vec::with_capacity(text.len() / 16);
    let mut refused = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let rest = &text.as_bytes()[start..];
        if let Some((net, length)) = plain(rest).or_else(|| plain_v6(rest)) {
            nets.push(net);
            start += length;
            continue;
        }
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = &text[start..start + length.unwrap_or(rest.len())];
        let comment = line.bytes().position(|byte| matches!(byte, b'#' | b';'));
        let value = &line[..comment.unwrap_or(line.len())];
        let trimmed = value.trim_ascii();
        if !trimmed.is_empty() {
            if let Some(net) = net(trimmed) {
                nets.push(net);
            } else {
                let first = at + start + (value.len() - value.trim_ascii_start().len());
                refused.push((first, first + trimmed.len()));
            }
        }
        start += line.len() + 1;
    }
    (nets, refused)
}

/// A line that is an IPv4 network or address and nothing else, and its length
/// with its end. Most lines of most lists are so. `None` for all others: [`net`]
/// knows what to make of them.
fn plain(text: &[u8]) -> Option<(IpNet, usize)> {
    let mut octets = [0; 4];
    let mut at = 0;
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            (*text.get(at)? == b'.').then_some(())?;
            at += 1;
        }
        (*octet, at) = decimal(text, at)?;
    }
    let mut prefix = 32;
    if text.get(at) == Some(&b'/') {
        (prefix, at) = decimal(text, at + 1)?;
    }
    let at = end_of_line(text, at)?;
    let net = Ipv4Net::new(octets.into(), prefix).ok()?;
    (net.network() == net.addr()).then_some((net.into(), at))
}

/// The same for IPv6, without an IPv4 address in it.
fn plain_v6(text: &[u8]) -> Option<(IpNet, usize)> {
    let mut groups = [0; 8];
    let mut count = 0;
    // Before which group the zeros are that `::` leaves out.
    let mut gap = None;
    let mut at = 0;
    if text.starts_with(b"::") {
        gap = Some(0);
        at = 2;
    }
    while count < groups.len() {
        let start = at;
        while at < start + 4
            && let Some(digit) = text.get(at).and_then(|&byte| char::from(byte).to_digit(16))
        {
            groups[count] = groups[count] << 4 | u16::try_from(digit).ok()?;
            at += 1;
        }
        if at == start {
            // Nothing but a `::` may stand at the end.
            (gap == Some(count)).then_some(())?;
            break;
        }
        count += 1;
        match text.get(at..)? {
            [b':', b':', ..] if gap.is_none() => {
                gap = Some(count);
                at += 2;
            }
            [b':', ..] if count < groups.len() => at += 1,
            _ => break,
        }
    }
    match gap {
        None => (count == groups.len()).then_some(())?,
        Some(gap) => {
            (count < groups.len()).then_some(())?;
            let missing = groups.len() - count;
            groups[gap..].rotate_right(missing);
        }
    }
    let mut prefix = 128;
    if text.get(at) == Some(&b'/') {
        (prefix, at) = decimal(text, at + 1)?;
    }
    let at = end_of_line(text, at)?;
    let net = Ipv6Net::new(groups.into(), prefix).ok()?;
    (net.network() == net.addr()).then_some((net.into(), at))
}

/// Where the next line begins, if this one ends here.
fn end_of_line(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at..)? {
        [] => Some(at),
        [b'\n', ..] => Some(at + 1),
        [b'\r', b'\n', ..] => Some(at + 2),
        _ => None,
    }
}

/// A number of up to 255, without leading zeros, and where it ends.
fn decimal(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let digit = |at: usize| {
        let digit = text.get(at)?.wrapping_sub(b'0');
        (digit < 10).then_some(digit)
    };
    let first = digit(at)?;
    let Some(second) = digit(at + 1).filter(|_| first != 0) else {
        return Some((first, at + 1));
    };
    let two = first * 10 + second;
    match digit(at + 2) {
        None => Some((two, at + 2)),
        Some(third) => Some((two.checked_mul(10)?.checked_add(third)?, at + 3)),
    }
}

/// What [`values::net`] accepts. There are a million of them, and words for what
/// is wrong are looked for only where somebody will read them.
fn net(text: &str) -> Option<IpNet> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    let prefix = match *prefix.as_bytes() {
        [one @ b'0'..=b'9'] => one - b'0',
        [ten @ b'1'..=b'9', one @ b'0'..=b'9'] => (ten - b'0') * 10 + (one - b'0'),
        [b'1', ten @ b'0'..=b'2', one @ b'0'..=b'9'] => 100 + (ten - b'0') * 10 + (one - b'0'),
        _ => return None,
    };
    let net = IpNet::new(address.parse().ok()?, prefix).ok()?;
    (net.network() == net.addr()).then_some(net)
}

fn refuse(value: &str, file: u32, at: usize, reporter: &mut Reporter<'_>) {
    let offset = |within: usize| u32::try_from(at + within).unwrap_or(u32::MAX);
    let span = |part: std::ops::Range<usize>| Span {
        file,
        start: offset(part.start),
        end: offset(part.end),
    };
    if reporter.is_full() {
        let counted = Diagnostic::error(Code::InvalidNet, String::new());
        reporter.report(span(0..value.len()), counted);
        return;
    }
    let Err(refusal) = values::net(value) else {
        unreachable!("both read the same");
    };
    let mut part = 0..value.len();
    let mut label = refusal.label;
    let mut help = refusal.help;
    // The first word may be good, and what follows it no comment.
    let first = value.split([' ', '\t', ',']).next().unwrap_or_default();
    if first.len() < value.len() && values::net(first).is_ok() {
        let rest = value[first.len()..].trim_start_matches([' ', '\t']);
        part.start = value.len() - rest.len();
        label = "more than one network".into();
        help = "a list has one network or address a line; begin comments with `#` or `;`".into();
    } else if let Some((low, high)) = value.split_once('-')
        && values::net(low.trim()).is_ok()
        && values::net(high.trim()).is_ok()
    {
        label = "a range of addresses".into();
        help = "write the networks that the range consists of, one a line".into();
    }
    reporter.report(
        span(part),
        Diagnostic::error(refusal.code, refusal.message)
            .label(label)
            .help(help),
    );
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::{Duration, Instant};

    use super::super::check;
    use super::super::diagnostic::MAX_KEPT;
    use super::*;

    /// A set that names this list, with another set of the same list before.
    fn policy(path: &str) -> String {
        let set = |name: &str| {
            format!(
                "- apiVersion: projectcalico.org/v3\n  kind: GlobalNetworkSet\n  metadata:\n    \
                 name: {name}\n    annotations: {{nodewall.io/nets-from: '{path}'}}\n"
            )
        };
        set("a") + &set("b")
    }

    fn nets(list: &str) -> Vec<String> {
        let sources = [
            Source::new("p.yaml", policy("l.txt")),
            Source::list("l.txt", list),
        ];
        let checked = check(&sources);
        let model = checked.model.expect("valid");
        let [a, b] = model.sets() else {
            panic!("two sets")
        };
        assert_eq!(a.nets, b.nets);
        a.nets.iter().map(ToString::to_string).collect()
    }

    /// What is said of a list: line, column, what is underlined, help.
    fn errors(list: &str) -> Vec<String> {
        let sources = [
            Source::new("p.yaml", policy("l.txt")),
            Source::list("l.txt", list),
        ];
        let checked = check(&sources);
        assert_eq!(checked.model, None);
        let errors = checked.diagnostics.into_iter().map(|diagnostic| {
            let place = diagnostic.place.expect("a place");
            assert_eq!(&*place.file, "l.txt");
            let (start, end) = (place.span.start as usize, place.span.end as usize);
            let help = diagnostic.help.expect("help");
            let text = &sources[1].text()[start..end];
            format!(
                "{}:{} {} {text:?} {help}",
                place.start.line, place.start.column, diagnostic.code
            )
        });
        errors.collect()
    }

    #[test]
    fn lists_as_they_come() {
        assert_eq!(
            nets("192.0.2.0/24\n192.0.2.7\n2001:db8::/32\n2001:DB8::1"),
            [
                "192.0.2.0/24",
                "192.0.2.7/32",
                "2001:db8::/32",
                "2001:db8::1/128"
            ]
        );
        // A byte-order mark, CRLF, comments of both kinds, space, duplicates.
        assert_eq!(
            nets(
                "\u{feff}192.0.2.7\r\n# about\r\n; about\r\n\r\n \t192.0.2.0/24 ; SBL1 # x\r\n\
                 192.0.2.7#here\r\n   # end"
            ),
            ["192.0.2.7/32", "192.0.2.0/24", "192.0.2.7/32"]
        );
    }

    #[test]
    fn mistakes_have_their_place() {
        let found = errors(
            "# a list\n192.0.2.7/24\n\n  2001:db8::1/32 # x\r\n192.0.2.0/33\nexample.org ; no\n\
             192.0.2.0 192.0.2.1\n192.0.2.0, deny\n192.0.2.0-192.0.2.255\n010.0.0.0/8",
        );
        let one_a_line = "a list has one network or address a line; begin comments with `#` or `;`";
        let an_address = "write an address (`192.0.2.7`, `2001:db8::1`) or a network \
                          (`192.0.2.0/24`, `2001:db8::/32`)";
        assert_eq!(
            found,
            [
                "2:1 host-bits \"192.0.2.7/24\" write `192.0.2.0/24` for the whole network, or \
                 `192.0.2.7` for the one address",
                "4:3 host-bits \"2001:db8::1/32\" write `2001:db8::/32` for the whole network, or \
                 `2001:db8::1` for the one address",
                "5:1 invalid-net \"192.0.2.0/33\" an IPv4 prefix has 0 to 32 bits",
                &format!("6:1 invalid-net \"example.org\" {an_address}"),
                &format!("7:11 invalid-net \"192.0.2.1\" {one_a_line}"),
                &format!("8:10 invalid-net \", deny\" {one_a_line}"),
                "9:1 invalid-net \"192.0.2.0-192.0.2.255\" write the networks that the range \
                 consists of, one a line",
                &format!("10:1 invalid-net \"010.0.0.0/8\" {an_address}"),
            ]
        );
    }

    /// The quick reader and the one with words agree.
    #[test]
    fn networks_are_what_they_are_everywhere() {
        let addresses = [
            "0.0.0.0",
            "10.0.0.0",
            "192.0.2.7",
            "255.255.255.255",
            "::",
            "2001:db8::",
            "::1",
            "010.0.0.0",
            "1.2.3",
            "::1%1",
            "",
            " ::",
            "fe80::/10",
            "::ffff:192.0.2.0",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3::5:6:7:8",
            "1:2:3::4:5:6:7:8",
            "1:2:3:4:5:6:7:8::",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:",
            "1::2::3",
            ":::",
            "1:::2",
            ":1::",
            "1:",
            "::0",
            "::00a0:0B",
            "::12345",
            "::g",
            "a",
        ];
        let mut prefixes: Vec<String> = (0..300).map(|prefix| format!("/{prefix}")).collect();
        let odd = [
            "",
            "/",
            "/-1",
            "/+8",
            "/08",
            "/8 ",
            "/00",
            "/8/8",
            "/a",
            "/1a",
            "/256.0.0.0",
        ];
        prefixes.extend(odd.map(String::from));
        for address in addresses {
            for prefix in &prefixes {
                let text = format!("{address}{prefix}");
                assert_eq!(net(&text), values::net(&text).ok(), "{text:?}");
                // The quickest may leave it to the others, and is never wrong.
                for end in ["", "\n", "\r\n", "\n1", "\r", " ", "#", "\0"] {
                    let line = format!("{text}{end}");
                    let body = text.len() + end.trim_end_matches('1').len();
                    let found = plain(line.as_bytes()).or_else(|| plain_v6(line.as_bytes()));
                    if let Some((found, length)) = found {
                        assert_eq!(Some(found), net(&text), "{line:?}");
                        assert_eq!(length, body, "{line:?}");
                    }
                    let mixed = text.contains('.') && text.contains(':');
                    let simple = net(&text).is_some() && !mixed;
                    let ends = matches!(end, "" | "\n" | "\r\n" | "\n1");
                    assert_eq!(found.is_some(), simple && ends, "{line:?}");
                }
            }
        }
    }

    /// Two threads read a long list, and what they find is in order.
    #[test]
    fn a_long_list_is_read_as_a_short_one() {
        let mut list = String::new();
        let mut expected = Vec::new();
        for i in 0..150_000_u32 {
            let [_, a, b, c] = i.to_be_bytes();
            writeln!(list, "10.{a}.{b}.{c}").expect("memory");
            expected.push(format!("10.{a}.{b}.{c}/32"));
        }
        assert!(list.len() > HALVED);
        assert_eq!(nets(&list), expected);

        let (first, second) = halves(&list).expect("long");
        assert_eq!(format!("{first}{second}"), list);
        assert!(first.ends_with('\n'));

        list.push_str("10.0.0.256\n192.0.2.0/24");
        let broken = list.replacen("10.0.0.7\n", "10.0.0.07\n", 1);
        let places: Vec<String> = errors(&broken)
            .into_iter()
            .map(|error| error.split(" write").next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(
            places,
            [
                "8:1 invalid-net \"10.0.0.07\"",
                "150001:1 invalid-net \"10.0.0.256\""
            ]
        );
        // One line without an end has no middle.
        assert_eq!(halves(&"1".repeat(HALVED)), None);
    }

    #[test]
    fn a_million_lines() {
        let mut list = String::from("# a million networks\n");
        for i in 0..1_000_000_u32 {
            let [_, a, b, c] = i.to_be_bytes();
            match i % 3 {
                0 => writeln!(list, "10.{a}.{b}.{c}"),
                1 => writeln!(list, "10.{a}.{b}.0/24 ; SBL{i}"),
                _ => writeln!(list, "2001:db8:{a:x}:{b:x}:{c:x}::/80"),
            }
            .expect("memory");
        }
        let broken = list.replace("/24 ", "/14 ").replace("/80", "/70");
        for (text, what) in [(list, "good"), (broken, "broken")] {
            let sources = [
                Source::new("p.yaml", policy("l.txt")),
                Source::list("l.txt", text),
            ];
            let start = Instant::now();
            let checked = check(&sources);
            let took = start.elapsed();
            println!("a {what} list of a million lines: {took:?}");
            assert!(took < Duration::from_secs(5), "{took:?}");
            if what == "good" {
                assert_eq!(
                    checked.model.expect("valid").sets()[0].nets.len(),
                    1_000_000
                );
            } else {
                assert_eq!(checked.diagnostics.len(), MAX_KEPT + 1);
            }
        }
    }

    #[test]
    fn lists_are_found_beside_the_file_that_names_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).expect("a folder");
        let write = |path: &FilePath, text: &[u8]| fs::write(path, text).expect("a file");
        write(&dir.path().join("l.txt"), b"192.0.2.1");
        write(&sub.join("p.yaml"), policy("../l.txt").as_bytes());
        let absolute = dir.path().join("l.txt").display().to_string();
        write(&sub.join("q.yaml"), policy(&absolute).as_bytes());
        write(&sub.join("r.yaml"), b"# no nets-from here\n");
        let paths = ["p.yaml", "q.yaml", "r.yaml"].map(|name| sub.join(name));
        let load = |paths: &[std::path::PathBuf]| {
            super::super::load(paths, false).expect("files that can be read")
        };
        // The list by two names is two sources; by one name it is one.
        assert_eq!(load(&paths).len(), 5);
        let sources = load(&paths[..1]);
        assert_eq!(sources.len(), 2);
        let model = check(&sources).model.expect("valid");
        assert_eq!(
            *model.sets()[1].nets,
            ["192.0.2.1/32".parse().expect("one")]
        );

        // What can't be read is said where it was asked for.
        let mut latin = b"192.0.2.1 # caf\xe9\n".to_vec();
        write(&dir.path().join("l.txt"), &latin);
        assert!(check(&load(&paths[..1])).model.is_some());
        latin.insert(0, b'\xe9');
        let large = dir.path().join("large");
        fs::File::create(&large)
            .and_then(|file| file.set_len(MAX_LIST_BYTES + 1))
            .expect("a file with a hole");
        let wrong = |text: &[u8], path: &str| {
            write(&dir.path().join("l.txt"), text);
            write(&sub.join("p.yaml"), policy(path).as_bytes());
            let checked = check(&load(&paths[..1]));
            assert_eq!(checked.model, None);
            let first = &checked.diagnostics[0];
            format!(
                "{} {}",
                first.place.as_ref().expect("one").start.line,
                first.message
            )
        };
        for (text, path, expected) in [
            (
                &latin[..],
                "../l.txt",
                "1 `\u{fffd}192.0.2.1` is not an IP address or CIDR",
            ),
            (
                b"",
                "gone",
                "5 the list `gone` can't be read: there is no such file",
            ),
            (b"", "..", "5 the list `..` can't be read: it is a folder"),
            (
                b"",
                "../large",
                "5 the list `../large` can't be read: it is larger than the 256 MiB that a list \
                 may have; split it over several sets",
            ),
            (
                b"\xff\xfe1\0",
                "../l.txt",
                "5 the list `../l.txt` can't be read: it is UTF-16; save it as UTF-8",
            ),
            (
                b"\x1f\x8b",
                "../l.txt",
                "5 the list `../l.txt` can't be read: it is compressed with gzip; unpack it first",
            ),
            (b"", "", "5 `nodewall.io/nets-from` names no file"),
            (
                b"",
                "https://example.org/l.txt",
                "5 the list `https://example.org/l.txt` is not a file",
            ),
        ] {
            assert_eq!(wrong(text, path), expected, "{path}");
        }
        // An empty list is no error, and probably not intended.
        write(&dir.path().join("l.txt"), b"# nothing\n");
        write(&sub.join("p.yaml"), policy("../l.txt").as_bytes());
        let checked = check(&load(&paths[..1]));
        assert!(checked.model.is_some());
        assert!(checked.diagnostics[0].message.contains("holds no network"));
    }

    #[test]
    fn paths_begin_where_the_policy_is() {
        for (policy, path, expected) in [
            ("p.yaml", "l.txt", "l.txt"),
            ("a/p.yaml", "l.txt", "a/l.txt"),
            ("/a/p.yaml", "../l.txt", "/a/../l.txt"),
            ("a/p.yaml", "/l.txt", "/l.txt"),
            (STDIN, "a/l.txt", "a/l.txt"),
        ] {
            assert_eq!(name(policy, path), expected);
        }
    }

    #[test]
    fn only_sets_have_lists() {
        let text = "apiVersion: v1\nkind: policy\nmetadata:\n  name: p\n  annotations:\n    \
                    nodewall.io/nets-from: l.txt\nspec: {}\n";
        let checked = check(&[Source::new("p.yaml", text)]);
        let [error] = checked.diagnostics.as_slice() else {
            panic!("one error")
        };
        assert_eq!(
            error.message,
            "the annotation `nodewall.io/nets-from` has no effect here"
        );
        assert_eq!(error.place.as_ref().expect("one").start.line, 6);
    }
}
