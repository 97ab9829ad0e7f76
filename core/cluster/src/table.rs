//! Views by name, in a form whose copies share what did not change: a snapshot after one event costs the same at 5,000
//! nodes as at 50.
use std::sync::Arc;

/// A copy costs one pointer a chunk; the first change after it copies the pointers of one chunk.
const CHUNK: usize = 64;

/// What has a name.
pub trait Named {
    /// The name, unique in its table.
    fn name(&self) -> &str;
}

/// Views in ascending order of their names; the position of a view is its dense index.
#[derive(Debug, PartialEq, Eq)]
pub struct Table<V> {
    /// All full but the last.
    chunks: Vec<Arc<Vec<Arc<V>>>>,
    len: usize,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<V: Named> Table<V> {
    /// Of views that come in ascending order of their names.
    pub(crate) fn of_sorted(views: impl Iterator<Item = Arc<V>>) -> Self {
        let mut table = Self::default();
        let mut chunk = Vec::with_capacity(CHUNK);
        for view in views {
            table.len += 1;
            chunk.push(view);
            if chunk.len() == CHUNK {
                table.chunks.push(Arc::new(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))));
            }
        }
        if !chunk.is_empty() {
            table.chunks.push(Arc::new(chunk));
        }
        table
    }

    /// Puts the view in the place of the one of its name, and says which; none if there is no such name.
    pub(crate) fn replace(&mut self, view: Arc<V>) -> Option<usize> {
        let index = self.position(view.name())?;
        *Arc::make_mut(self.chunks.get_mut(index / CHUNK)?).get_mut(index % CHUNK)? = view;
        Some(index)
    }

    /// The dense index of a name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| first.name() <= name));
        let at = after.checked_sub(1)?;
        let within = self.chunks.get(at)?.binary_search_by(|view| view.name().cmp(name)).ok()?;
        Some(at * CHUNK + within)
    }

    /// The view of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<V>> {
        self.at(self.position(name)?)
    }

    /// Whether there is a view of that name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.position(name).is_some()
    }
}

impl<V> Table<V> {
    /// The view at a dense index.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Arc<V>> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// All views, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<V>> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Thing(String, u32);

    impl Named for Thing {
        fn name(&self) -> &str {
            &self.0
        }
    }

    fn table(count: u32) -> Table<Thing> {
        Table::of_sorted((0..count).map(|n| Arc::new(Thing(format!("t{n:05}"), 0))))
    }

    #[test]
    fn every_size_is_found_by_name_and_by_index() {
        for count in [0u32, 1, 63, 64, 65, 200] {
            let all = table(count);
            assert_eq!(all.len(), count as usize);
            for (index, view) in all.iter().enumerate() {
                assert_eq!(all.position(&view.0), Some(index));
                assert_eq!(all.at(index).unwrap().0, view.0);
            }
            assert!(all.get("t").is_none() && all.get("t00000x").is_none() && all.at(count as usize).is_none());
        }
    }

    #[test]
    fn a_copy_shares_all_chunks_but_the_changed_one() {
        let before = table(300);
        let mut after = before.clone();
        assert_eq!(after.replace(Arc::new(Thing("t00070".into(), 7))), Some(70));
        assert_eq!(after.replace(Arc::new(Thing("new".into(), 7))), None);
        assert_eq!((before.get("t00070").unwrap().1, after.get("t00070").unwrap().1), (0, 7));
        let shared = before.chunks.iter().zip(&after.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, before.chunks.len() - 1);
    }
}
