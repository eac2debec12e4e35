//! Captures, packet by packet: pcap (both byte orders, micro- and
//! nanoseconds) and pcapng, of Ethernet frames.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, stdin};
use std::path::Path;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

/// The first bytes of a pcapng file: its section header's type.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

type Source = std::io::Chain<std::io::Cursor<Vec<u8>>, BufReader<Box<dyn Read>>>;

enum Format {
    Pcap(PcapReader<Source>),
    PcapNg(Box<PcapNgReader<Source>>),
}

/// An open capture.
pub(crate) struct Capture {
    name: String,
    format: Format,
    packet: u64,
}

/// A captured frame.
pub(crate) struct Frame {
    /// From the Ethernet header on.
    pub(crate) bytes: Vec<u8>,
    /// Whether the packet on the wire was longer.
    pub(crate) cut: bool,
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
        Self::read(name, input)
    }

    /// Reads a capture from its beginning.
    pub(crate) fn read(name: String, input: Box<dyn Read>) -> Result<Self, String> {
        let mut input = BufReader::new(input);
        let mut magic = Vec::new();
        input
            .by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(|error| format!("cannot read the capture {name}: {error}"))?;
        let is_pcapng = magic == PCAPNG;
        let source = std::io::Cursor::new(magic).chain(input);
        let broken = |error: &PcapError| {
            format!(
                "{name} is not a capture in pcap or pcapng format ({}); tcpdump -w writes one",
                cause(error)
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
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let number = self.packet + 1;
        let name = &self.name;
        let damaged = |error: &dyn std::fmt::Display| {
            format!(
                "{name} is damaged at packet {number} ({error}); the packets before it were read"
            )
        };
        let frame = match &mut self.format {
            Format::Pcap(reader) => match reader.next_raw_packet() {
                None => return Ok(None),
                Some(Err(error)) => return Err(damaged(&cause(&error))),
                Some(Ok(packet)) => Frame {
                    cut: packet.orig_len as usize > packet.data.len(),
                    bytes: packet.data.into_owned(),
                },
            },
            Format::PcapNg(reader) => loop {
                let block = match reader.next_block() {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(damaged(&cause(&error))),
                    Some(Ok(block)) => block.into_owned(),
                };
                let (interface, bytes, length) = match block {
                    Block::EnhancedPacket(packet) => {
                        (packet.interface_id, packet.data, packet.original_len)
                    }
                    // Its length says nothing of the padding behind it.
                    Block::SimplePacket(packet) => {
                        let mut data = packet.data.into_owned();
                        data.truncate(packet.original_len as usize);
                        (0, data.into(), packet.original_len)
                    }
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

/// What a person can make of a reader's error.
fn cause(error: &PcapError) -> String {
    match error {
        PcapError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "it ends too early, or a length in it is wrong".to_owned()
        }
        PcapError::IoError(error) => error.to_string(),
        error => error.to_string(),
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// 17 bytes, so that pcapng pads it.
    const FRAME: [u8; 17] = *b"ddddddssssssttabc";

    fn word(length: usize) -> u32 {
        length.try_into().unwrap()
    }

    /// A capture in this byte order, of frames with the length they had on the
    /// wire.
    fn pcap(magic: u32, order: fn(u32) -> [u8; 4], link: u32, frames: &[(&[u8], u32)]) -> Vec<u8> {
        let mut file = Vec::from(order(magic));
        // The two halves of the version.
        file.extend(order(if order(1) == [1, 0, 0, 0] {
            4 << 16 | 2
        } else {
            2 << 16 | 4
        }));
        for field in [0, 0, 64, link] {
            file.extend(order(field));
        }
        for (frame, length) in frames {
            // More nanoseconds than there are microseconds in a second.
            for field in [1_700_000_000, 999_999_999, word(frame.len()), *length] {
                file.extend(order(field));
            }
            file.extend(*frame);
        }
        file
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = (word(padded) + 12).to_le_bytes();
        let mut block = Vec::from(kind.to_le_bytes());
        block.extend(length);
        block.extend(body);
        block.resize(8 + padded, 0xee);
        block.extend(length);
        block
    }

    /// A section with an interface, and the blocks of `rest`.
    fn pcapng(link: u16, rest: &[Vec<u8>]) -> Vec<u8> {
        let mut section = Vec::from(0x1a2b_3c4d_u32.to_le_bytes());
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        let mut interface = Vec::from(link.to_le_bytes());
        interface.extend([0; 6]);
        [&[block(0x0a0d_0d0a, &section), block(1, &interface)], rest]
            .concat()
            .concat()
    }

    fn simple(length: u32) -> Vec<u8> {
        block(3, &[&length.to_le_bytes()[..], &FRAME].concat())
    }

    fn enhanced(interface: u32, length: u32) -> Vec<u8> {
        let words = [interface, 0, 0, word(FRAME.len()), length];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(FRAME);
        block(6, &body)
    }

    /// The frames of a capture and whether they are cut; the error that ends it.
    fn read(file: &[u8]) -> (Vec<(Vec<u8>, bool)>, Option<String>) {
        let mut stored = tempfile::NamedTempFile::new().unwrap();
        stored.write_all(file).unwrap();
        let mut frames = Vec::new();
        let mut capture = match Capture::open(stored.path()) {
            Ok(capture) => capture,
            Err(error) => return (frames, Some(error)),
        };
        loop {
            match capture.next_frame() {
                Ok(Some(frame)) => frames.push((frame.bytes, frame.cut)),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    fn whole() -> (Vec<u8>, bool) {
        (FRAME.to_vec(), false)
    }

    fn cut() -> (Vec<u8>, bool) {
        (FRAME.to_vec(), true)
    }

    #[test]
    fn pcap_of_either_byte_order_and_resolution() {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            for order in [u32::to_le_bytes, u32::to_be_bytes] {
                let file = pcap(magic, order, 1, &[(&FRAME, 17), (&FRAME, 1500)]);
                assert_eq!(read(&file), (vec![whole(), cut()], None));
            }
        }
    }

    #[test]
    fn pcapng_of_either_kind_of_packet_without_its_padding() {
        let file = pcapng(1, &[enhanced(0, 17), simple(17), enhanced(0, 1500)]);
        assert_eq!(read(&file), (vec![whole(), whole(), cut()], None));
    }

    #[test]
    fn a_frame_may_be_empty() {
        let file = pcap(0xa1b2_c3d4, u32::to_le_bytes, 1, &[(&[], 0), (&FRAME, 17)]);
        assert_eq!(read(&file), (vec![(Vec::new(), false), whole()], None));
    }

    #[test]
    fn other_links_are_refused() {
        let sll = pcap(0xa1b2_c3d4, u32::to_le_bytes, 113, &[(&FRAME, 17)]);
        for file in [sll, pcapng(113, &[enhanced(0, 17)])] {
            let (frames, error) = read(&file);
            assert_eq!(frames, []);
            assert!(error.unwrap().contains("LINUX_SLL"));
        }
    }

    #[test]
    fn damage_is_reported_after_the_good_packets() {
        let pcap = pcap(
            0xa1b2_c3d4,
            u32::to_le_bytes,
            1,
            &[(&FRAME, 17), (&FRAME, 17)],
        );
        let mut long = pcap.clone();
        // The second packet's captured length.
        let at = long.len() - 17 - 8;
        long[at..at + 4].fill(0xff);
        let ng = pcapng(1, &[enhanced(0, 17), enhanced(0, 17)]);
        let unknown = pcapng(1, &[enhanced(0, 17), enhanced(7, 17)]);
        for file in [
            &pcap[..pcap.len() - 1],
            &long,
            &ng[..ng.len() - 1],
            &unknown,
        ] {
            let (frames, error) = read(file);
            assert_eq!(frames, [whole()]);
            let error = error.unwrap();
            assert!(error.contains("damaged at packet 2"), "{error}");
        }
    }

    #[test]
    fn no_cut_makes_the_reader_panic() {
        let files = [
            pcap(0xa1b2_c3d4, u32::to_be_bytes, 1, &[(&FRAME[..], 17); 2]),
            pcapng(1, &[enhanced(0, 17), simple(17)]),
        ];
        for file in files {
            for length in 0..file.len() {
                let (frames, error) = read(&file[..length]);
                assert!(frames.len() < 2);
                // At a packet's end nobody can tell that there was another.
                assert!(error.is_some() || frames.len() == 1 || length >= 24);
            }
        }
    }
}
