//! The search of placement in the small: it holds as shipped, and every rule that is switched off is missed.
#![allow(clippy::unwrap_used, reason = "tests")]
use fairlead_sim::search::world::Budget;
use fairlead_sim::search::{Found, Guard, Setting, search};

fn found(setting: &Setting) -> Found {
    search(setting, |_, _| {}).unwrap()
}

#[test]
fn as_shipped_no_cpu_is_promised_twice() {
    for (binds, withdrawals, faults, changes, losses) in
        [(2, 0, 1, 0, 0), (1, 1, 1, 1, 0), (2, 1, 0, 0, 0), (2, 0, 0, 0, 1), (3, 0, 0, 0, 0)]
    {
        let setting = Setting::usual(Budget { binds, withdrawals, faults, changes, losses, wishes: 0 });
        let found = found(&setting);
        assert_eq!((found.violations, found.path.as_slice()), (0, [].as_slice()), "{setting}");
        assert_eq!(found.most_bound, usize::from(binds), "{setting}: each bind can come to its end");
    }
}

#[test]
fn wishes_may_change_memory_may_be_short_and_two_may_be_withdrawn_at_once() {
    let budget = |withdrawals, wishes| Budget { withdrawals, wishes, ..Budget::of_binds(2) };
    for (setting, expected_bound) in [
        (Setting::usual(budget(0, 1)), 2),
        (Setting::usual(budget(0, 1)).or_wishing(2), 2),
        (Setting { nodes: 1, ..Setting::usual(budget(0, 0)) }.short_of_memory(), 1),
        (Setting::usual(budget(1, 0)).together(), 2),
    ] {
        let found = found(&setting);
        assert_eq!((found.violations, found.path.as_slice()), (0, [].as_slice()), "{setting}");
        assert_eq!((found.most_bound, found.pruned), (expected_bound, 0), "{setting}");
    }
}

#[test]
fn without_any_one_guard_there_is_a_shortest_way_to_a_double_promise() {
    for guard in Guard::ALL {
        let found = found(&guard.setting());
        assert!(found.violations > 0, "{}: {} states and nothing is missed", guard.name(), found.states);
        // Each level is one move further, so the way is as long as the search was deep; the law is the last line.
        assert_eq!(found.path.len(), found.depth + 1, "{}: {:#?}", guard.name(), found.path);
    }
}

#[test]
fn equal_states_are_merged_up_to_the_names_of_pods_nodes_and_extenders() {
    let one = Setting { pods: 1, nodes: 1, extenders: 1, ..Setting::usual(Budget::of_binds(1)) };
    let three = Setting { nodes: 2, extenders: 2, pods: 3, ..one };
    assert_eq!(found(&one).states, found(&three).states, "one bind is one bind, whoever makes it");
}

#[test]
fn every_guard_has_a_name_and_a_sentence_of_its_own() {
    for guard in Guard::ALL {
        assert_eq!(Guard::named(guard.name()), Some(guard));
        assert!(guard.sentence().ends_with('.'));
    }
}
