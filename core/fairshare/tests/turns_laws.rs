//! Laws of turns: releases are sent in the order decided whatever the order in which ledgers and answers come, and
//! nothing that was asked for is held for ever.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use fairlead_fairshare::Turns;
use proptest::prelude::*;

const TENANTS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The decisions of `order`, their requests numbered by tenant.
fn decided(order: &[usize]) -> Turns<(usize, usize)> {
    let mut turns = Turns::default();
    order.iter().for_each(|&tenant| turns.decided(TENANTS[tenant]));
    turns
}

#[test]
fn one_tenants_pods_go_at_once_and_the_next_tenant_waits_for_them() {
    let mut turns = decided(&[0, 0, 1, 0]);
    turns.hold("b", (1, 0));
    assert_eq!(turns.due(), [], "its ledger was quicker, but it is not its turn");
    (0..3).for_each(|i| turns.hold("a", (0, i)));
    assert_eq!(turns.due(), [(0, 0), (0, 1)]);
    turns.ended("a");
    assert_eq!(turns.due(), []);
    turns.ended("a");
    assert_eq!(turns.due(), [(1, 0)]);
    turns.ended("b");
    assert_eq!(turns.due(), [(0, 2)]);
    turns.ended("a");
    assert_eq!(turns.open(), 0, "nothing is left of it");
}

#[test]
fn what_is_sent_again_waits_for_nobody() {
    let mut turns = decided(&[1]);
    turns.hold("a", (0, 0));
    assert_eq!(turns.due(), [(0, 0)]);
}

#[test]
fn a_turn_that_does_not_move_is_given_up() {
    let mut turns = decided(&[0, 1]);
    turns.hold("b", (1, 0));
    (0..3).for_each(|_| turns.tick());
    assert_eq!(turns.due(), [], "decided a moment ago");
    turns.tick();
    assert_eq!(turns.due(), [(1, 0)]);
    turns.hold("a", (0, 0));
    assert_eq!(turns.due(), [(0, 0)], "late, and not lost");
}

#[test]
fn decisions_that_no_longer_stand_block_nobody() {
    let mut turns = decided(&[0, 1]);
    turns.hold("b", (1, 0));
    turns.stands("a", 0);
    assert_eq!(turns.due(), [(1, 0)]);
    let mut turns = decided(&[0, 1]);
    turns.hold("a", (0, 0));
    turns.hold("b", (1, 0));
    turns.forget("a");
    assert_eq!(turns.due(), [(1, 0)], "what the former leader held is not sent");
}

#[test]
fn an_effect_that_is_seen_before_its_answer_costs_one_turn_only() {
    let mut turns = decided(&[0, 1, 0]);
    turns.hold("a", (0, 0));
    assert_eq!(turns.due(), [(0, 0)]);
    turns.stands("a", 1);
    turns.ended("a");
    turns.hold("a", (0, 1));
    assert_eq!(turns.due(), [], "it is the turn of b");
}

#[test]
fn others_that_move_do_not_shield_a_turn_that_hangs() {
    let mut turns = decided(&[0, 1, 2, 1, 1, 3]);
    (0..3).for_each(|i| turns.hold("b", (1, i)));
    assert_eq!(turns.due(), [(1, 0)], "ahead of a, which has not asked yet");
    (0..3).for_each(|_| turns.tick());
    turns.ended("b");
    assert_eq!(turns.due(), [], "a second one would overtake a again");
    turns.tick();
    assert_eq!(turns.due(), [(1, 1)], "a is given up; c is first, and overtaken by one");
}

#[test]
fn in_a_crowd_one_of_each_goes_at_once() {
    let mut turns = decided(&[0, 1, 2, 0, 1, 2]);
    for (index, name) in TENANTS.iter().enumerate().take(3) {
        (0..2).for_each(|i| turns.hold(name, (index, i)));
    }
    assert_eq!(turns.due(), [(0, 0), (0, 1), (1, 0), (2, 0)], "a's second is the first of it behind b and c");
}

proptest! {
    /// Any order of decisions, any interleaving of ledgers and answers: no decision is overtaken by more than one pod of
    /// any other tenant, by none where fewer than three tenants stand in the line, and everything is sent in the end.
    #[test]
    fn nobody_is_overtaken_by_more_than_one_pod_of_another(
        order in (2..=TENANTS.len()).prop_flat_map(|tenants| prop::collection::vec(0..tenants, 1..40)),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 400),
    ) {
        let mut turns = decided(&order);
        let positions: Vec<Vec<usize>> =
            (0..TENANTS.len()).map(|t| (0..order.len()).filter(|&at| order[at] == t).collect()).collect();
        let wanted: Vec<usize> = positions.iter().map(Vec::len).collect();
        let mut asked = [0; TENANTS.len()];
        let (mut sent, mut ended) = ([0; TENANTS.len()], [0; TENANTS.len()]);
        for choice in choices {
            // What may happen next: a ledger write yields a request, or a request under way is answered.
            let asks = (0..TENANTS.len()).filter(|&t| asked[t] < wanted[t]).map(|t| (t, true));
            let answers = (0..TENANTS.len()).filter(|&t| ended[t] < sent[t]).map(|t| (t, false));
            let possible: Vec<(usize, bool)> = asks.chain(answers).collect();
            if possible.is_empty() {
                break;
            }
            let (tenant, ask) = possible[choice.index(possible.len())];
            if ask {
                turns.hold(TENANTS[tenant], (tenant, asked[tenant]));
                asked[tenant] += 1;
            } else {
                turns.ended(TENANTS[tenant]);
                ended[tenant] += 1;
            }
            let in_line = (0..TENANTS.len()).filter(|&t| ended[t] < wanted[t]).count();
            for (tenant, number) in turns.due() {
                prop_assert_eq!(number, sent[tenant]);
                sent[tenant] += 1;
                for other in (0..TENANTS.len()).filter(|&other| other != tenant) {
                    for &open in &positions[other][ended[other]..] {
                        let overtaken_by = positions[tenant][..=number].iter().filter(|&&at| at > open).count();
                        prop_assert!(overtaken_by <= usize::from(in_line >= 3), "{tenant} overtook {other} at {open}");
                    }
                }
            }
        }
        prop_assert_eq!(&ended[..], &wanted[..], "everything is sent and ended");
        prop_assert_eq!(turns.open(), 0);
    }
}
