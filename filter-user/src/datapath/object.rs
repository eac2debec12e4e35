//! The embedded BPF object, made to the measure of one image.
//!
//! The image is the one value of its map, and how large a value is stands in
//! the map's declaration: in the object's BTF, where aya reads it. So the
//! number of lines that the program declares is replaced there before aya
//! sees it.

use filter_common::abi::{DECLARED_LINES, Line};

/// `BPF_MAP_TYPE_ARRAY` with keys of four bytes: how the declaration of a map
/// of the older form begins.
const ARRAY_OF_U32: [u32; 2] = [2, 4];
/// `BTF_KIND_ARRAY` as `struct btf_type` has it: no name, kind, no size.
const BTF_ARRAY: [u32; 3] = [0, 3 << 24, 0];
/// What the kernel takes at least; an empty image has no value.
const MIN_LINES: usize = 1;

/// The object with an image map of `lines` lines. `None` where it declares no
/// such map, or several.
pub(super) fn sized(object: &[u8], lines: usize) -> Option<Vec<u8>> {
    let lines = lines.max(MIN_LINES);
    let [declared, wanted] = [DECLARED_LINES, lines].map(u32::try_from);
    let (declared, wanted) = (declared.ok()?, wanted.ok()?);
    let line = u32::try_from(size_of::<Line>()).ok()?;

    // The number of elements follows two types in BTF.
    let btf = declaration(object, &BTF_ARRAY, 2, declared);
    // In the older form it is the size of the value, in bytes.
    let older = declaration(object, &ARRAY_OF_U32, 0, declared * line);
    let (at, number) = match (btf.as_slice(), older.as_slice()) {
        ([at], []) => (*at, wanted),
        // BTF may stand beside it, and then nobody reads it.
        (_, [at]) => (*at, wanted.checked_mul(line)?),
        _ => return None,
    };
    let mut object = object.to_vec();
    object[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    Some(object)
}

/// Where `number` stands behind these words and some others.
fn declaration(object: &[u8], head: &[u32], others: usize, number: u32) -> Vec<usize> {
    let head: &[u8] = bytemuck::cast_slice(head);
    let before = head.len() + others * 4;
    // Everything of the kind is aligned.
    (0..object.len().saturating_sub(before + 3))
        .step_by(4)
        .filter(|&start| object[start + before..][..4] == number.to_ne_bytes())
        .filter(|&start| object[start..].starts_with(head))
        .map(|start| start + before)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(words: &[u32]) -> Vec<u8> {
        bytemuck::cast_slice(words).to_vec()
    }

    #[test]
    fn the_declaration_is_found_once_or_not_at_all() {
        let declared = u32::try_from(DECLARED_LINES).expect("32 bits");
        let btf = [7, 0, 3 << 24, 0, 5, 6, declared, 9];
        assert_eq!(
            sized(&object(&btf), 12),
            Some(object(&[7, 0, 3 << 24, 0, 5, 6, 12, 9]))
        );
        let older = [1, 2, 4, declared * 64, 1];
        assert_eq!(sized(&object(&older), 2), Some(object(&[1, 2, 4, 128, 1])));
        // The number alone is no declaration.
        assert_eq!(sized(&object(&[0, 0, 0, 0, 0, 0, declared]), 2), None);
        let twice: Vec<u32> = btf.iter().chain(&btf).copied().collect();
        assert_eq!(sized(&object(&twice), 2), None);
    }
}
