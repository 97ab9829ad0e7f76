//! The search itself: level by level, on all cores.
use super::canon::{Renaming, canonical};
use super::laws;
use super::moves::{Move, Moves};
use super::steps::{Numbers, Setup, Steps};
use super::words;
use super::world::World;
use super::{Guard, Setting};
use foldhash::HashSet;
use foldhash::fast::FixedState;
use std::hash::BuildHasher as _;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// States that one thread takes at a time.
const CHUNK: usize = 2_048;
/// Parts of the set of states, each with a lock of its own.
const SHARDS: usize = 256;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Different states, up to renaming.
    pub states: usize,
    /// Moves from any of them.
    pub moves: usize,
    /// Moves on the longest of the shortest ways to a state.
    pub depth: usize,
    /// Different states of the shipped steps.
    pub steps: usize,
    /// Most pods bound at the same time.
    pub most_bound: usize,
    /// Moves that were not made because there is no room for one more step, or for one more write without an owner.
    pub pruned: usize,
    /// States in which a law is broken, on the first level that has any.
    pub violations: usize,
    /// The shortest way to one of them, a line for each move, and the law in the last.
    pub path: Vec<String>,
}

/// How a state was reached: the number of the state before, and which of its moves.
#[derive(Clone, Copy, Debug)]
struct Parent {
    state: u32,
    nth: u16,
}

struct Reached {
    world: World,
    parent: Parent,
}

/// What follows from one level.
#[derive(Default)]
struct Level {
    reached: Vec<Reached>,
    moves: usize,
    pruned: usize,
}

/// Searches until every state is known, or a law is broken: then to the end of that level. `tell` hears of each level:
/// states so far, and how many of them are new.
///
/// # Errors
/// A setting whose machine is none.
pub fn search(setting: &Setting, mut tell: impl FnMut(usize, usize)) -> Result<Found, fairlead_topology::MachineError> {
    let told_foreign = if setting.without == Some(Guard::ForeignPods) { 0 } else { setting.foreign_cpus };
    let setup = Setup {
        cpus: setting.cpus,
        foreign_cpus: told_foreign,
        memory: setting.memory,
        pod_memory: setting.pod_memory,
        others_memory: setting.without != Some(Guard::Memory),
    };
    let numbers = Numbers::new(setup)?;
    let explorer = Explorer {
        setting,
        numbers: &numbers,
        renamings: Renaming::all(setting),
        seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
        hasher: FixedState::default(),
    };
    let (first, _) = canonical(&World::first(setting.budget, setting.pod_cpus), &explorer.renamings);
    explorer.is_new(&first);
    let mut found = Found { states: 1, ..Found::default() };
    let mut parents = vec![Parent { state: 0, nth: 0 }];
    let mut level = vec![first];
    while !level.is_empty() {
        let start = parents.len() - level.len();
        let Level { reached, moves, pruned } = explorer.level(&level, start);
        found.moves += moves;
        found.pruned += pruned;
        let mut broken = None;
        level = Vec::with_capacity(reached.len());
        for Reached { world, parent } in reached {
            found.most_bound = found.most_bound.max(world.pods.iter().filter(|pod| pod.is_bound()).count());
            if laws::check(setting, &world).is_err() {
                found.violations += 1;
                broken = broken.or(Some(parents.len()));
            }
            parents.push(parent);
            level.push(world);
        }
        found.states = parents.len();
        found.depth += usize::from(!level.is_empty());
        tell(found.states, level.len());
        if let Some(broken) = broken {
            found.path = explorer.path(&parents, broken);
            break;
        }
    }
    found.steps = numbers.len();
    Ok(found)
}

struct Explorer<'a> {
    setting: &'a Setting,
    numbers: &'a Numbers,
    renamings: Vec<Renaming>,
    seen: Vec<Mutex<HashSet<u64>>>,
    hasher: FixedState,
}

impl Explorer<'_> {
    fn is_new(&self, world: &World) -> bool {
        let print = self.hasher.hash_one(world);
        let shard = usize::try_from(print >> 56).unwrap_or(0) % SHARDS;
        self.seen[shard].lock().unwrap_or_else(PoisonError::into_inner).insert(print)
    }

    /// Every new state one move from those of a level, which begins at number `start`.
    fn level(&self, level: &[World], start: usize) -> Level {
        let next_chunk = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let work = || {
            let mut moves = Moves::new(self.setting, Steps::new(self.numbers));
            let (mut reached, mut made) = (Vec::new(), 0);
            loop {
                let from = next_chunk.fetch_add(1, Ordering::Relaxed) * CHUNK;
                let Some(chunk) = level.get(from..(from + CHUNK).min(level.len())).filter(|chunk| !chunk.is_empty())
                else {
                    return Level { reached, moves: made, pruned: moves.pruned };
                };
                for (offset, world) in chunk.iter().enumerate() {
                    let mut nth = 0;
                    moves.next(world, &mut |_, after| {
                        let (world, _) = canonical(&after, &self.renamings);
                        if self.is_new(&world) {
                            let state = u32::try_from(start + from + offset).unwrap_or(u32::MAX);
                            reached.push(Reached { world, parent: Parent { state, nth } });
                        }
                        nth += 1;
                        made += 1;
                    });
                }
            }
        };
        if level.len() <= CHUNK {
            return work();
        }
        let parts = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).collect::<Vec<_>>()
        });
        let mut all = Level::default();
        for part in parts {
            all.reached.extend(part.reached);
            all.moves += part.moves;
            all.pruned += part.pruned;
        }
        all
    }

    /// The way to a state, gone again from the beginning: under the names that pods, nodes and extenders had there.
    fn path(&self, parents: &[Parent], to: usize) -> Vec<String> {
        let mut turns = Vec::new();
        let mut at = to;
        while at != 0 {
            turns.push(parents[at].nth);
            at = parents[at].state as usize;
        }
        let mut moves = Moves::new(self.setting, Steps::new(self.numbers));
        let (mut world, renamed) =
            canonical(&World::first(self.setting.budget, self.setting.pod_cpus), &self.renamings);
        let mut names = renamed.inverse();
        let mut lines = Vec::new();
        for turn in turns.into_iter().rev() {
            let mut chosen: Option<(Move, World)> = None;
            let mut nth = 0;
            moves.next(&world, &mut |made, after| {
                if nth == turn {
                    chosen = Some((made, after));
                }
                nth += 1;
            });
            let Some((made, after)) = chosen else { break };
            lines.push(words::line(&made, &names));
            let (next, renamed) = canonical(&after, &self.renamings);
            // From the new names back to the former, and from those to the first.
            names = names.after(&renamed.inverse());
            world = next;
        }
        let broken = laws::check(self.setting, &names.apply(&world));
        lines.extend(broken.err());
        lines
    }
}
