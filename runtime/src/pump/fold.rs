//! Folding kube's watcher events: a list becomes one Reset, malformed objects are set aside.

use super::WatchEvent;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher::Event;

/// The objects of a list that is under way.
#[derive(Debug)]
pub(super) struct Fold<K> {
    listing: Option<Vec<K>>,
}

/// What one watcher event amounts to.
#[derive(Debug)]
pub(super) enum Folded<K> {
    Nothing,
    Emit(WatchEvent<K>),
    // Boxed: rare, and many times the size of the others.
    Malformed(Box<InvalidObject>),
}

impl<K> Default for Fold<K> {
    fn default() -> Self {
        Self { listing: None }
    }
}

impl<K> Fold<K> {
    /// Whether a list has begun and not ended.
    pub(super) fn listing(&self) -> bool {
        self.listing.is_some()
    }

    pub(super) fn push(&mut self, event: Event<DeserializeGuard<K>>) -> Folded<K> {
        match event {
            // A list that broke off begins again from nothing.
            Event::Init => {
                self.listing = Some(Vec::new());
                Folded::Nothing
            }
            Event::InitApply(DeserializeGuard(Ok(object))) => {
                self.listing.get_or_insert_default().push(object);
                Folded::Nothing
            }
            Event::InitDone => Folded::Emit(WatchEvent::Reset(self.listing.take().unwrap_or_default())),
            Event::Apply(DeserializeGuard(Ok(object))) => Folded::Emit(WatchEvent::Apply(object)),
            Event::Delete(DeserializeGuard(Ok(object))) => Folded::Emit(WatchEvent::Delete(object)),
            Event::InitApply(DeserializeGuard(Err(invalid)))
            | Event::Apply(DeserializeGuard(Err(invalid)))
            | Event::Delete(DeserializeGuard(Err(invalid))) => Folded::Malformed(Box::new(invalid)),
        }
    }
}
