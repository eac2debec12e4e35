//! Reported packets as a capture in pcapng format, for tcpdump, tshark and Wireshark.
//!
//! The headers of each packet are in it, and what nodewall knows of it stands beside
//! them: the verdict, which way it went, how many reports were lost before it, and in
//! a comment which rule did what and how many packets it stands for.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use filter_common::event::HEADER;
use filter_common::verdict::Verdict;
use nix::sys::utsname::uname;
use pcap_file::pcapng::blocks::ENHANCED_PACKET_BLOCK;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter, RawBlock};
use pcap_file::{DataLink, Endianness, PcapError};

use super::{Event, Kind};
use crate::bytes::grouped;
use crate::ruleset::{Direction, Stage};

/// Writes a capture. What is written goes out with [`Self::flush`], in whole blocks.
pub struct Writer<W> {
    out: W,
    blocks: PcapNgWriter<Vec<u8>>,
    /// Where the blocks that are not out yet end, and whether they are packets.
    ends: Vec<(usize, bool)>,
    /// Packets that are out.
    packets: u64,
    /// What has an interface description so far, by its number.
    described: Vec<(Arc<str>, Direction)>,
}

/// Why a capture can't go on.
#[derive(Debug)]
pub struct Broken {
    /// What the system says.
    pub error: io::Error,
    /// How many bytes went out behind the last whole block: where the output is a
    /// file, its end is to be cut off by these.
    pub torn: u64,
}

/// `if_tsresol`: nanoseconds.
const RESOLUTION: u8 = 9;

/// Of a packet's options (draft-ietf-opsawg-pcapng).
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
    pub(super) const FLAGS: u16 = 2;
    pub(super) const DROP_COUNT: u16 = 4;
    pub(super) const VERDICT: u16 = 7;
}

/// Of the flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Who gave a verdict, and which: the values are those that the program returns.
const LINUX_TC: u8 = 1;
const TC_ACT_UNSPEC: i64 = -1;
const TC_ACT_SHOT: i64 = 2;
const LINUX_XDP: u8 = 2;
const XDP_DROP: i64 = 1;
const XDP_PASS: i64 = 2;

impl<W: io::Write> Writer<W> {
    /// Begins a capture, of what `node` reports. Nothing goes out yet.
    pub fn new(out: W, node: Option<&str>) -> io::Result<Self> {
        let application = format!("nodewall {}", env!("CARGO_PKG_VERSION"));
        let mut options = vec![SectionHeaderOption::UserApplication(application.into())];
        if let Ok(machine) = uname() {
            let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            let system = format!("{} {}", text(machine.sysname()), text(machine.release()));
            options.push(SectionHeaderOption::OS(system.into()));
            options.push(SectionHeaderOption::Hardware(
                text(machine.machine()).into(),
            ));
        }
        if let Some(node) = node {
            let comment = format!("packets that nodewall on {node} reported");
            options.push(SectionHeaderOption::Comment(comment.into()));
        }
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options,
            ..SectionHeaderBlock::default()
        };
        let blocks = PcapNgWriter::with_section_header(Vec::new(), section).map_err(in_io)?;
        let ends = vec![(blocks.get_ref().len(), false)];
        Ok(Self {
            out,
            blocks,
            ends,
            packets: 0,
            described: Vec::new(),
        })
    }

    /// Adds a packet.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        let interface = self.interface(event)?;
        let body = packet(interface, event);
        // Type, both lengths.
        let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?;
        let block = RawBlock {
            type_: ENHANCED_PACKET_BLOCK,
            initial_len: length,
            body: Cow::Owned(body),
            trailer_len: length,
        };
        self.blocks.write_raw_block(&block).map_err(in_io)?;
        self.ends.push((self.blocks.get_ref().len(), true));
        Ok(())
    }

    /// Writes out what was added.
    pub fn flush(&mut self) -> Result<(), Broken> {
        let bytes = std::mem::take(self.blocks.get_mut());
        let ends = std::mem::take(&mut self.ends);
        let mut written = 0;
        let result = write_all(&mut self.out, &bytes, &mut written);
        let whole = ends.iter().take_while(|(end, _)| *end <= written);
        self.packets += whole.clone().filter(|(_, is_packet)| *is_packet).count() as u64;
        let whole = whole.last().map_or(0, |(end, _)| *end);
        result
            .and_then(|()| self.out.flush())
            .map_err(|error| Broken {
                error,
                torn: (written - whole) as u64,
            })
    }

    /// How many packets are out, and whole.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// What it writes to.
    pub const fn get_ref(&self) -> &W {
        &self.out
    }

    /// The number of the packet's interface, which is described where it comes for the
    /// first time. Directions are interfaces of their own, since drop counts are.
    fn interface(&mut self, event: &Event) -> io::Result<u32> {
        let is_it = |(name, way): &(Arc<str>, Direction)| {
            (name, *way) == (&event.interface, event.direction)
        };
        let number = if let Some(number) = self.described.iter().position(is_it) {
            number
        } else {
            let name = (Arc::clone(&event.interface), event.direction);
            self.describe(&name)?;
            self.described.push(name);
            self.described.len() - 1
        };
        u32::try_from(number).map_err(io::Error::other)
    }

    fn describe(&mut self, (name, direction): &(Arc<str>, Direction)) -> io::Result<()> {
        let hook = match direction {
            Direction::Ingress => "XDP",
            Direction::Egress => "TC",
        };
        let description = format!("{}, nodewall {hook}", direction.name());
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: u32::try_from(HEADER).map_err(io::Error::other)?,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfDescription(description.into()),
                InterfaceDescriptionOption::IfTsResol(RESOLUTION),
            ],
        };
        self.blocks
            .write_block(&block.into_block())
            .map_err(in_io)?;
        self.ends.push((self.blocks.get_ref().len(), false));
        Ok(())
    }
}

