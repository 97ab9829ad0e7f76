//! Laws of the pinning, on random histories in a [`World`].
use std::collections::BTreeSet;

use fairlead_topology::CpuMask;
use proptest::prelude::*;

use super::world::World;

pub(super) const CPUS: u32 = 12;
pub(super) const PODS: u8 = 8;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// These pods have promises now.
    Promise(BTreeSet<u8>),
    /// The API server answers reads with the promises of now, or fails.
    Read(bool),
    /// A container of that pod is created; of pods from [`PODS`] on without a promise ever.
    Create(u8),
    /// The n-th container that was not started is stored, made, or started: whichever is next.
    Advance(usize),
    /// The kubelet asks to change the n-th container.
    Update(usize),
    /// The oldest of its changes is carried out, or fails.
    Change(bool),
    /// The n-th container ends.
    End(usize),
    /// The update under way lands; refused for the n-th container.
    Land(Option<usize>),
    /// The runtime goes away.
    Lose,
    /// It comes back and tells all it has.
    Return,
    /// The agent starts again, with or without its checkpoint.
    Restart(bool),
    /// These CPUs are offline.
    Offline(BTreeSet<u32>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => proptest::collection::btree_set(0..PODS, 0..6).prop_map(Op::Promise),
        2 => any::<bool>().prop_map(Op::Read),
        8 => (0..PODS + 4).prop_map(Op::Create),
        12 => (0..32_usize).prop_map(Op::Advance),
        3 => (0..32_usize).prop_map(Op::Update),
        4 => any::<bool>().prop_map(Op::Change),
        4 => (0..32_usize).prop_map(Op::End),
        6 => proptest::option::weighted(0.2, 0..32_usize).prop_map(Op::Land),
        1 => Just(Op::Lose),
        3 => Just(Op::Return),
        1 => any::<bool>().prop_map(Op::Restart),
        1 => proptest::collection::btree_set(0..CPUS, 0..2).prop_map(Op::Offline),
    ]
}

/// What a pod is promised, if it is: two CPUs; every fourth pod contradicts the one before it.
pub(super) fn promised(pod: u8) -> CpuMask {
    let first = u32::from(if pod % 4 == 3 { pod - 1 } else { pod }) % 5 * 2;
    CpuMask::from_ids([first, first + 1])
}

proptest! {
    #[test]
    fn no_history_breaks_a_promise(history in proptest::collection::vec(op(), 1..60)) {
        holds_after(history);
    }
}

fn holds_after(history: Vec<Op>) {
    let mut world = World::new();
    for op in history {
        world.apply(op);
    }
    world.come_to_rest();
    world.check();
}

/// The container of pod 8 grows to 0-11, and the kubelet changes it meanwhile: that is carried out, and then the growth
/// is refused. So it runs on 0-11, and not where it ran before.
#[test]
fn a_change_beside_a_refused_update_is_not_forgotten() {
    let start = [Op::Return, Op::Promise([4].into()), Op::Create(8), Op::Advance(0), Op::Advance(0), Op::Advance(0)];
    let grows = [Op::Promise(BTreeSet::new()), Op::Update(0), Op::Change(true), Op::Land(Some(0))];
    let taken = [Op::Promise([4].into()), Op::Create(4)];
    holds_after(start.into_iter().chain(grows).chain(taken).collect());
}

/// Changes to a container that is not stored yet are skipped without a word.
#[test]
fn the_pool_may_move_in_the_middle_of_a_creation() {
    let history = [Op::Return, Op::Create(8), Op::Promise([4].into()), Op::Land(None), Op::Advance(0), Op::Create(4)];
    holds_after(history.into());
}

/// Nor do changes count while it is being started.
#[test]
fn the_pool_may_move_in_the_middle_of_a_start() {
    let start = [Op::Return, Op::Create(8), Op::Advance(0), Op::Advance(0)];
    let taken = [Op::Promise([4].into()), Op::Land(None), Op::Create(4)];
    holds_after(start.into_iter().chain(taken).collect());
}

/// The kubelet's change was answered and failed: nothing came of the answer.
#[test]
fn a_change_that_fails_is_not_taken_for_done() {
    let start = [Op::Return, Op::Create(8), Op::Advance(0), Op::Advance(0), Op::Advance(0)];
    let fails = [Op::Promise([4].into()), Op::Land(Some(0)), Op::Update(0), Op::Change(false), Op::Create(4)];
    holds_after(start.into_iter().chain(fails).collect());
}

/// The checkpoint is behind, and the pool has moved.
#[test]
fn a_place_that_was_not_remembered_in_time_is_nobody_elses() {
    let placed = [Op::Return, Op::Promise([4].into()), Op::Create(8), Op::Restart(true)];
    let moved = [Op::Promise(BTreeSet::new()), Op::Return];
    holds_after(placed.into_iter().chain(moved).collect());
}
