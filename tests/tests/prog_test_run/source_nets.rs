//! `source.nets`.

use crate::nets::{self, Side};

#[test]
fn every_prefix() {
    nets::every_prefix(Side::Source);
}

#[test]
fn only_the_source() {
    nets::only_its_side(Side::Source);
}

#[test]
fn any_of_a_list() {
    nets::any_of_a_list(Side::Source);
}

#[test]
fn nested_prefixes() {
    nets::nested_prefixes(Side::Source);
}