/// As [`io::Write::write_all`], but says how far it came.
fn write_all(out: &mut impl io::Write, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        match out.write(&bytes[*written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => *written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn in_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

/// An enhanced packet block, without its type and lengths. Not the crate's, which can't
/// write the verdict.
fn packet(interface: u32, event: &Event) -> Vec<u8> {
    let since = event.time.duration_since(SystemTime::UNIX_EPOCH);
    let time = u64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(u64::MAX);
    let bytes = event.header.as_deref().unwrap_or_default();
    let captured = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut body = Vec::new();
    for word in [
        interface,
        (time >> 32) as u32,
        (time & 0xffff_ffff) as u32,
        captured,
        // A reader takes a packet that is longer than it was for a damaged one.
        event.length.max(captured),
    ] {
        body.extend(word.to_le_bytes());
    }
    body.extend(bytes);
    pad(&mut body);
    add(&mut body, option::COMMENT, comment(event).as_bytes());
    let flags = match event.direction {
        Direction::Ingress => INBOUND,
        Direction::Egress => OUTBOUND,
    };
    add(&mut body, option::FLAGS, &flags.to_le_bytes());
    if event.lost > 0 {
        add(&mut body, option::DROP_COUNT, &event.lost.to_le_bytes());
    }
    let (framework, verdict) = match (event.direction, event.verdict) {
        (Direction::Ingress, Verdict::Drop) => (LINUX_XDP, XDP_DROP),
        (Direction::Ingress, Verdict::Pass) => (LINUX_XDP, XDP_PASS),
        (Direction::Egress, Verdict::Drop) => (LINUX_TC, TC_ACT_SHOT),
        (Direction::Egress, Verdict::Pass) => (LINUX_TC, TC_ACT_UNSPEC),
    };
    let mut value = vec![framework];
    value.extend(verdict.to_le_bytes());
    add(&mut body, option::VERDICT, &value);
    add(&mut body, option::END, &[]);
    body
}

/// Adds an option. Its value is padded, and the padding is not counted.
fn add(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A longer comment than fits there is not: names have an end.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(&value[..length.into()]);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// `drop policy_deny deny-node-ports rule 0 (preDNAT), 1 in 1,234`; of a packet that a
/// rule reports, that one too: `pass policy_allow web rule 4 (normal), reported by
/// log-all rule 0 (normal)`.
fn comment(event: &Event) -> String {
    let mut text = format!("{} {}", event.verdict.name(), event.reason.name());
    if let Some(by) = &event.decided_by {
        let _ = write!(text, " {}", rule(&by.policy, by.rule, Some(by.stage)));
    }
    match (event.kind(), &event.policy) {
        (Kind::Log, Some(policy)) => {
            let _ = write!(
                text,
                ", reported by {}",
                rule(policy, event.rule, event.stage)
            );
        }
        (Kind::Log, None) => {}
        (Kind::Drop, _) => {
            let packets = event.sampled_1_in.unwrap_or(1);
            let _ = write!(text, ", 1 in {}", grouped(packets));
        }
    }
    text
}

fn rule(policy: &str, index: Option<u32>, stage: Option<Stage>) -> String {
    let index = index.map_or("default".to_owned(), |index| format!("rule {index}"));
    let stage = stage.map_or(String::new(), |stage| format!(" ({})", stage.name()));
    format!("{policy} {index}{stage}")
}

#[cfg(test)]
mod tests {
    use filter_common::verdict::Reason;
    use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::packet_text::PacketText;
    use crate::telemetry::Headers;
    use crate::telemetry::event::Identity;

    fn event(direction: Direction) -> Event {
        let packet: PacketText = "tcp 203.0.113.7:51515 > 192.0.2.10:30080"
            .parse()
            .expect("a packet");
        let frame = packet.frame();
        let headers = Headers::read(&frame);
        Event {
            time: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789),
            node: Some("worker-1".into()),
            interface: "eth0".into(),
            direction,
            verdict: Verdict::Drop,
            reason: Reason::PolicyDeny,
            action: None,
            stage: Some(Stage::PreDnat),
            tier: None,
            policy: Some("deny-node-ports".into()),
            rule: Some(0),
            decided_by: Some(Identity {
                stage: Stage::PreDnat,
                tier: None,
                policy: "deny-node-ports".into(),
                rule: Some(0),
            }),
            ip: headers.ip,
            l4: headers.l4,
            icmp: headers.icmp,
            length: 1500,
            sampled_1_in: Some(1234),
            lost: 7,
            header: Some(frame),
        }
    }

    fn read(bytes: &[u8]) -> Vec<Block<'static>> {
        let mut reader = PcapNgReader::new(bytes).expect("a capture");
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.expect("a block").into_owned());
        }
        blocks
    }

    fn packet_of(block: &Block<'static>) -> EnhancedPacketBlock<'static> {
        match block {
            Block::EnhancedPacket(packet) => packet.clone(),
            other => panic!("no packet: {other:?}"),
        }
    }

    #[test]
    fn a_capture_is_read_again_as_it_was() {
        let mut writer = Writer::new(Vec::new(), Some("worker-1")).unwrap();
        let first = event(Direction::Ingress);
        let second = Event {
            lost: 0,
            verdict: Verdict::Pass,
            ..event(Direction::Egress)
        };
        for event in [&first, &second, &first] {
            writer.write(event).unwrap();
        }
        assert!(writer.get_ref().is_empty(), "it waits for flush");
        writer.flush().unwrap();
        let blocks = read(writer.get_ref());
        let kinds: Vec<&str> = blocks
            .iter()
            .map(|block| match block {
                Block::InterfaceDescription(_) => "interface",
                Block::EnhancedPacket(_) => "packet",
                _ => "other",
            })
            .collect();
        assert_eq!(
            kinds,
            ["interface", "packet", "interface", "packet", "packet"]
        );
        let packet = packet_of(&blocks[1]);
        assert_eq!(packet.interface_id, 0);
        assert_eq!(packet_of(&blocks[3]).interface_id, 1);
        assert_eq!(packet.timestamp, Duration::new(1_800_000_000, 123_456_789));
        assert_eq!(packet.original_len, 1500);
        assert_eq!(*packet.data, **first.header.as_ref().unwrap());
        assert_eq!(
            packet.options[..3],
            [
                EnhancedPacketOption::Comment(
                    "drop policy_deny deny-node-ports rule 0 (preDNAT), 1 in 1,234".into()
                ),
                EnhancedPacketOption::Flags(1),
                EnhancedPacketOption::DropCount(7),
            ]
        );
        assert_eq!(verdict(&packet), [2, 1, 0, 0, 0, 0, 0, 0, 0]);
        let packet = packet_of(&blocks[3]);
        assert_eq!(packet.options[1], EnhancedPacketOption::Flags(2));
        assert_eq!(
            verdict(&packet),
            [1, 255, 255, 255, 255, 255, 255, 255, 255]
        );
    }

    fn verdict(packet: &EnhancedPacketBlock<'_>) -> Vec<u8> {
        match packet.options.last() {
            Some(EnhancedPacketOption::Unknown(option)) if option.code == 7 => {
                option.value.to_vec()
            }
            other => panic!("no verdict: {other:?}"),
        }
    }

    #[test]
    fn comments_name_who_decided_and_who_reports() {
        let denied = event(Direction::Ingress);
        let by_default = Event {
            reason: Reason::DefaultDeny,
            decided_by: None,
            policy: None,
            sampled_1_in: Some(1),
            ..denied.clone()
        };
        assert_eq!(comment(&by_default), "drop default_deny, 1 in 1");
        let logged = Event {
            verdict: Verdict::Pass,
            reason: Reason::PolicyAllow,
            policy: Some("log-all".into()),
            rule: Some(2),
            stage: Some(Stage::Normal),
            sampled_1_in: None,
            ..denied
        };
        assert_eq!(
            comment(&logged),
            "pass policy_allow deny-node-ports rule 0 (preDNAT), reported by log-all rule 2 \
             (normal)"
        );
    }

    /// Takes so many bytes, and no more.
    struct Full(Vec<u8>, usize);

    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = bytes.len().min(self.1 - self.0.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whatever fits, what is left when the torn end is cut off is whole.
    #[test]
    fn a_full_disk_tears_no_packet() {
        let all = {
            let mut writer = Writer::new(Vec::new(), None).unwrap();
            for _ in 0..3 {
                writer.write(&event(Direction::Ingress)).unwrap();
            }
            writer.flush().unwrap();
            writer.get_ref().len()
        };
        let mut found = Vec::new();
        for room in 0..all {
            let mut writer = Writer::new(Full(Vec::new(), room), None).unwrap();
            for _ in 0..3 {
                writer.write(&event(Direction::Ingress)).unwrap();
            }
            let broken = writer.flush().unwrap_err();
            assert_eq!(broken.error.kind(), io::ErrorKind::StorageFull);
            let bytes = &writer.get_ref().0;
            let whole = &bytes[..bytes.len() - usize::try_from(broken.torn).unwrap()];
            if !whole.is_empty() {
                let blocks = read(whole);
                assert_eq!(
                    blocks.len().saturating_sub(1) as u64,
                    writer.packets(),
                    "an interface, and the packets"
                );
                found.push(blocks.len());
            }
        }
        found.dedup();
        // The third packet never fits.
        assert_eq!(found, [0, 1, 2, 3]);
    }
}
