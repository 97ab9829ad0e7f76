//! What was found amiss, kept until the status has told it: a correction is quicker than a write.
use std::collections::BTreeMap;

use fairlead_crds::node_placement::ObservedContainer;

use super::State;
use super::status::amiss;

/// A container that was seen to run otherwise than promised.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Findings of one agent are numbered from 1, in the order in which they were made.
    pub number: u64,
    /// The container's line in the status, as long as it was amiss.
    pub line: ObservedContainer,
}

/// The last finding of every container that still exists: so a container that flaps takes one place, not many.
#[derive(Debug, Default)]
pub struct Findings {
    last_number: u64,
    by_id: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    finding: Finding,
    lasts: bool,
}

impl Findings {
    /// Notes what is amiss in `state`. Called for every state that a step led to, or what one event broke and the next
    /// one mended is missed.
    pub fn note(&mut self, state: &State) {
        self.by_id.retain(|id, _| state.containers.contains_key(id));
        for (id, container) in &state.containers {
            match (amiss(state, container), self.by_id.get_mut(id)) {
                (None, None) => {}
                (None, Some(entry)) => entry.lasts = false,
                (Some(line), Some(entry)) if entry.lasts && entry.finding.line.state == line.state => {
                    entry.finding.line = line;
                }
                (Some(line), _) => {
                    self.last_number += 1;
                    let finding = Finding { number: self.last_number, line };
                    self.by_id.insert(id.clone(), Entry { finding, lasts: true });
                }
            }
        }
    }

    /// The findings, by the runtime's ids of their containers.
    #[must_use]
    pub fn list(&self) -> Vec<Finding> {
        self.by_id.values().map(|entry| entry.finding.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use fairlead_crds::node_placement::PinState;
    use fairlead_topology::CpuMask;

    use super::*;
    use crate::pin::{Cores, Event, Observed, Promise, Seen, Version, observed, step};

    fn mask(list: &str) -> CpuMask {
        CpuMask::parse_list(list).unwrap()
    }

    fn machine(list: &str) -> Event {
        Event::Machine(Cores { usable: mask(list), shared: mask(list), memory_nodes: mask("0") })
    }

    fn loose() -> Event {
        let seen = Seen { id: "id-a".into(), pod_uid: "a".into(), name: "c".into(), placed: true, ..Seen::default() };
        Event::Synchronized(vec![seen])
    }

    /// The findings after each event, and what there is to say at the end.
    fn after(events: Vec<Event>) -> (Vec<Vec<(u64, PinState)>>, Findings, Observed) {
        let promise =
            Promise { cpus: mask("2-3"), containers: [("c".into(), mask("2-3"))].into(), ..Promise::default() };
        let version = Version { uid: "p".into(), generation: 1 };
        let start = [machine("0-7"), Event::Promises { version, promises: [("a".into(), promise)].into() }];
        let (mut state, mut findings, mut seen) = (State::new(false, None), Findings::default(), Vec::new());
        for event in start.into_iter().chain(events) {
            state = step(state, 0, event).0;
            findings.note(&state);
            seen.push(findings.list().iter().map(|one| (one.number, one.line.state)).collect());
        }
        let last = observed(&state);
        (seen.split_off(2), findings, last)
    }

    fn state_told(observed: &Observed) -> (PinState, Option<bool>) {
        (observed.containers[0].state, observed.pinned.status)
    }

    #[test]
    fn what_was_mended_at_once_is_still_to_be_told() {
        let (seen, findings, now) = after(vec![loose(), Event::Updated(None)]);
        assert_eq!(seen, [[(1, PinState::Unpinned)], [(1, PinState::Unpinned)]]);
        assert_eq!(state_told(&now), (PinState::Pinned, Some(true)));
        let said = now.clone().with_untold(&findings.list(), 0);
        assert_eq!(state_told(&said), (PinState::Unpinned, Some(false)));
        assert_eq!((said.pinned.reason.as_str(), said.containers[0].cpus.as_str()), ("NotAsPromised", "0-7"));
        assert_eq!(now.clone().with_untold(&findings.list(), 1), now);
    }

    #[test]
    fn what_is_amiss_now_is_said_before_what_was() {
        let (_, findings, now) = after(vec![loose(), Event::Updated(Some("no".into()))]);
        assert_eq!(state_told(&now), (PinState::Drifted, Some(false)));
        assert_eq!(now.clone().with_untold(&findings.list(), 0), now);
    }

    #[test]
    fn a_container_that_flaps_takes_one_place() {
        let round = [machine("0-2,4-7"), machine("0-7")];
        let mut events = vec![loose(), Event::Updated(None)];
        events.extend((0..50).flat_map(|_| round.clone()));
        let (seen, ..) = after(events);
        assert!(seen.iter().all(|findings| findings.len() == 1), "{seen:?}");
        assert_eq!(seen.last().unwrap()[0], (51, PinState::Drifted));
    }

    #[test]
    fn a_fault_that_lasts_is_one_finding_and_goes_with_its_container() {
        let (seen, ..) = after(vec![loose(), Event::Tick, Event::Tick, Event::Gone("id-a".into())]);
        assert_eq!(seen[..3], [[(1, PinState::Unpinned)], [(1, PinState::Unpinned)], [(1, PinState::Unpinned)]]);
        assert!(seen[3].is_empty());
    }
}
