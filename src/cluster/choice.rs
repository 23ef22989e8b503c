//! Which server a session belongs on: pure functions over what is known of all of them.
//!
//! Invariants, which the tests check over every combination of three servers: a server of another
//! cluster is never chosen; a session that writes is never given a server that cannot be written
//! to, nor one whose timeline is below the floor; suspicion alone moves nobody.

use std::cmp::Reverse;

use super::detector::Health;
use crate::mutation::{self, Mutation};

/// How far (in bytes of WAL) the standby in use may lie behind the best one before it is left:
/// positions change all the time, and every move costs new warm links.
const STANDBY_SLACK: u64 = 16 << 20;

/// What the choice needs to know of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerView {
    pub health: Health,
    /// What it said of itself when last asked; `None` if it has never answered.
    pub seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub system_identifier: u64,
    pub timeline: u32,
    pub in_recovery: bool,
    pub read_only: bool,
    pub lsn: u64,
}

impl Seen {
    pub fn writable(&self) -> bool {
        !self.in_recovery && !self.read_only
    }
}

/// What the session wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    ReadWrite,
    /// A server that is read only, a standby before a primary that was made so. As in libpq, a
    /// writable server is no substitute.
    ReadOnly,
    Any,
}

/// What every choice has to respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub goal: Goal,
    /// The cluster's system identifier; `None` until a server has told one.
    pub identity: Option<u64>,
    /// The highest timeline that was ever seen writable.
    pub floor: u32,
}

/// What is to be thought of a server, whatever its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It has not said anything yet.
    Unknown,
    /// It belongs to the cluster and may be used for what it is.
    Member,
    /// An old primary: not in recovery, on a timeline that the cluster has left.
    Stale,
    /// It has another system identifier.
    OtherCluster,
}

pub fn verdict(view: &ServerView, identity: Option<u64>, floor: u32) -> Verdict {
    match &view.seen {
        None => Verdict::Unknown,
        Some(seen)
            if Some(seen.system_identifier) != identity
                && !mutation::on(Mutation::IdentityNotChecked) =>
        {
            Verdict::OtherCluster
        }
        // A standby's timeline is what it last heard of, and catches up by itself.
        Some(seen)
            if !seen.in_recovery
                && seen.timeline < floor
                && !mutation::on(Mutation::StaleServerTaken) =>
        {
            Verdict::Stale
        }
        Some(_) => Verdict::Member,
    }
}

/// The cluster's system identifier, as long as no session has used one: the one that most servers
/// have, then one that has a writable server, then the order of the user's list.
pub fn identity(servers: &[ServerView]) -> Option<u64> {
    let seen = || servers.iter().filter_map(|s| s.seen);
    seen()
        .enumerate()
        .max_by_key(|(at, candidate)| {
            let same = || seen().filter(|s| s.system_identifier == candidate.system_identifier);
            (same().count(), same().any(|s| s.writable()), Reverse(*at))
        })
        .map(|(_, s)| s.system_identifier)
}

/// The server that a session with this goal belongs on, if there is one now. `current` is the one
/// that was chosen last.
pub fn choose(servers: &[ServerView], current: Option<usize>, rules: &Rules) -> Option<usize> {
    let candidates = servers.iter().enumerate().filter_map(|(index, server)| {
        let seen = server.seen.as_ref()?;
        // A suspect keeps those that it has, and gains nobody.
        let usable = match server.health {
            Health::Healthy => true,
            Health::Suspect => current == Some(index),
            _ => false,
        };
        let member = verdict(server, rules.identity, rules.floor) == Verdict::Member;
        (usable && member).then_some((index, seen, server.health == Health::Healthy))
    });
    let key = |index: usize, healthy: bool| (healthy, current == Some(index), Reverse(index));
    match rules.goal {
        Goal::ReadWrite => candidates
            .filter(|(_, seen, _)| seen.writable())
            .max_by_key(|&(index, seen, healthy)| (seen.timeline, key(index, healthy)))
            .map(|(index, ..)| index),
        Goal::ReadOnly => candidates
            .filter(|(_, seen, _)| seen.read_only || seen.in_recovery)
            .max_by_key(|&(index, seen, healthy)| {
                let (healthy, current, order) = key(index, healthy);
                (seen.in_recovery, healthy, current, seen.lsn, order)
            })
            .map(|(index, ..)| index),
        Goal::Any => candidates
            .max_by_key(|&(index, _, healthy)| key(index, healthy))
            .map(|(index, ..)| index),
    }
}

