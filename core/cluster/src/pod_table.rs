//! All pods by UID, in a form whose copies share what did not change.
use crate::pod::PodView;
use std::hash::BuildHasher;
use std::sync::Arc;

/// A copy costs one pointer a shard; the first change after it copies the pointers of one shard.
const SHARDS: usize = 256;

/// All pods by UID. The same pods make equal tables, whatever the way to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTable {
    /// Sorted by UID.
    shards: Vec<Arc<Vec<Arc<PodView>>>>,
}

impl Default for PodTable {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }
}

fn shard_of(uid: &str) -> usize {
    // A fixed seed: equal tables must be equal values.
    let hash = foldhash::fast::FixedState::default().hash_one(uid);
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

fn position(shard: &[Arc<PodView>], uid: &str) -> Result<usize, usize> {
    shard.binary_search_by(|pod| pod.id.uid.as_str().cmp(uid))
}

impl PodTable {
    /// The pod with this UID.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<PodView>> {
        let shard = self.shards.get(shard_of(uid))?;
        position(shard, uid).ok().and_then(|index| shard.get(index))
    }

    /// All of them, in a fixed but meaningless order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PodView>> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a pod in and returns the former one of that UID.
    pub(crate) fn insert(&mut self, pod: Arc<PodView>) -> Option<Arc<PodView>> {
        let shard = Arc::make_mut(self.shards.get_mut(shard_of(&pod.id.uid))?);
        match position(shard, &pod.id.uid) {
            Ok(index) => shard.get_mut(index).map(|slot| std::mem::replace(slot, pod)),
            Err(index) => {
                shard.insert(index, pod);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let shard = self.shards.get_mut(shard_of(uid))?;
        let index = position(shard, uid).ok()?;
        Some(Arc::make_mut(shard).remove(index))
    }
}
