//! Which rules drop most.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::datapath::{Stats, Status};
use crate::ruleset::Action;

/// The document of the `n` rules that dropped most packets, on all interfaces together.
/// It is exact: each packet is counted by its rule.
pub(super) fn rules(all: &[Status], n: usize) -> Value {
    let mut dropped: HashMap<(&str, Option<u32>), u64> = HashMap::new();
    for (_, rule, count) in all
        .iter()
        .flat_map(Status::totals)
        .flat_map(Stats::counted_rules)
    {
        if rule.action == Action::Deny && !rule.staged && count.packets > 0 {
            *dropped.entry((&rule.id.policy, rule.id.index)).or_default() += count.packets;
        }
    }
    let packets: u64 = dropped.values().sum();
    let mut items: Vec<_> = dropped.into_iter().collect();
    items.sort_unstable_by_key(|(rule, packets)| (std::cmp::Reverse(*packets), *rule));
    let items = items.into_iter().take(n);
    let items = items.map(|((policy, index), packets)| {
        let index = index.map_or_else(|| "default".to_owned(), |index| index.to_string());
        json!({"key": format!("{policy} {index}"), "packets": packets, "error": 0})
    });
    json!({
        "schema": 1,
        "by": "rule",
        // Since each filter was attached.
        "since": null,
        "packets": packets,
        "error_bound": 0,
        "items": items.collect::<Vec<_>>(),
    })
}
