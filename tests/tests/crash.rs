//! `nodewall` is cut short at its system calls: what CI has the time for. `cargo xtask crash`
//! does it at each of them.
#![cfg(all(feature = "bpf", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use tests::crash::{Choice, Outcome, Stage, Summary, Verb, rehearse, sweep, turn};
use tests::lab::Side;
use tests::require;

fn sample(verb: Verb, every: usize) -> Summary {
    let summary = sweep(verb, Choice::Sample(every), 2, &|line| println!("{line}")).unwrap();
    println!("{}: {summary}", verb.name());
    assert!(
        summary.failures.is_empty(),
        "{}",
        summary.failures.join("\n")
    );
    // Else nothing was looked at.
    for outcome in [Outcome::Old, Outcome::New] {
        assert!(summary.outcomes.contains_key(&outcome), "{summary}");
    }
    summary
}

#[test]
fn a_change_that_is_cut_short_leaves_the_old_or_the_new_one() {
    if !require::root_and_bpf() {
        return;
    }
    let summary = sample(Verb::Over, 60);
    assert!(summary.injected["SIGKILL"] > 100, "{summary}");
}

#[test]
fn a_trial_that_is_cut_short_has_begun_or_has_not() {
    if !require::root_and_bpf() {
        return;
    }
    sample(Verb::Try, 60);
    sample(Verb::GiveUp, 40);
}

#[test]
fn a_confirmation_that_is_cut_short_takes_nothing_away() {
    if !require::root_and_bpf() {
        return;
    }
    let summary = sweep(Verb::Confirm, Choice::Sample(40), 2, &|line| {
        println!("{line}");
    });
    let summary = summary.unwrap();
    println!("{summary}");
    assert!(
        summary.failures.is_empty(),
        "{}",
        summary.failures.join("\n")
    );
    assert_eq!(summary.outcomes.len(), 1, "{summary}");
    assert!(summary.outcomes[&Outcome::New] > 20, "{summary}");
}

#[test]
fn a_removal_that_is_cut_short_is_finished_by_the_next() {
    if !require::root_and_bpf() {
        return;
    }
    sample(Verb::Detach, 20);
}

/// Whoever meddles is found out: a harness that finds nothing finds no mistake either.
#[test]
fn what_is_not_as_it_must_be_is_found() {
    if !require::root_and_bpf() {
        return;
    }
    let mut stage = Stage::new().unwrap();
    let rehearsal = rehearse(&mut stage, Verb::Over).unwrap();
    let injections = Choice::Sample(1_000).of(&rehearsal.calls);
    let injection = &injections[injections.len() / 3];
    let mut meddled = |meddle: &dyn Fn(&Stage)| {
        // So that something was counted before.
        turn(&mut stage, Verb::Over, &rehearsal, injection, true, &|_| {}).unwrap();
        let outcome = turn(&mut stage, Verb::Over, &rehearsal, injection, true, meddle);
        let found = outcome.map_err(|error| format!("{error:#}"));
        // For the next one it is a new stage.
        stage = Stage::new().unwrap();
        found
    };
    let found = |outcome: Result<Option<Outcome>, String>, what: &str| {
        let error = outcome.unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    assert!(matches!(meddled(&|_| {}), Ok(Some(_))));

    // A pin that nobody removes.
    let interface = Side::Node.interface();
    let outcome = meddled(&|stage| {
        fs::create_dir(stage.node().pins().join(interface).join("stray")).unwrap();
    });
    found(outcome, "too many pins");

    // One direction has no policy any more, or both.
    let outcome = meddled(&|stage| {
        fs::remove_file(stage.node().pins().join(interface).join("egress")).unwrap();
    });
    found(outcome, "neither");
    let outcome = meddled(&|stage| {
        assert!(stage.detach_all().status().unwrap().success());
    });
    found(outcome, "neither");

    // Totals that begin anew.
    let outcome = meddled(&|stage| {
        assert!(stage.detach_all().status().unwrap().success());
        let policy = stage.in_force().unwrap();
        assert!(stage.apply(policy).status().unwrap().success());
    });
    found(outcome, "denied");
}

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`.
const KERNEL: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// What asks for the names of programs, before anything else: `BPF_PROG_GET_NEXT_ID`,
/// `BPF_PROG_GET_FD_BY_ID` and `BPF_OBJ_GET_INFO_BY_FD`.
const NAMES: [u64; 3] = [11, 13, 15];

/// Whatever a verb asks of bpf(2), it has given up all that this does not take.
#[test]
fn the_kernel_is_asked_with_what_that_takes_and_no_more() {
    if !require::root_and_bpf() {
        return;
    }
    let mut stage = Stage::new().unwrap();
    for verb in Verb::ALL {
        let rehearsal = rehearse(&mut stage, verb).unwrap();
        let asked = rehearsal.calls.iter();
        let asked: Vec<_> = asked
            .filter_map(|call| Some((call, call.capabilities?)))
            .collect();
        assert!(!asked.is_empty(), "{}", verb.name());
        // From the first call on that asks for no name, each is made with these alone.
        let mut asked = asked.into_iter().peekable();
        while asked
            .next_if(|(call, _)| NAMES.contains(&call.argument))
            .is_some()
        {}
        assert!(asked.peek().is_some(), "{}", verb.name());
        for (call, capabilities) in asked {
            assert!(
                capabilities == KERNEL,
                "{}: {call} with {capabilities:x}",
                verb.name()
            );
        }
    }
}
