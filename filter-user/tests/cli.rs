//! The command line: what it prints and its exit codes, without privileges.
//!
//! Rewrite the expectations with `TRYCMD=overwrite cargo test -p filter-user
//! --test cli`, then read every change.

#[test]
fn cli() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .case("tests/cli/*.trycmd");
}
