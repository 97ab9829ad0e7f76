//! What all pools have ordered, so that several pools of one tenant do not each order the same room.
use crate::book::{add, minus};
use crate::objects::PoolKey;
use fairlead_fairshare::{ResourceVector, max_more};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What one pool has ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its tenant.
    pub tenant: String,
    /// Replicas.
    pub replicas: u32,
    /// Request of one pod.
    pub per_pod: ResourceVector,
    /// Requests of those of its pods that count already.
    pub counted: ResourceVector,
}

impl Order {
    /// Requests of the pods that are ordered and do not count yet.
    fn outstanding(&self) -> ResourceVector {
        let ordered =
            self.per_pod.iter().map(|(name, amount)| (name.clone(), amount.saturating_mul(u64::from(self.replicas))));
        minus(&ordered.collect(), &self.counted)
    }
}

/// Hard limits and use of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// Hard limits.
    pub hard: &'a ResourceVector,
    /// Use, this pool's pods included.
    pub used: &'a ResourceVector,
}

/// The most replicas that the tenant's limits admit for a pool whose pods are `own`; `None` when no limit concerns it.
/// What other pools have ordered and not got yet counts as used.
#[must_use]
pub fn cap(limits: Limits<'_>, own: &Order, others: &[Order]) -> Option<u32> {
    let mut used = minus(limits.used, &own.counted);
    for order in others {
        add(&mut used, &order.outstanding());
    }
    match max_more(limits.hard, &used, &own.per_pod) {
        u64::MAX => None,
        more => Some(u32::try_from(more).unwrap_or(u32::MAX)),
    }
}

/// The orders of all pools that are driven.
#[derive(Debug, Default)]
pub struct Orders(Mutex<BTreeMap<PoolKey, Order>>);

impl Orders {
    /// Decides with `decide`, which gets the cap and says how many are ordered; nobody else orders meanwhile.
    pub fn place<T>(
        &self,
        key: &PoolKey,
        mut own: Order,
        limits: Option<Limits<'_>>,
        decide: impl FnOnce(Option<u32>) -> (u32, T),
    ) -> T {
        let mut orders = self.0.lock();
        let of_tenant = orders.iter().filter(|(other, order)| *other != key && order.tenant == own.tenant);
        let others: Vec<Order> = of_tenant.map(|(_, order)| order.clone()).collect();
        let cap = limits.and_then(|limits| cap(limits, &own, &others));
        let (replicas, outcome) = decide(cap);
        own.replicas = replicas;
        orders.insert(key.clone(), own);
        outcome
    }

    /// A pool is no longer driven.
    pub fn forget(&self, key: &PoolKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(entries: &[(&str, u64)]) -> ResourceVector {
        entries.iter().map(|&(name, amount)| (name.to_owned(), amount)).collect()
    }

    fn order(replicas: u32, counted: u64) -> Order {
        Order {
            tenant: "acme".into(),
            replicas,
            per_pod: vector(&[("cpu", 4000), ("pods", 1)]),
            counted: vector(&[("cpu", 4000 * counted), ("pods", counted)]),
        }
    }

    #[test]
    fn own_pods_do_not_stand_in_the_way() {
        let hard = vector(&[("cpu", 100_000)]);
        let used = vector(&[("cpu", 60_000), ("pods", 15)]);
        let limits = Limits { hard: &hard, used: &used };
        // 40 of the 60 CPUs are the pool's own, 20 are others': it may have 19 pods, the last let in at 92 of 100.
        assert_eq!(cap(limits, &order(10, 10), &[]), Some(19));
        assert_eq!(cap(limits, &order(10, 0), &[]), Some(9));
    }

    #[test]
    fn what_others_ordered_counts_once() {
        let hard = vector(&[("pods", 20)]);
        let used = vector(&[("cpu", 40_000), ("pods", 10)]);
        let limits = Limits { hard: &hard, used: &used };
        assert_eq!(cap(limits, &order(0, 0), &[]), Some(10));
        // The other has ordered 14, of which 10 run.
        assert_eq!(cap(limits, &order(0, 0), &[order(14, 10)]), Some(6));
        assert_eq!(cap(Limits { hard: &vector(&[]), used: &used }, &order(0, 0), &[]), None);
    }

    #[test]
    fn two_pools_never_order_the_same_room() {
        let orders = Orders::default();
        let (hard, used) = (vector(&[("pods", 20)]), vector(&[]));
        let key = |name: &str| PoolKey { namespace: "n".into(), name: name.into() };
        let limits = || Some(Limits { hard: &hard, used: &used });
        let mut total = 0;
        for name in ["a", "b"] {
            total +=
                orders.place(&key(name), order(0, 0), limits(), |cap| (cap.unwrap().min(15), cap.unwrap().min(15)));
        }
        assert_eq!(total, 20);
        orders.forget(&key("a"));
        assert_eq!(orders.place(&key("b"), order(5, 0), limits(), |cap| (5, cap)), Some(20));
    }
}
