//! A ruleset, cut into classes: every packet that rules speak about belongs to
//! one cell, a pair class and an L4 class, and what happens to it is the
//! same for all packets of the cell.

use super::combine::{Joined, Pairs};
use super::lines::Lines;
use super::{address, l4, source_port};
use crate::ruleset::{Family, Ruleset};

/// The classes of one IP version.
#[derive(Debug)]
pub(super) struct FamilyClasses {
    pub(super) src: address::Dimension,
    pub(super) dst: address::Dimension,
    pub(super) joined: Joined,
}

/// All classes of a ruleset.
#[derive(Debug)]
pub(super) struct Classes<'r> {
    pub(super) lines: Lines<'r>,
    /// IPv4, IPv6.
    pub(super) families: [FamilyClasses; 2],
    pub(super) pairs: Pairs,
    /// Without source ports.
    pub(super) l4: l4::Dimension,
    pub(super) source_ports: source_port::Dimension,
    /// Of each class in `l4` with each of `source_ports`, in that order, the
    /// class in `whole_l4`.
    pub(super) joint: Vec<u32>,
    /// With source ports.
    pub(super) whole_l4: Vec<l4::Class>,
}

impl<'r> Classes<'r> {
    /// Cuts a ruleset.
    pub(super) fn of(ruleset: &'r Ruleset) -> Self {
        let lines = Lines::of(ruleset);
        let mut pairs = Pairs::default();
        let families = [Family::V4, Family::V6].map(|family| {
            let cut = |side| address::Dimension::cut(&lines, &ruleset.sets, family, side);
            let src = cut(|matches| &matches.src);
            let dst = cut(|matches| &matches.dst);
            let joined = pairs.join(&src, &dst);
            FamilyClasses { src, dst, joined }
        });
        let l4 = l4::Dimension::cut(&lines, ruleset.options.fragments);
        let source_ports = source_port::Dimension::cut(&lines);
        let (whole_l4, joint) = source_ports.join(&l4.classes);
        Self {
            lines,
            families,
            pairs,
            l4,
            source_ports,
            joint,
            whole_l4,
        }
    }
}
