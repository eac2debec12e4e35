//! Numbers, of bytes most of all, in words.

/// Bytes in binary units, to three digits.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        unit += 1;
        scale *= 1024;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// What is needed and what is allowed, which is less: in bytes, where they would
/// read the same otherwise.
#[must_use]
pub(crate) fn needed_and_allowed(needed: u64, allowed: u64) -> [String; 2] {
    let sizes = [needed, allowed].map(size);
    if sizes[0] == sizes[1] {
        [needed, allowed].map(|bytes| format!("{bytes} bytes"))
    } else {
        sizes
    }
}

/// An integer with its thousands separated.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1_323_008), "1.3 MiB");
    }

    #[test]
    fn sizes_that_are_compared_differ() {
        let texts = |needed, allowed| needed_and_allowed(needed, allowed);
        assert_eq!(texts(3 << 20, 1 << 20), ["3.0 MiB", "1.0 MiB"]);
        assert_eq!(texts(4112, 4096), ["4112 bytes", "4096 bytes"]);
    }
}
