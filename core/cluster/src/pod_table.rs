//! All pods by UID, in a form whose copies share what did not change.
use crate::pod::PodView;
use std::hash::BuildHasher;
use std::sync::Arc;

/// A copy costs one pointer a group; the first change after it copies the pointers of one group and of one shard. At
/// 150,000 pods that is 64, 64 and some 40.
const GROUPS: usize = 64;
const SHARDS: usize = 64;

/// Sorted by hash, then by UID. The hash is at hand, the UID is on a cache line of its pod.
type Shard = Vec<(u64, Arc<PodView>)>;

/// All pods by UID. The same pods make equal tables, whatever the way to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTable {
    groups: Vec<Arc<Vec<Arc<Shard>>>>,
}

impl Default for PodTable {
    fn default() -> Self {
        let group = Arc::new(vec![Arc::default(); SHARDS]);
        Self { groups: vec![group; GROUPS] }
    }
}

/// A UID's hash, group and shard.
fn place(uid: &str) -> (u64, usize, usize) {
    // A fixed seed: equal tables must be equal values.
    let hash = foldhash::fast::FixedState::default().hash_one(uid);
    let part = |of: u64, count: usize| usize::try_from(of % count as u64).unwrap_or(0);
    (hash, part(hash, GROUPS), part(hash / GROUPS as u64, SHARDS))
}

fn position(shard: &Shard, hash: u64, uid: &str) -> Result<usize, usize> {
    shard.binary_search_by(|(other, pod)| other.cmp(&hash).then_with(|| pod.id.uid.as_str().cmp(uid)))
}

impl PodTable {
    /// The pod with this UID.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<PodView>> {
        let (hash, group, shard) = place(uid);
        let shard = self.groups.get(group)?.get(shard)?;
        let index = position(shard, hash, uid).ok()?;
        shard.get(index).map(|(_, pod)| pod)
    }

    /// All of them, in a fixed but meaningless order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PodView>> {
        self.shards().flat_map(|shard| shard.iter().map(|(_, pod)| pod))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards().map(|shard| shard.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shards(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    fn shard_mut(&mut self, group: usize, shard: usize) -> Option<&mut Shard> {
        Arc::make_mut(self.groups.get_mut(group)?).get_mut(shard).map(Arc::make_mut)
    }

    /// Puts a pod in and returns the former one of that UID.
    pub(crate) fn insert(&mut self, pod: Arc<PodView>) -> Option<Arc<PodView>> {
        let (hash, group, shard) = place(&pod.id.uid);
        let shard = self.shard_mut(group, shard)?;
        match position(shard, hash, &pod.id.uid) {
            Ok(index) => shard.get_mut(index).map(|slot| std::mem::replace(&mut slot.1, pod)),
            Err(index) => {
                shard.insert(index, (hash, pod));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let (hash, group, shard) = place(uid);
        let index = position(self.groups.get(group)?.get(shard)?, hash, uid).ok()?;
        Some(self.shard_mut(group, shard)?.remove(index).1)
    }
}
