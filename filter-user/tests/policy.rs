//! The golden corpus of policy documents.
