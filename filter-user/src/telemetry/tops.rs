//! Who is dropped most, of what was reported.

use std::net::IpAddr;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::sketch::SpaceSaving;
use super::{Event, time};
use crate::ruleset::protocol_name;

/// Keys that are kept of each top: some hundred kilobytes of memory.
const ROOM: usize = 4_096;

/// Sources and destination ports of dropped packets. Each report counts for the packets
/// that it stands for.
#[derive(Clone, Debug)]
pub struct Tops {
    since: SystemTime,
    sources: SpaceSaving<IpAddr>,
    ports: SpaceSaving<(u8, u16)>,
}

/// What a top of reported drops is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Source addresses.
    Src,
    /// Protocols and destination ports.
    Dport,
}

impl Tops {
    /// Begins to count.
    #[must_use]
    pub fn new() -> Self {
        Self {
            since: SystemTime::now(),
            sources: SpaceSaving::new(ROOM),
            ports: SpaceSaving::new(ROOM),
        }
    }

    /// Counts a reported packet, if it was dropped.
    pub fn add(&mut self, event: &Event) {
        let Some(stands_for) = event.sampled_1_in else {
            return;
        };
        if let Some(ip) = &event.ip {
            self.sources.add(ip.src, stands_for);
        }
        if let Some(l4) = &event.l4
            && let Some(port) = l4.dport
        {
            self.ports.add((l4.proto, port), stands_for);
        }
    }

    /// The document of the first `n`.
    #[must_use]
    pub fn document(&self, by: By, n: usize) -> Value {
        let (packets, error_bound, items) = match by {
            By::Src => {
                let name = |source: &IpAddr| source.to_string();
                (
                    self.sources.total(),
                    self.sources.error_bound(),
                    items(&self.sources, n, name),
                )
            }
            By::Dport => {
                let name = |(proto, port): &(u8, u16)| format!("{}/{port}", protocol_name(*proto));
                (
                    self.ports.total(),
                    self.ports.error_bound(),
                    items(&self.ports, n, name),
                )
            }
        };
        json!({
            "schema": 1,
            "by": by.name(),
            "since": time(self.since),
            "packets": packets,
            "error_bound": error_bound,
            "items": items,
        })
    }
}

impl Default for Tops {
    fn default() -> Self {
        Self::new()
    }
}

impl By {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dport => "dport",
        }
    }
}

fn items<K: std::hash::Hash + Eq + Clone>(
    counted: &SpaceSaving<K>,
    n: usize,
    name: impl Fn(&K) -> String,
) -> Vec<Value> {
    let top = counted.top(n).into_iter();
    top.map(|item| json!({"key": name(&item.key), "packets": item.count, "error": item.error}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::event::tests::event;

    #[test]
    fn drops_count_for_what_they_stand_for() {
        let mut tops = Tops::new();
        for (text, stands_for) in [
            ("tcp 203.0.113.7:1 > 192.0.2.10:80", Some(5)),
            ("tcp 203.0.113.7:2 > 192.0.2.10:443", Some(2)),
            ("udp [2001:db8::7]:1 > [2001:db8::10]:80", Some(6)),
            // No port is known of it.
            ("udp 203.0.113.9 > 192.0.2.10 frag", Some(1)),
            // It was logged.
            ("tcp 203.0.113.8:1 > 192.0.2.10:80", None),
        ] {
            let mut event = event(text);
            event.sampled_1_in = stands_for;
            tops.add(&event);
        }
        let top = tops.document(By::Src, 2);
        let first = json!({"key": "203.0.113.7", "packets": 7, "error": 0});
        let second = json!({"key": "2001:db8::7", "packets": 6, "error": 0});
        assert_eq!(top["items"], json!([first, second]));
        assert_eq!(
            (&top["packets"], &top["error_bound"]),
            (&json!(14), &json!(0))
        );
        let top = tops.document(By::Dport, 10);
        let keys: Vec<&Value> = top["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| &item["key"])
            .collect();
        assert_eq!(keys, ["udp/80", "tcp/80", "tcp/443"]);
        assert_eq!((&top["by"], &top["packets"]), (&json!("dport"), &json!(13)));
    }

    #[test]
    fn sources_that_find_no_room_are_within_the_bound() {
        let mut tops = Tops::new();
        let mut one = event("tcp 203.0.113.7:1 > 192.0.2.10:80");
        one.sampled_1_in = Some(1);
        let mut flood = one.clone();
        for source in 0..3 * u32::try_from(ROOM).expect("small") {
            let ip = flood.ip.as_mut().expect("an address");
            ip.src = std::net::Ipv4Addr::from_bits(10 << 24 | source).into();
            tops.add(&flood);
            tops.add(&one);
        }
        let top = tops.document(By::Src, 1);
        let (packets, bound) = (
            &top["packets"],
            top["error_bound"].as_u64().expect("a number"),
        );
        assert_eq!(packets, 6 * ROOM);
        assert!((1..=6).contains(&bound), "{bound}");
        assert_eq!(
            top["items"],
            json!([{"key": "203.0.113.7", "packets": 3 * ROOM, "error": 0}])
        );
    }
}
