//! Small readings of Kubernetes objects: amounts, times, owners.
use fairlead_crds::quantity;
use fairlead_fairshare::ResourceVector;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::BTreeMap;

/// The resource counted in milli-units.
pub(crate) const CPU: &str = "cpu";
/// The resource whose bytes are promised on NUMA nodes.
pub(crate) const MEMORY: &str = "memory";

/// Milli-CPU for `cpu`, units for everything else; `None` for what is no quantity.
fn amount(resource: &str, text: &Quantity) -> Option<u64> {
    let read = if resource == CPU { quantity::milli(&text.0) } else { quantity::units(&text.0) };
    read.ok()
}

/// A requested amount. The API server admits only well-formed ones; one that cannot be read is taken for the largest,
/// since unknown is never nothing.
pub(crate) fn requested(resource: &str, text: &Quantity) -> u64 {
    amount(resource, text).unwrap_or(u64::MAX)
}

/// An amount that is offered; one that cannot be read is not there.
pub(crate) fn offered(resource: &str, text: &Quantity) -> u64 {
    amount(resource, text).unwrap_or(0)
}

/// Amounts offered, by resource.
pub(crate) fn offers(list: Option<&BTreeMap<String, Quantity>>) -> ResourceVector {
    list.into_iter().flatten().map(|(resource, text)| (resource.clone(), offered(resource, text))).collect()
}

pub(crate) fn add(sum: &mut ResourceVector, more: &ResourceVector) {
    for (resource, amount) in more {
        match sum.get_mut(resource) {
            Some(held) => *held = held.saturating_add(*amount),
            None => {
                sum.insert(resource.clone(), *amount);
            }
        }
    }
}

/// Takes `less` away from the resources that are there; never below 0.
pub(crate) fn take(sum: &mut ResourceVector, less: &ResourceVector) {
    for (resource, amount) in less {
        if let Some(held) = sum.get_mut(resource) {
            *held = held.saturating_sub(*amount);
        }
    }
}

/// Milliseconds since the Unix epoch; times before it count as 0.
pub(crate) fn milliseconds(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or(0)
}

pub(crate) fn created_ms(meta: &ObjectMeta) -> u64 {
    meta.creation_timestamp.as_ref().map_or(0, milliseconds)
}

/// UID of the Node that owns an object, if exactly one does: with two the object would outlive one of them.
pub(crate) fn owning_node(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let mut nodes = owners.iter().filter(|owner| owner.kind == "Node" && owner.api_version == "v1");
    nodes.next().filter(|_| nodes.next().is_none()).map(|owner| owner.uid.as_str())
}
