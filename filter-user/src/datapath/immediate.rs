//! What the program has as immediates, and gets when it is loaded: its constants,
//! and the address of its tables.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::bpf_insn;
use filter_common::abi::{PLACEHOLDER, PLACEHOLDER_NUMBER};

/// `BPF_ALU | BPF_MOV | BPF_K`: a register of 32 bits is set.
const SET: u8 = 0xb4;
/// `BPF_LD | BPF_DW | BPF_IMM`: one of 64 bits, by two instructions.
const SET_WIDE: u8 = 0x18;

/// `BPF_PSEUDO_MAP_FD`, in the place of a register: the immediate is a map's
/// descriptor.
const MAP: u8 = 1;
/// `BPF_PSEUDO_MAP_VALUE`: it is the place in the map's one value, as well.
const MAP_VALUE: u8 = 2;

/// Puts the words in the place of the immediates that stand for them. An error
/// where one stands for a word that there isn't.
pub(super) fn set_words(instructions: &mut [bpf_insn], words: &[u32]) -> Result<(), u32> {
    for instruction in instructions.iter_mut().filter(|found| found.code == SET) {
        let immediate = instruction.imm.cast_unsigned();
        if immediate & !PLACEHOLDER_NUMBER == PLACEHOLDER {
            let number = immediate & PLACEHOLDER_NUMBER;
            let word = words.get(number as usize).ok_or(number)?;
            instruction.imm = word.cast_signed();
        }
    }
    Ok(())
}

/// Where the map's descriptor is asked for, gives the address of its first
/// element.
pub(super) fn set_address(instructions: &mut [bpf_insn], map: BorrowedFd<'_>) {
    let asks = |found: &bpf_insn| {
        found.code == SET_WIDE && found.src_reg() == MAP && found.imm == map.as_raw_fd()
    };
    for at in 0..instructions.len().saturating_sub(1) {
        if asks(&instructions[at]) {
            instructions[at].set_src_reg(MAP_VALUE);
            instructions[at + 1].imm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn instruction(code: u8, source: u8, imm: u32) -> bpf_insn {
        let mut instruction = bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(1, source),
            off: 0,
            imm: imm.cast_signed(),
        };
        instruction.set_src_reg(source);
        instruction
    }

    fn immediates(instructions: &[bpf_insn]) -> Vec<u32> {
        instructions
            .iter()
            .map(|of| of.imm.cast_unsigned())
            .collect()
    }

    #[test]
    fn words_stand_in_the_place_of_their_numbers() {
        let mut code = [
            instruction(SET, 0, PLACEHOLDER | 1),
            // Adds.
            instruction(0x04, 0, PLACEHOLDER | 1),
            instruction(SET, 0, 1),
            instruction(SET, 0, PLACEHOLDER),
        ];
        assert_eq!(set_words(&mut code, &[7, u32::MAX]), Ok(()));
        assert_eq!(immediates(&code), [u32::MAX, PLACEHOLDER | 1, 1, 7]);
        let mut beyond = [instruction(SET, 0, PLACEHOLDER | 2)];
        assert_eq!(set_words(&mut beyond, &[7, 8]), Err(2));
    }

    #[test]
    fn the_address_stands_in_the_place_of_the_descriptor() {
        let file = std::io::stdin();
        let map = file.as_fd();
        let number = map.as_raw_fd().cast_unsigned();
        let mut code = [
            instruction(SET_WIDE, MAP, number),
            instruction(0, 0, 5),
            instruction(SET_WIDE, MAP, number + 1),
            instruction(0, 0, 5),
            instruction(SET_WIDE, 0, number),
            instruction(0, 0, 5),
        ];
        set_address(&mut code, map);
        assert_eq!(code[0].src_reg(), MAP_VALUE);
        assert_eq!(code[2].src_reg(), MAP);
        assert_eq!(code[4].src_reg(), 0);
        assert_eq!(immediates(&code)[1..], [0, number + 1, 5, number, 5]);
    }
}