/// The standby that is worth warm links: of those on the newest timeline the one that lags least, but
/// the one in use as long as it is nearly as good; never the chosen server, which a reader's is.
pub fn best_standby(
    servers: &[ServerView],
    current: Option<usize>,
    chosen: Option<usize>,
    identity: Option<u64>,
) -> Option<usize> {
    let candidates = || {
        servers.iter().enumerate().filter_map(|(index, server)| {
            let seen = server.seen.as_ref()?;
            let fit = server.health == Health::Healthy
                && seen.in_recovery
                && chosen != Some(index)
                && Some(seen.system_identifier) == identity;
            fit.then_some((index, seen.timeline, seen.lsn))
        })
    };
    if mutation::on(Mutation::LaggingBackupChosen) {
        return candidates().min_by_key(|&(.., lsn)| lsn).map(|(index, ..)| index);
    }
    let order = |&(index, timeline, lsn): &(usize, u32, u64)| (timeline, lsn, Reverse(index));
    let (best, newest, lsn) = candidates().max_by_key(order)?;
    let stay = candidates().find(|&(index, timeline, own)| {
        current == Some(index) && timeline == newest && own.saturating_add(STANDBY_SLACK) >= lsn
    });
    Some(stay.map_or(best, |(index, ..)| index))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u64 = 1;

    /// Every view over a small domain.
    fn views() -> Vec<ServerView> {
        let mut views = vec![ServerView { health: Health::Unknown, seen: None }];
        let roles = [(false, false), (false, true), (true, true)];
        for health in [Health::Healthy, Health::Suspect, Health::Lost, Health::ComingBack] {
            for system_identifier in [OURS, 2] {
                for timeline in [1, 2] {
                    for (in_recovery, read_only) in roles {
                        let lsn = 100 * u64::from(timeline);
                        let seen =
                            Seen { system_identifier, timeline, in_recovery, read_only, lsn };
                        views.push(ServerView { health, seen: Some(seen) });
                    }
                }
            }
        }
        views
    }

    /// Calls `check` with every combination of three servers, current one, goal and floor.
    fn all(mut check: impl FnMut(&[ServerView], Option<usize>, &Rules)) {
        let views = views();
        for a in &views {
            for b in &views {
                for c in &views {
                    for current in [None, Some(0), Some(1), Some(2)] {
                        for floor in [0, 2] {
                            for goal in [Goal::ReadWrite, Goal::ReadOnly, Goal::Any] {
                                let rules = Rules { goal, identity: Some(OURS), floor };
                                check(&[*a, *b, *c], current, &rules);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_combination_of_three_servers_breaks_an_invariant() {
        let mut chosen = 0_u64;
        all(|servers, current, rules| {
            let choice = choose(servers, current, rules);
            let context = || format!("{servers:?} current {current:?} {rules:?}: {choice:?}");
            let Some(index) = choice else {
                // Nobody is left waiting while a healthy server would do.
                for server in servers {
                    let Some(seen) = server.seen else { continue };
                    let fits = match rules.goal {
                        Goal::ReadWrite => !seen.read_only && seen.timeline >= rules.floor,
                        Goal::ReadOnly => seen.in_recovery,
                        Goal::Any => seen.in_recovery || seen.timeline >= rules.floor,
                    };
                    let fits = fits && seen.system_identifier == OURS;
                    assert!(!(fits && server.health == Health::Healthy), "{}", context());
                }
                return;
            };
            chosen += 1;
            let it = servers[index];
            let seen = it.seen.expect("chosen without having been seen");
            assert_eq!(seen.system_identifier, OURS, "another cluster: {}", context());
            assert!(
                it.health == Health::Healthy
                    || (it.health == Health::Suspect && current == Some(index)),
                "unreachable, or suspect and new: {}",
                context()
            );
            if !seen.in_recovery {
                assert!(seen.timeline >= rules.floor, "way back: {}", context());
            }
            match rules.goal {
                Goal::ReadWrite => {
                    assert!(!seen.in_recovery && !seen.read_only, "{}", context());
                    for other in servers.iter().filter(|s| s.health == Health::Healthy) {
                        let better = other.seen.is_some_and(|o| {
                            o.system_identifier == OURS
                                && !o.read_only
                                && o.timeline > seen.timeline
                        });
                        assert!(!better, "a newer timeline is writable: {}", context());
                    }
                }
                Goal::ReadOnly => assert!(seen.read_only, "{}", context()),
                Goal::Any => {}
            }
        });
        assert!(chosen > 10_000, "the domain hardly ever allows a choice");
    }

    #[test]
    fn the_current_server_is_left_only_for_a_reason() {
        all(|servers, current, rules| {
            let Some(index) = current else { return };
            let (Some(seen), choice) = (servers[index].seen, choose(servers, current, rules))
            else {
                return;
            };
            let sound = seen.system_identifier == OURS
                && (seen.in_recovery || seen.timeline >= rules.floor);
            let fits = match rules.goal {
                Goal::ReadWrite => !seen.read_only,
                Goal::ReadOnly => seen.read_only,
                Goal::Any => true,
            };
            if !sound || !fits || choice == current {
                return;
            }
            match servers[index].health {
                Health::Healthy => {
                    // Only a newer timeline draws a writer away, only a standby a reader from a
                    // primary that is read only.
                    let to = servers[choice.expect("moved to nowhere")].seen.expect("unseen");
                    match rules.goal {
                        Goal::ReadWrite => assert!(to.timeline > seen.timeline),
                        Goal::ReadOnly => assert!(to.in_recovery && !seen.in_recovery),
                        Goal::Any => panic!("moved from a healthy server without a reason"),
                    }
                }
                Health::Suspect => {
                    let to = servers[choice.expect("suspicion alone moved to nowhere")];
                    assert_eq!(to.health, Health::Healthy);
                }
                _ => {}
            }
        });
    }

    #[test]
    fn health_and_order_alone_decide_between_equals() {
        let seen = Seen {
            system_identifier: OURS,
            timeline: 3,
            in_recovery: false,
            read_only: false,
            lsn: 5,
        };
        let up = ServerView { health: Health::Healthy, seen: Some(seen) };
        let rules = Rules { goal: Goal::ReadWrite, identity: Some(OURS), floor: 3 };
        assert_eq!(choose(&[up, up, up], None, &rules), Some(0));
        assert_eq!(choose(&[up, up, up], Some(2), &rules), Some(2));
        assert_eq!(choose(&[up, up, up], Some(2), &Rules { floor: 4, ..rules }), None);
    }

    #[test]
    fn the_majority_names_the_cluster() {
        let of = |system_identifier, writable: bool| ServerView {
            health: Health::Healthy,
            seen: Some(Seen {
                system_identifier,
                timeline: 1,
                in_recovery: !writable,
                read_only: !writable,
                lsn: 1,
            }),
        };
        let none = ServerView { health: Health::Lost, seen: None };
        assert_eq!(identity(&[none, none]), None);
        assert_eq!(identity(&[none, of(7, false)]), Some(7));
        assert_eq!(identity(&[of(7, true), of(8, false), of(8, true)]), Some(8));
        assert_eq!(identity(&[of(7, false), of(8, true)]), Some(8));
        assert_eq!(identity(&[of(7, true), of(8, true)]), Some(7));
    }

    #[test]
    fn the_best_standby_is_kept_while_it_is_nearly_as_good() {
        let on = |timeline, lsn| ServerView {
            health: Health::Healthy,
            seen: Some(Seen {
                system_identifier: OURS,
                timeline,
                in_recovery: true,
                read_only: true,
                lsn,
            }),
        };
        let at = |lsn| on(1, lsn);
        let servers = [at(10), at(20), at(20)];
        assert_eq!(best_standby(&servers, None, None, Some(OURS)), Some(1));
        assert_eq!(best_standby(&servers, Some(0), None, Some(OURS)), Some(0));
        assert_eq!(best_standby(&servers, None, None, Some(2)), None);
        assert_eq!(best_standby(&servers, None, Some(1), Some(OURS)), Some(2));
        let far = [at(10), at(11 + STANDBY_SLACK)];
        assert_eq!(best_standby(&far, Some(0), None, Some(OURS)), Some(1));
        // It had more than the one that was promoted, and cannot follow it.
        let diverged = [on(1, 30), on(2, 20)];
        assert_eq!(best_standby(&diverged, Some(0), None, Some(OURS)), Some(1));
    }
}
