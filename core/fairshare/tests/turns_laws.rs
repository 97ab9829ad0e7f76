//! Laws of turns: releases are sent in the order decided whatever the order in which ledgers and answers come, and
//! nothing that was asked for is held for ever.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use fairlead_fairshare::Turns;
use proptest::prelude::*;

const TENANTS: [&str; 3] = ["a", "b", "c"];

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

proptest! {
    /// Any order of decisions, any interleaving of ledgers and answers: by the time a tenant's request is sent, all that
    /// was decided before it for others has ended; and everything is sent in the end.
    #[test]
    fn the_order_sent_is_the_order_decided(
        order in prop::collection::vec(0..TENANTS.len(), 1..40),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 400),
    ) {
        let mut turns = decided(&order);
        let mut asked = [0; TENANTS.len()];
        let wanted: Vec<usize> = (0..TENANTS.len()).map(|t| order.iter().filter(|&&next| next == t).count()).collect();
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
            for (tenant, number) in turns.due() {
                prop_assert_eq!(number, sent[tenant]);
                sent[tenant] += 1;
                let position = order.iter().enumerate().filter(|(_, t)| **t == tenant).nth(number).unwrap().0;
                for other in (0..TENANTS.len()).filter(|&other| other != tenant) {
                    let before = order[..position].iter().filter(|&&t| t == other).count();
                    prop_assert!(ended[other] >= before, "{tenant} overtook {other}");
                }
            }
        }
        prop_assert_eq!(&ended[..], &wanted[..], "everything is sent and ended");
        prop_assert_eq!(turns.open(), 0);
    }
}
