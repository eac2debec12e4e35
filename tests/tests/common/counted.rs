//! Where a packet must be counted.

use filter_user::datapath::{Count, Stats};
use filter_user::decision::Judgement;

/// Between `before` and `after`, one packet was counted, `frame`: in the sum
/// of the decision's reason and verdict, in its rule if one decided, in
/// those that were noted, and nowhere else.
#[track_caller]
pub(crate) fn once(before: &Stats, after: &Stats, judgement: &Judgement, frame: &[u8]) {
    let decision = judgement.decision;
    let one = Count {
        packets: 1,
        bytes: frame.len() as u64,
    };
    let none = Count::default();
    assert_eq!(before.reasons.len(), after.reasons.len());
    let mut seen = 0;
    for (old, new) in before.reasons.iter().zip(&after.reasons) {
        assert_eq!((old.0, old.1), (new.0, new.1));
        let its = (new.0, new.1) == (decision.reason, decision.verdict);
        seen += u32::from(its);
        let wanted = if its { one } else { none };
        assert_eq!(
            new.2 - old.2,
            wanted,
            "count of {:?}, by {frame:02x?}",
            (new.0, new.1)
        );
    }
    assert_eq!(seen, 1, "{decision:?} has no counter");
    assert_eq!(before.of_rules.len(), after.of_rules.len());
    for (index, (old, new)) in (0..).zip(before.of_rules.iter().zip(&after.of_rules)) {
        let its = decision.rule == Some(index) || judgement.noted.contains(&index);
        let wanted = if its { one } else { none };
        assert_eq!(
            *new - *old,
            wanted,
            "count of rule {index}, by {frame:02x?}"
        );
    }
}
