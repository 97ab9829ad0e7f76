//! Gate removals that a tenant left under way when it was deleted: nobody counts them, and its ledger goes with it. Each is
//! touched until it can no longer succeed, and until then nobody is let out in its namespace.
use super::errand::Place;
use fairlead_fairshare::protocol::{Failure, PodView, Uid, Version};
use std::collections::BTreeMap;

#[derive(Debug)]
struct Orphan {
    tenant: String,
    place: Place,
    /// Version that the removal carries.
    version: Version,
    touching: bool,
}

/// The removals, by pod.
#[derive(Debug, Default)]
pub struct Orphans(BTreeMap<Uid, Orphan>);

/// A touch to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Touch {
    /// The tenant that was.
    pub tenant: String,
    /// The pod.
    pub uid: Uid,
    /// Where it is.
    pub place: Place,
}

impl Orphans {
    /// Takes over a removal of a tenant that is gone.
    pub fn take(&mut self, tenant: &str, uid: Uid, place: Place, version: Version) {
        self.0.insert(uid, Orphan { tenant: tenant.to_owned(), place, version, touching: false });
    }

    /// One of them may still succeed in this namespace.
    #[must_use]
    pub fn are_in(&self, namespace: &str) -> bool {
        self.0.values().any(|orphan| orphan.place.namespace == namespace)
    }

    /// The touches to send now; asked with every tick.
    #[must_use = "every touch has to be sent"]
    pub fn due(&mut self) -> Vec<Touch> {
        let idle = self.0.iter_mut().filter(|(_, orphan)| !orphan.touching);
        let due = idle.map(|(uid, orphan)| {
            orphan.touching = true;
            Touch { tenant: orphan.tenant.clone(), uid: uid.clone(), place: orphan.place.clone() }
        });
        due.collect()
    }

    /// A touch was answered.
    pub fn touched(&mut self, uid: &Uid, result: Result<PodView, Failure>) {
        match result {
            Ok(view) => self.seen(uid, view),
            Err(Failure::NotFound) => self.gone(uid),
            Err(_) => {
                if let Some(orphan) = self.0.get_mut(uid) {
                    orphan.touching = false;
                }
            }
        }
    }

    /// Touches may be under way that are never answered: all are due again.
    pub fn restart(&mut self) {
        self.0.values_mut().for_each(|orphan| orphan.touching = false);
    }

    /// Removals of this tenant may still succeed.
    #[must_use]
    pub fn are_of(&self, tenant: &str) -> bool {
        self.0.values().any(|orphan| orphan.tenant == tenant)
    }

    /// The pod was seen: at a later version the removal can no longer succeed, or has.
    pub fn seen(&mut self, uid: &Uid, view: PodView) {
        if self.0.get(uid).is_some_and(|orphan| view.version > orphan.version) {
            self.0.remove(uid);
        }
    }

    /// The pod is gone.
    pub fn gone(&mut self, uid: &Uid) {
        self.0.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_fairshare::protocol::Standing;

    #[test]
    fn a_removal_is_an_orphan_until_it_can_no_longer_succeed() {
        let (mut orphans, uid) = (Orphans::default(), Uid::from("u"));
        let place = Place { namespace: "b".into(), name: "p".into() };
        orphans.take("acme", uid.clone(), place.clone(), 7);
        assert_eq!(orphans.due(), [Touch { tenant: "acme".into(), uid: uid.clone(), place }]);
        assert!(orphans.due().is_empty(), "one touch at a time");
        orphans.touched(&uid, Err(Failure::Lost));
        assert_eq!(orphans.due().len(), 1);
        orphans.seen(&uid, PodView { version: 7, standing: Standing::Gated });
        assert!(orphans.are_in("b") && !orphans.are_in("a"));
        orphans.touched(&uid, Ok(PodView { version: 8, standing: Standing::Gated }));
        assert!(!orphans.are_in("b") && orphans.due().is_empty());
    }
}
