//! Makes the plan of a seed.

use std::collections::BTreeMap;

use brokkr_workloads::Workload;

use super::document::{NodeClock, Plan};
use super::family::{FAMILIES, Family, Faults};
use super::fault::{Fault, Kind};
use super::format::{COMMIT, FORMAT};
use super::nodes::{FIRST_CLIENT, ROOT, SECOND_ROOT};
use super::swarm::{self, Draw, broker, kind, workload};
use crate::exec::Strategy;
use crate::keyed::Keyed;
use crate::net::BUFFER_BYTES;
use crate::rude;

/// Under PCT a task loses its priority once in so many polls: one of these.
pub const PCT_CHANGE_ONE_IN: [u64; 3] = [20, 100, 1000];

impl Plan {
    /// The scenario of speed measurements: one broker with default settings, three producers and two consumers with about this many
    /// operations a second in total (a record sent and a poll count one each), and every family of faults.
    pub fn standard(seed: u64, secs: u64, operations_per_s: u64) -> Self {
        let mut draw = Draw(Keyed::new(seed));
        let workload = swarm::standard(operations_per_s);
        let broker = swarm::plain();
        let plan = Self::quiet(seed, secs, broker, workload);
        let is_usual = |f: &Family| !matches!(f, Family::Rude | Family::File);
        let families = FAMILIES.into_iter().filter(is_usual).collect();
        plan.with_faults(&mut draw, &Faults::Only(families), true)
    }

    /// The plan of a seed.
    pub fn of(seed: u64, secs: u64, faults: &Faults) -> Self {
        if let Faults::Requests(n) = faults {
            return Self::requests(seed, secs, *n);
        }
        let mut draw = Draw(Keyed::new(seed));
        let flushed = faults == &Faults::None || draw.of("unflushed", 6) > 0;
        let churn = draw.of("churn", 6) == 0;
        let workload = workload(&mut draw, churn);
        let buffer_bytes = match draw.of("buffer", 4) {
            _ if churn => 500,
            0 => 500,
            1 => 16 << 10,
            _ => BUFFER_BYTES,
        };
        let mut broker = broker(&mut draw, flushed, churn, &workload);
        if draw.of("two log directories", 5) == 0 {
            broker.insert("log.dirs".to_owned(), format!("{ROOT},{SECOND_ROOT}"));
        }
        let prepared = swarm::prepared(&mut draw, &workload);
        let plan = Self {
            buffer_bytes,
            prepared,
            ..Self::quiet(seed, secs, broker, workload)
        };
        plan.with_faults(&mut draw, faults, flushed)
    }

    /// Rude clients with this many requests, and a small workload that must not suffer.
    fn requests(seed: u64, secs: u64, requests: u64) -> Self {
        let mut broker = swarm::plain();
        swarm::tight(&mut broker);
        swarm::small_limits(&mut Draw(Keyed::new(seed)), &mut broker);
        let plan = Self::quiet(seed, secs, broker, swarm::small());
        Self {
            rude: rude::fuzz(seed, requests, plan.secs * 750),
            ..plan
        }
    }

    /// A plan without faults.
    fn quiet(seed: u64, secs: u64, broker: BTreeMap<String, String>, workload: Workload) -> Self {
        Self {
            format: FORMAT,
            commit: COMMIT.to_owned(),
            seed,
            secs: secs.max(1),
            scheduler: Strategy::Random,
            scheduler_seed: None,
            drift_ppm: 0,
            wall_ahead_ms: 0,
            clocks: BTreeMap::new(),
            buffer_bytes: BUFFER_BYTES,
            broker,
            prepared: Vec::new(),
            workload,
            faults: Vec::new(),
            rude: Vec::new(),
        }
    }

    fn with_faults(mut self, draw: &mut Draw, faults: &Faults, flushed: bool) -> Self {
        let clients = (self.workload.producers.len() + self.workload.consumers.len()) as u64;
        for family in FAMILIES {
            let often = match faults {
                Faults::None | Faults::Requests(_) => continue,
                Faults::Default if draw.one("family off", family as u64, 3) == 0 => continue,
                Faults::Default => 1,
                Faults::Only(list) if list.contains(&family) => 1,
                Faults::Only(_) => continue,
                Faults::Unlimited => 3,
            };
            // Most seeds leave these out: they cost time, or leave less to judge.
            let is_rare = matches!(family, Family::Rude | Family::File);
            if is_rare && faults == &Faults::Default && draw.one("rare family", family as u64, 3) > 0 {
                continue;
            }
            // A power loss may take unflushed records, and no rule would be left to judge.
            let loses = matches!(
                family,
                Family::Power | Family::Sync | Family::Write | Family::Directory
            );
            if !flushed && loses || family == Family::Directory && self.roots().len() < 2 {
                continue;
            }
            self.add_faults(draw, family, often, clients);
        }
        self.faults.sort_by_key(|f| (f.at_ms, f.id));
        self
    }

