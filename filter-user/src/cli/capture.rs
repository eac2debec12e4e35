//! Captures, packet by packet: pcap (both byte orders, micro- and
//! nanoseconds) and pcapng, of Ethernet frames.

use std::fs::File;
use std::io::{BufReader, Read, stdin};
use std::path::Path;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

/// The first bytes of a pcapng file: its section header's type.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

type Source = std::io::Chain<std::io::Cursor<Vec<u8>>, BufReader<Box<dyn Read>>>;

enum Format {
    Pcap(PcapReader<Source>),
    PcapNg(Box<PcapNgReader<Source>>),
}

/// An open capture.
pub(super) struct Capture {
    name: String,
    format: Format,
    packet: u64,
}

/// A captured frame.
pub(super) struct Frame {
    /// From the Ethernet header on.
    pub(super) bytes: Vec<u8>,
    /// Whether the packet on the wire was longer.
    pub(super) cut: bool,
}

impl Capture {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let input: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(stdin())
        } else {
            Box::new(
                File::open(path)
                    .map_err(|error| format!("cannot open the capture {name}: {error}"))?,
            )
        };
        let mut input = BufReader::new(input);
        let mut magic = Vec::new();
        input
            .by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(|error| format!("cannot read the capture {name}: {error}"))?;
        let is_pcapng = magic == PCAPNG;
        let source = std::io::Cursor::new(magic).chain(input);
        let broken = |error: &dyn std::fmt::Display| {
            format!(
                "{name} is not a capture in pcap or pcapng format ({error}); tcpdump -w writes one"
            )
        };
        let format = if is_pcapng {
            Format::PcapNg(Box::new(
                PcapNgReader::new(source).map_err(|error| broken(&error))?,
            ))
        } else {
            let reader = PcapReader::new(source).map_err(|error| broken(&error))?;
            check(&name, reader.header().datalink)?;
            Format::Pcap(reader)
        };
        Ok(Self {
            name,
            format,
            packet: 0,
        })
    }

    /// The next frame; `None` at the end.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let number = self.packet + 1;
        let name = &self.name;
        let damaged = |error: &dyn std::fmt::Display| {
            format!(
                "{name} is damaged at packet {number} ({error}); the {} packets before it were read",
                number - 1
            )
        };
        let frame = match &mut self.format {
            Format::Pcap(reader) => match reader.next_raw_packet() {
                None => return Ok(None),
                Some(Err(error)) => return Err(damaged(&error)),
                Some(Ok(packet)) => Frame {
                    cut: packet.orig_len as usize > packet.data.len(),
                    bytes: packet.data.into_owned(),
                },
            },
            Format::PcapNg(reader) => loop {
                let block = match reader.next_block() {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(damaged(&error)),
                    Some(Ok(block)) => block.into_owned(),
                };
                let (interface, bytes, length) = match block {
                    Block::EnhancedPacket(packet) => {
                        (packet.interface_id, packet.data, packet.original_len)
                    }
                    Block::SimplePacket(packet) => (0, packet.data, packet.original_len),
                    Block::Packet(packet) => (
                        u32::from(packet.interface_id),
                        packet.data,
                        packet.original_len,
                    ),
                    _ => continue,
                };
                let described = reader.interfaces().get(interface as usize).ok_or_else(|| {
                    damaged(&format_args!("interface {interface} is not described"))
                })?;
                check(name, described.linktype)?;
                break Frame {
                    cut: length as usize > bytes.len(),
                    bytes: bytes.into_owned(),
                };
            },
        };
        self.packet = number;
        Ok(Some(frame))
    }
}

fn check(name: &str, link: DataLink) -> Result<(), String> {
    if link == DataLink::ETHERNET {
        Ok(())
    } else {
        Err(format!(
            "{name} holds {link:?} packets, and only Ethernet frames can be judged; capture on the \
             interface itself, not on \"any\""
        ))
    }
}
