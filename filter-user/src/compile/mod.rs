//! Ruleset → image: the compiled tables, pure bytes.

use crate::decision::Decision;
use crate::ruleset::Ruleset;

/// The compiled tables of one ruleset.
#[derive(Clone, Debug)]
pub struct Image {}

/// Why a ruleset can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The tables would take more memory than allowed.
    #[error("the tables of this ruleset take {needed} bytes, more than the budget of {budget}")]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        budget: u64,
    },
}

impl Image {
    /// Compiles a ruleset. The same ruleset gives the same bytes.
    pub fn compile(_ruleset: &Ruleset, _max_memory: u64) -> Result<Self, CompileError> {
        Ok(Self {})
    }

    /// Decides a frame (from the Ethernet header on) on the host, with the
    /// classifier that the kernel program runs.
    #[must_use]
    pub fn classify(&self, _frame: &[u8]) -> Decision {
        unreachable!()
    }

    /// Bytes of the tables.
    #[must_use]
    pub fn memory(&self) -> u64 {
        0
    }
}
