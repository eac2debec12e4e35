//! How long random tests look.

use std::env;

/// Says how many times as long as in CI.
const TIMES: &str = "NODEWALL_TIMES";

/// The random cases that a test takes where CI has time for so many: as many times
/// that as `NODEWALL_TIMES` says.
///
/// # Panics
///
/// Where `NODEWALL_TIMES` is no number from 1 on, or there would be more cases than
/// a u32 counts: who asks for many must not get few.
#[must_use]
pub fn times(in_ci: u32) -> u32 {
    let asked = env::var_os(TIMES);
    let text = asked.map_or_else(
        || "1".to_owned(),
        |text| text.to_string_lossy().into_owned(),
    );
    cases(in_ci, &text)
}

fn cases(in_ci: u32, times: &str) -> u32 {
    let number = times.parse().ok().filter(|times| *times > 0);
    let cases = number.and_then(|times: u32| in_ci.checked_mul(times));
    cases.unwrap_or_else(|| {
        panic!(
            "{TIMES}={times}: not a number from 1 to {}",
            u32::MAX / in_ci
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_often_as_asked() {
        assert_eq!(cases(400, "1"), 400);
        assert_eq!(cases(400, "50"), 20_000);
        for wrong in ["", "0", "-1", "1.5", "many", "4294967295"] {
            let found = std::panic::catch_unwind(|| cases(400, wrong));
            assert!(found.is_err(), "{wrong}");
        }
    }
}
