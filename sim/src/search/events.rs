//! What happens around the shipped steps: processes die, people change pods, nodes come and go, the agent lets pods run.
use super::Setting;
use super::moves::{Moves, Out, What, moved};
use super::world::{Ask, Attempt, Entry, NONE, Placement, Pod, World};

impl Moves<'_> {
    pub(super) fn around(&mut self, world: &World, out: Out<'_>) {
        self.crash(world, out);
        self.pods_change(world, out);
        self.wishes_change(world, out);
        self.nodes_change(world, out);
    }

    /// A process dies; what it had sent may yet arrive.
    fn crash(&mut self, world: &World, out: Out<'_>) {
        if world.budget.faults == 0 {
            return;
        }
        for extender in 0..self.setting.extenders {
            if !world.attempts.iter().any(|attempt| attempt.extender == extender) {
                continue;
            }
            let mut after = *world;
            after.budget.faults -= 1;
            let mut room = true;
            for slot in 0..after.attempts.len() {
                let attempt = after.attempts[slot];
                if attempt.extender == extender {
                    after.attempts[slot] = Attempt::NONE;
                    if let Ask::Write(write) = attempt.ask {
                        room &= after.leave(write);
                    }
                }
            }
            if !room {
                self.pruned += 1;
            } else {
                out(moved(What::Crashes, extender, NONE, NONE, true), after);
            }
        }
    }

    fn pods_change(&self, world: &World, out: Out<'_>) {
        for pod in 0..self.setting.pods {
            let now = world.pods[usize::from(pod)];
            if self.setting.budget.losses > 0 && self.admits(world, now, pod) {
                let mut after = *world;
                after.running[usize::from(pod)] = true;
                out(moved(What::Runs, NONE, pod, now.node, true), after);
            }
            if !now.exists || world.budget.changes == 0 {
                continue;
            }
            let mut change = |what, changed: Pod| {
                let mut after = *world;
                after.budget.changes -= 1;
                after.age_pod(pod);
                after.pods[usize::from(pod)] = changed;
                after.running[usize::from(pod)] &= changed.is_bound();
                out(moved(what, NONE, pod, NONE, true), after);
            };
            change(What::PodGoes, Pod { exists: false, node: NONE, cpus: 0, deleting: false, terminal: false, ..now });
            if !now.terminal {
                change(What::PodEnds, Pod { terminal: true, ..now });
            }
            if !now.deleting {
                change(What::PodDeleting, Pod { deleting: true, ..now });
            }
            change(What::PodWritten, now);
        }
    }

    /// A wish changes by the pod's annotation, which makes it another version, or by its WorkerPool, which does not.
    fn wishes_change(&self, world: &World, out: Out<'_>) {
        let Setting { pods, pod_cpus, other_wish, .. } = *self.setting;
        for pod in (0..pods).filter(|_| world.budget.wishes > 0) {
            let now = world.pods[usize::from(pod)];
            if !now.exists || now.node != NONE {
                continue;
            }
            let changed = Pod { wish: if now.wish == pod_cpus { other_wish } else { pod_cpus }, ..now };
            for pool in [false, true] {
                let mut after = *world;
                after.budget.wishes -= 1;
                if !pool {
                    after.age_pod(pod);
                }
                after.pods[usize::from(pod)] = changed;
                out(moved(What::WishChanges { pool }, NONE, pod, NONE, true), after);
            }
        }
    }

    /// The agent runs a container with CPUs of its own only where the reservation says what the Binding carried.
    fn admits(&self, world: &World, pod: Pod, number: u8) -> bool {
        if !pod.is_bound() || world.running[usize::from(number)] {
            return false;
        }
        let placement = world.nodes[usize::from(pod.node)].placement;
        placement.exists && placement.listed().any(|entry| entry == Entry { pod: number, cpus: pod.cpus })
    }

    fn nodes_change(&self, world: &World, out: Out<'_>) {
        for node in 0..self.setting.nodes {
            let now = world.nodes[usize::from(node)];
            if now.up && world.budget.losses > 0 {
                let mut after = *world;
                after.budget.losses -= 1;
                after.nodes[usize::from(node)].up = false;
                after.nodes[usize::from(node)].placement.orphan = now.placement.exists;
                out(moved(What::NodeGoes, NONE, NONE, node, true), after);
            }
            if !now.up {
                let mut after = *world;
                after.nodes[usize::from(node)].up = true;
                out(moved(What::NodeReturns, NONE, NONE, node, true), after);
            }
            if now.placement.exists && now.placement.orphan {
                let mut after = *world;
                after.age_placement(node, true);
                let known = &mut after.nodes[usize::from(node)];
                (known.placement, known.lost) = (Placement::ABSENT, true);
                out(moved(What::Collected, NONE, NONE, node, true), after);
            }
            if now.up && !now.placement.exists {
                let mut after = *world;
                after.nodes[usize::from(node)].placement = Placement::NEW;
                out(moved(What::Made, NONE, NONE, node, true), after);
            }
        }
    }
}
