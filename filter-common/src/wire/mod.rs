//! Where the fields of each protocol are. One file a protocol; no policy.

pub mod ethernet;
pub mod ip;
pub mod l4;
pub mod wrapped;

/// A big-endian 16-bit field.
#[inline(always)]
#[must_use]
pub const fn be16(bytes: [u8; 2]) -> u16 {
    u16::from_be_bytes(bytes)
}
