//! `nodewall schema`.

use std::io::{Write as _, stdout};

use clap::Args;

use super::error::Failure;
use crate::policy::json_schema;

/// Print the JSON Schema of the documents, for editors
///
/// Draft 2020-12. It knows fields, spellings and limits; what goes together is
/// for `nodewall validate`. A field that is not enforced is refused, and its
/// description says why.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nodewall schema > nodewall.schema.json
  nodewall schema GlobalNetworkPolicy")]
pub(super) struct Schema {
    /// Of documents of this kind alone
    kind: Option<String>,
}

impl Schema {
    /// Runs the verb.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let kinds = json_schema::kinds();
        if let Some(kind) = &self.kind
            && !kinds.contains(&kind.as_str())
        {
            return Err(Failure::Usage(format!(
                "{kind:?} is no kind of document; the kinds are {}",
                kinds.join(", ")
            )));
        }
        writeln!(stdout(), "{:#}", json_schema::schema(self.kind.as_deref()))?;
        Ok(())
    }
}
