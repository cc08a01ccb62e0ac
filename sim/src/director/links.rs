//! Faults of the links between the broker and its clients.

use std::collections::BTreeMap;

use super::Director;
use super::action::{Action, MILLI};
use crate::exec::Nanos;
use crate::keyed::{Keyed, mix};
use crate::net::Link;
use crate::plan::{BROKER, FIRST_CLIENT, Kind};

impl Director {
    /// The clients' nodes, with the nodes of the admin and of the last reader.
    fn clients(&self) -> std::ops::Range<u32> {
        let clients = self.shared.plan.workload.producers.len() + self.shared.plan.workload.consumers.len();
        FIRST_CLIENT - 2..FIRST_CLIENT + clients as u32
    }

    /// Cuts off all clients one after another, each for half of the span on average; they reconnect in another order.
    pub(super) fn swizzle(&mut self, id: u64, span: Nanos) {
        self.count("swizzle clog");
        let mut choices = Keyed::new(mix(self.shared.plan.seed, id));
        let now = self.now();
        for (after, client, until) in swizzle_schedule(self.clients(), span, &mut choices) {
            let until = now + until;
            self.at(now + after, Action::Clog { client, until });
        }
    }

    pub(super) fn clog(&mut self, client: u32, until: Nanos) {
        let links = &mut self.shared.world.lock().net.links;
        for way in [(client, BROKER), (BROKER, client)] {
            let link = links.entry(way).or_default();
            link.cut_until = link.cut_until.max(until);
        }
    }

    /// Cuts, delays or throttles the links between the broker and one client, or all.
    pub(super) fn degrade_links(&self, kind: &Kind) {
        let all = self.clients();
        let now = self.now();
        let mut state = self.shared.world.lock();
        let mut each = |client: u32, to: bool, from: bool, f: &dyn Fn(&mut Link)| {
            if to {
                f(state.net.links.entry((client, BROKER)).or_default());
            }
            if from {
                f(state.net.links.entry((BROKER, client)).or_default());
            }
        };
        match *kind {
            Kind::Cut {
                client,
                to_broker,
                from_broker,
                for_ms,
            } => {
                let cut = |l: &mut Link| l.cut_until = l.cut_until.max(now + for_ms * MILLI);
                for c in all.filter(|c| client.is_none_or(|only| only == *c)) {
                    each(c, to_broker, from_broker, &cut);
                }
                let family = match (to_broker, from_broker) {
                    (true, true) => "partition",
                    _ => "one-way partition",
                };
                *state.faults.entry(family).or_insert(0) += 1;
            }
            Kind::Delay { by_ms, for_ms } => {
                let slow = |l: &mut Link| (l.slow_until, l.slower_by) = (now + for_ms * MILLI, by_ms * MILLI);
                all.for_each(|c| each(c, true, true, &slow));
                *state.faults.entry("delay").or_insert(0) += 1;
            }
            Kind::Narrow {
                client,
                bytes_per_s,
                for_ms,
            } => {
                let narrow =
                    |l: &mut Link| (l.narrow_until, l.bytes_per_s) = (now + for_ms * MILLI, bytes_per_s);
                for c in all.filter(|c| client.is_none_or(|only| only == *c)) {
                    each(c, true, true, &narrow);
                }
                *state.faults.entry("bandwidth").or_insert(0) += 1;
            }
            _ => unreachable!("only these ail a link"),
        }
    }
}

/// When each client is cut off, and until when: in the middle of `span` all are.
fn swizzle_schedule(
    clients: std::ops::Range<u32>,
    span: Nanos,
    choices: &mut Keyed,
) -> Vec<(Nanos, u32, Nanos)> {
    let mut in_order = |kind| {
        let mut all: Vec<_> = clients
            .clone()
            .map(|c| (choices.below(kind, u64::from(c), u64::MAX), c))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, client)| client)
    };
    let (off, on) = (in_order("clog"), in_order("unclog"));
    let each = span / (2 * clients.len() as u64);
    let back: BTreeMap<u32, u64> = on.zip(0..).collect();
    let clog = |(client, i)| (each * i, client, span / 2 + each * back[&client]);
    off.zip(0..).map(clog).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_clogged_one_by_one_and_come_back_in_another_order() {
        let mut others = 0;
        for seed in 0..20 {
            let clogs = swizzle_schedule(10..15, 1000, &mut Keyed::new(seed));
            assert_eq!(
                clogs.iter().map(|c| c.0).collect::<Vec<_>>(),
                [0, 100, 200, 300, 400]
            );
            let mut back: Vec<_> = clogs.iter().map(|c| (c.2, c.1)).collect();
            back.sort_unstable();
            assert_eq!(
                back.iter().map(|b| b.0).collect::<Vec<_>>(),
                [500, 600, 700, 800, 900]
            );
            let mut clients: Vec<_> = back.iter().map(|b| b.1).collect();
            others += u32::from(clients != clogs.iter().map(|c| c.1).collect::<Vec<_>>());
            clients.sort_unstable();
            assert_eq!(clients, [10, 11, 12, 13, 14]);
        }
        assert!(others > 15, "{others} of 20");
    }
}
