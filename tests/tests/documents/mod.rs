//! Random documents, for whoever only wants their rulesets: `documents.rs` has what they mean.
#![allow(dead_code, reason = "what they mean is asked elsewhere")]

pub(crate) mod generate;
pub(crate) mod lower;
pub(crate) mod model;
pub(crate) mod write;
