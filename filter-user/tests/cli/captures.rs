//! The captures beside this file, written down: frame by frame what they
//! hold, and the file formats around them.

/// Every capture by its name.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let evasion = pcap(1, &evasion());
    vec![
        ("cooked.pcap", pcap(113, &[ipv4(6, &tcp(80))])),
        // It ends within the fifth packet.
        ("cut.pcap", evasion[..300].to_vec()),
        ("evasion.pcap", evasion),
        ("evasion.pcapng", pcapng(&self::evasion())),
        ("odd.pcap", odd()),
    ]
}

/// What gets around a careless filter of "deny tcp and udp 30000-32767", and
/// what such a filter must let pass.
pub(crate) fn evasion() -> Vec<Vec<u8>> {
    let tagged = |tags: &[u16], packet: &[u8]| {
        let mut bytes = Vec::new();
        for (id, kind) in (1..).zip(tags) {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u16::to_be_bytes(id * 10));
        }
        bytes.extend([0x08, 0x00]);
        frame(&[&bytes, packet].concat())
    };
    let plain = |packet: &[u8]| tagged(&[], packet);
    let v6 = |packet: &[u8]| frame(&[&[0x86, 0xdd], packet].concat());
    let (vlan, service) = (0x8100, 0x88a8);

    let mut options = ipv4(6, &[&[0x94, 4, 0, 0], &*tcp(30080)].concat());
    options[0] = 0x46;
    let mut short_header = ipv4(6, &tcp(30080));
    short_header[0] = 0x44;
    let mut later_fragment = ipv4(17, &udp(30080));
    later_fragment[6..8].copy_from_slice(&185_u16.to_be_bytes());
    let mut tiny_fragment = ipv4(6, &tcp(30080)[..8]);
    tiny_fragment[6] = 0x20;
    let arp = [
        &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1][..],
        &[2, 0, 0, 0, 0, 1, 203, 0, 113, 7],
        &[0, 0, 0, 0, 0, 0, 192, 0, 2, 10],
    ]
    .concat();
    let hop_by_hop = [&[6, 0, 1, 4, 0, 0, 0, 0], &*tcp(32767)].concat();
    let routing_0 = [&[6, 0, 0, 0, 0, 0, 0, 0], &*tcp(80)].concat();
    let gre = [&[0, 0, 8, 0], &[b'x'; 20][..]].concat();

    vec![
        plain(&ipv4(6, &tcp(30080))),
        plain(&ipv4(17, &udp(32767))),
        plain(&ipv4(6, &tcp(8080))),
        plain(&options),
        tagged(&[vlan], &ipv4(6, &tcp(31000))),
        tagged(&[service, vlan], &ipv4(6, &tcp(31000))),
        tagged(&[service, vlan, vlan], &ipv4(6, &tcp(31000))),
        plain(&later_fragment),
        plain(&tiny_fragment),
        plain(&short_header),
        frame(&arp),
        plain(&ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1])),
        v6(&ipv6(0, &hop_by_hop)),
        v6(&ipv6(43, &routing_0)),
        plain(&ipv4(47, &gre)),
        plain(&ipv4(6, &tcp(29999))),
        plain(&ipv4(6, &tcp(32768))),
        plain(&ipv4(6, &tcp(22))),
    ]
}

/// Nanoseconds, the other byte order, a frame cut by the snap length, and
/// frames too short to be any.
fn odd() -> Vec<u8> {
    let whole = frame(&[&[0x08, 0x00], &*ipv4(6, &tcp(30080))].concat());
    let mut file = Vec::new();
    for field in [0xa1b2_3c4d, 2 << 16 | 4, 0, 0, 40, 1] {
        file.extend(u32::to_be_bytes(field));
    }
    for length in [whole.len(), 40, 13, 0] {
        let original = if length < 14 { length } else { whole.len() };
        for field in [1_700_000_000, 999_999_999, size(length), size(original)] {
            file.extend(u32::to_be_bytes(field));
        }
        file.extend(&whole[..length]);
    }
    file
}

fn size(length: usize) -> u32 {
    length.try_into().expect("captures are small")
}

/// `rest` begins with the `EtherType`.
fn frame(rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], rest].concat()
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend([203, 0, 113, 7, 192, 0, 2, 10]);
    packet.extend(payload);
    let length = u16::try_from(packet.len()).expect("packets are small");
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(
        u16::try_from(payload.len())
            .expect("packets are small")
            .to_be_bytes(),
    );
    packet.extend([next, 64]);
    for host in [0x07, 0x10] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0]);
        packet.extend([0, 0, 0, 0, 0, 0, 0, host]);
    }
    packet.extend(payload);
    packet
}

fn tcp(port: u16) -> Vec<u8> {
    let mut header = ports(port);
    header.resize(20, 0);
    header[12] = 5 << 4;
    header[13] = 2;
    header
}

fn udp(port: u16) -> Vec<u8> {
    let mut header = ports(port);
    header.extend([0, 8, 0, 0]);
    header
}

fn ports(port: u16) -> Vec<u8> {
    [51515_u16.to_be_bytes(), port.to_be_bytes()].concat()
}

fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, link] {
        file.extend(u32::to_le_bytes(field));
    }
    for (frame, second) in frames.iter().zip(1_700_000_000..) {
        for field in [second, 0, size(frame.len()), size(frame.len())] {
            file.extend(u32::to_le_bytes(field));
        }
        file.extend(frame);
    }
    file
}

fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    fn block(kind: u32, fields: &[u32], data: &[u8]) -> Vec<u8> {
        let padded = data.len().next_multiple_of(4);
        let length = size(12 + fields.len() * 4 + padded).to_le_bytes();
        let mut block = [kind.to_le_bytes(), length].concat();
        block.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        block.extend(data);
        block.resize(block.len() + padded - data.len(), 0);
        block.extend(length);
        block
    }
    let mut file = block(0x0a0d_0d0a, &[0x1a2b_3c4d, 1, u32::MAX, u32::MAX], &[]);
    file.extend(block(1, &[1, 0], &[]));
    for frame in frames {
        let length = size(frame.len());
        file.extend(block(6, &[0, 0, 0, length, length], frame));
    }
    file
}