    /// Whether acknowledged records may be not durable, so that a power loss may take them.
    fn is_unflushed(&self) -> bool {
        self.broker.contains_key(swarm::FLUSH)
    }

    fn add_faults(&mut self, draw: &mut Draw, family: Family, often: u64, clients: u64) {
        match family {
            Family::Rude => {
                self.rude = rude::connections(self.seed, self.secs * 750);
                swarm::tight(&mut self.broker);
            }
            Family::File => {
                let fault = swarm::damaged_file(draw, self);
                self.faults.push(fault);
            }
            Family::Sched => self.scheduler = Strategy::Pct(PCT_CHANGE_ONE_IN[draw.of("pct", 3) as usize]),
            Family::Clock => {
                let most = if often > 1 { 200_000 } else { 300 };
                self.drift_ppm = draw.of("drift", 2 * most + 1) as i64 - most as i64;
                self.wall_ahead_ms = draw.of("wall ahead", 20_001) as i64 - 10_000;
                for client in (FIRST_CLIENT..).take(clients as usize) {
                    let drift_ppm =
                        draw.one("client's drift", client.into(), 2 * most + 1) as i64 - most as i64;
                    let wall_ahead_ms =
                        draw.one("client's wall ahead", client.into(), 20_001) as i64 - 10_000;
                    let clock = NodeClock {
                        drift_ppm,
                        wall_ahead_ms,
                    };
                    self.clocks.insert(client, clock);
                }
            }
            _ => {}
        }
        let (span_ms, key) = (self.secs * 750, family as u64);
        let usual = family.usual() * often * span_ms;
        // At least one fault in short runs.
        let most = (2 * usual / 45_000).max(u64::from(usual > 0));
        let n = if most == 0 {
            0
        } else {
            1 + draw.one("how many", key, most)
        };
        for i in 0..n {
            let id = key * 1000 + i;
            let at_ms = 300 + draw.one("at", id, span_ms.max(301) - 300);
            let kind = kind(draw, family, id, often > 1, self);
            // Some deaths come in pairs: the second during recovery from the first.
            if let Kind::Kill { down_ms }
            | Kind::PowerLoss { down_ms, .. }
            | Kind::CleanStop { down_ms, .. }
            | Kind::Restart { down_ms, .. } = kind
                && draw.one("again", id, 3) == 0
            {
                // Also by power after another end: what was only in the page cache then is lost before it is synced again.
                let by_power = match family {
                    Family::Power => draw.one("by power", id, 2) == 0,
                    _ => !self.is_unflushed() && draw.one("then by power", id, 2) == 0,
                };
                let again = Fault {
                    id: id + 500,
                    when: None,
                    at_ms: at_ms + down_ms + 1 + draw.one("dies after", id, 60),
                    kind: match by_power {
                        true => Kind::PowerLoss {
                            down_ms: 5,
                            unsynced: false,
                        },
                        false => Kind::Kill { down_ms: 5 },
                    },
                };
                self.faults.push(again);
            }
            let when = swarm::trigger(draw, id, &kind);
            self.faults.push(Fault {
                id,
                at_ms,
                when,
                kind,
            });
        }
        if family == Family::Net {
            self.cut_links_before_ends(draw);
        }
    }

    /// Before some ends of the process the broker's outgoing links are cut, so clients never receive the last responses and retry.
    fn cut_links_before_ends(&mut self, draw: &mut Draw) {
        let ends = self
            .faults
            .iter()
            .filter(|f| matches!(f.kind, Kind::Kill { .. } | Kind::CleanStop { .. }));
        let mut cuts = Vec::new();
        for Fault { id, at_ms, .. } in ends {
            if draw.one("unheard", *id, 3) == 0 {
                let before = 1 + draw.one("unheard for", *id, 300);
                cuts.push(Fault {
                    id: id + 700,
                    when: None,
                    at_ms: at_ms.saturating_sub(before),
                    kind: Kind::Cut {
                        client: None,
                        to_broker: false,
                        from_broker: true,
                        for_ms: before + 50,
                    },
                });
            }
        }
        self.faults.extend(cuts);
    }
}
