//! What most questions about a node come down to, packed densely beside the views: thousands of nodes are asked about at
//! once, and a view lies on cache lines of its own, each of them a wait for memory.
use crate::node::NodeView;
use std::sync::Arc;

/// As many as in a chunk of [`crate::Table`]: one changed view changes one chunk of each.
const CHUNK: usize = 64;

/// When a view was built: no two views of one model have the same. It says nothing about the node, so views of the same
/// facts are equal whatever their stamps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp(pub(crate) u64);

impl PartialEq for Stamp {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Stamp {}

/// One node in brief: two words, four nodes a cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief {
    /// [`NodeView::stamp`], and in the lowest bit whether some pod that is not bound here holds something here.
    stamp_and_loose: u64,
    /// Milli-CPU that the shared pool still has for one more pod; of a node that is not trusted we have no opinion.
    pub(crate) shared_room_milli: u64,
}

/// The nodes in brief, by dense index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Briefs {
    /// All full but the last.
    chunks: Vec<Arc<Vec<Brief>>>,
}

impl Briefs {
    /// Of all views, in the order of their dense indices.
    pub(crate) fn of<'a>(views: impl Iterator<Item = &'a NodeView>) -> Self {
        let mut briefs = Self::default();
        let mut chunk = Vec::with_capacity(CHUNK);
        for view in views {
            chunk.push(Brief::of(view));
            if chunk.len() == CHUNK {
                briefs.chunks.push(Arc::new(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))));
            }
        }
        if !chunk.is_empty() {
            briefs.chunks.push(Arc::new(chunk));
        }
        briefs
    }

    pub(crate) fn at(&self, index: usize) -> Option<&Brief> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// Another view of the node at that index.
    pub(crate) fn replace(&mut self, index: usize, view: &NodeView) {
        let chunk = self.chunks.get_mut(index / CHUNK);
        if let Some(slot) = chunk.and_then(|chunk| Arc::make_mut(chunk).get_mut(index % CHUNK)) {
            *slot = Brief::of(view);
        }
    }
}

impl Brief {
    fn of(view: &NodeView) -> Self {
        let stamp_and_loose = view.stamp.0 << 1 | u64::from(!view.loose.is_empty());
        Self { stamp_and_loose, shared_room_milli: view.shared_room_milli() }
    }

    /// Of the view.
    pub(crate) fn stamp(self) -> u64 {
        self.stamp_and_loose >> 1
    }

    /// Whether some pod that is not bound here holds something here: that pod is judged by the view.
    pub(crate) fn has_loose(self) -> bool {
        self.stamp_and_loose & 1 != 0
    }
}
