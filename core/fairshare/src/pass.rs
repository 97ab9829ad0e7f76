//! One pass over the waiting pods: names become dense indices once, then every decision is a few integer operations.
//!
//! Within a pass usage only grows and capacity only shrinks, so a pod that was refused once stays refused: each pod is
//! looked at once, and a heap over the tenants' candidates yields the next release.
use crate::entitlement::{MAX_WEIGHT, capped_demand, fill};
use crate::limit::{PODS, Refusal, ResourceVector, admits};
use crate::order::{PendingPod, Release, ReleaseInput, ReleasePlan, TenantInput, Waiting};
use crate::reason::WaitReason;
use crate::share::Share;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;

/// A resource asked for, by dense index, and how much of it; never 0.
type Ask = (usize, u64);

pub(crate) struct Pass<'a> {
    resources: Vec<&'a str>,
    total: Vec<u64>,
    /// What may still be released per resource; `None`: not bounded by capacity.
    budget: Vec<Option<u64>>,
    /// Asks of all pods, one range a pod.
    asks: Vec<Ask>,
    /// Tenants by name.
    tenants: Vec<Tenant<'a>>,
    plan: ReleasePlan,
}

struct Tenant<'a> {
    input: &'a TenantInput,
    weight: u64,
    used: Vec<u64>,
    hard: Vec<Option<u64>>,
    entitled: Vec<u64>,
    /// Weighted dominant share of what is used.
    share: Share,
    fault: Option<String>,
    line: Vec<Pod<'a>>,
    /// Index into `line` of the first pod not judged yet.
    next: usize,
}

struct Pod<'a> {
    pod: &'a PendingPod,
    asks: Range<usize>,
    /// Set when nothing that happens in a pass can let it go.
    hopeless: Option<WaitReason>,
}

/// A tenant's candidate in the heap; the smallest goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    beyond: bool,
    share: Share,
    created_ms: u64,
    uid: &'a str,
    tenant: usize,
    pod: usize,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(input: &'a ReleaseInput, bounded_by_capacity: bool) -> Self {
        let resources = resource_names(input);
        let index: BTreeMap<&str, usize> = resources.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let total = dense(&resources, &input.total);
        let ceiling = ceiling(input, &resources, &total);
        let budget = if bounded_by_capacity { budget(input, &resources, &total) } else { vec![None; resources.len()] };
        let mut asks = Vec::new();
        let mut tenants: Vec<Tenant<'a>> = input.tenants.iter().map(|tenant| Tenant::new(tenant, &resources)).collect();
        // The whole tenant decides among equal names, which are faulty anyway: only the names are told.
        tenants.sort_by_key(|tenant| &tenant.input.name);
        mark_faults(&mut tenants);
        for tenant in &mut tenants {
            tenant.line_up(&index, &ceiling, &resources, &mut asks);
            tenant.share = tenant.dominant_share(&total);
        }
        drop_twins(&mut tenants);
        let mut pass = Self { resources, total, budget, asks, tenants, plan: ReleasePlan::default() };
        pass.entitle();
        pass
    }

    pub(crate) fn run(mut self, max_releases: usize) -> ReleasePlan {
        let mut heap = BinaryHeap::with_capacity(self.tenants.len());
        for tenant in 0..self.tenants.len() {
            heap.extend(self.candidate(tenant).map(Reverse));
        }
        while self.plan.release.len() < max_releases {
            let Some(Reverse(key)) = heap.pop() else { break };
            // Others may have taken the capacity since it became the candidate; its tenant's limits have not changed.
            if self.fits_capacity(&self.tenants[key.tenant].line[key.pod].asks) {
                self.release(&key);
            } else {
                self.wait(key.tenant, key.pod, WaitReason::WaitingForFairShareTurn);
            }
            heap.extend(self.candidate(key.tenant).map(Reverse));
        }
        for Reverse(key) in heap.into_vec() {
            self.tenants[key.tenant].next = key.pod;
        }
        for tenant in 0..self.tenants.len() {
            self.wait_for_turn(tenant);
        }
        // Both groups of a tenant were pushed in its order, but at different times.
        self.in_order()
    }

    /// Demand is what is held and what is waited for, without the hopeless.
    fn entitle(&mut self) {
        let mut demand: Vec<Vec<u64>> = self.tenants.iter().map(|tenant| tenant.used.clone()).collect();
        for (tenant, demand) in self.tenants.iter().zip(&mut demand) {
            for pod in tenant.line.iter().filter(|pod| pod.hopeless.is_none()) {
                for &(resource, amount) in &self.asks[pod.asks.clone()] {
                    demand[resource] = demand[resource].saturating_add(amount);
                }
            }
        }
        let weights: Vec<u64> = self.tenants.iter().map(|t| if t.fault.is_some() { 0 } else { t.weight }).collect();
        for (resource, name) in self.resources.iter().enumerate() {
            let demand: Vec<u64> = self
                .tenants
                .iter()
                .zip(&demand)
                .map(|(tenant, demand)| capped_demand(name, tenant.hard[resource], demand[resource]))
                .collect();
            for (tenant, part) in self.tenants.iter_mut().zip(fill(self.total[resource], &weights, &demand)) {
                tenant.entitled[resource] = part;
            }
        }
    }

    /// The tenant's next pod that its limits and the capacity admit now; those before it are told to wait.
    fn candidate(&mut self, index: usize) -> Option<Key<'a>> {
        loop {
            let tenant = &self.tenants[index];
            let pod = tenant.line.get(tenant.next)?;
            let asks = &self.asks[pod.asks.clone()];
            let reason = match &pod.hopeless {
                Some(reason) => Some(reason.clone()),
                None => tenant.refusal(asks, &self.resources).map(|refusal| WaitReason::from_refusal(&refusal)),
            };
            let reason = reason.or_else(|| (!self.fits_capacity(&pod.asks)).then_some(WaitReason::WaitingForFairShareTurn));
            let place = tenant.next;
            let Some(reason) = reason else {
                let key = Key {
                    beyond: asks.iter().any(|&(r, amount)| self.is_beyond(tenant, r, amount)),
                    share: tenant.share_with(asks, &self.total),
                    created_ms: pod.pod.created_ms,
                    uid: &pod.pod.uid,
                    tenant: index,
                    pod: place,
                };
                self.tenants[index].next += 1;
                return Some(key);
            };
            self.tenants[index].next += 1;
            self.wait(index, place, reason);
        }
    }

    /// Concurrency has an entitlement only where the cluster bounds it.
    fn is_beyond(&self, tenant: &Tenant<'_>, resource: usize, amount: u64) -> bool {
        let unbounded = self.total[resource] == 0 && self.resources[resource] == PODS;
        !unbounded && tenant.used[resource].saturating_add(amount) > tenant.entitled[resource]
    }

    fn fits_capacity(&self, asks: &Range<usize>) -> bool {
        self.asks[asks.clone()].iter().all(|&(resource, amount)| self.budget[resource].is_none_or(|left| amount <= left))
    }

    fn release(&mut self, key: &Key<'a>) {
        let tenant = &mut self.tenants[key.tenant];
        let asks = &self.asks[tenant.line[key.pod].asks.clone()];
        tenant.share = tenant.share_with(asks, &self.total);
        for &(resource, amount) in asks {
            tenant.used[resource] = tenant.used[resource].saturating_add(amount);
            self.budget[resource] = self.budget[resource].map(|left| left.saturating_sub(amount));
        }
        self.plan.release.push(Release { tenant: tenant.input.name.clone(), uid: key.uid.to_owned() });
    }

    fn wait(&mut self, tenant: usize, pod: usize, reason: WaitReason) {
        let tenant = &self.tenants[tenant];
        let uid = tenant.line[pod].pod.uid.clone();
        self.plan.waiting.push(Waiting { tenant: tenant.input.name.clone(), uid, reason });
    }

    /// The pass ended before these were judged: they wait for their turn unless the limits refuse them anyway.
    fn wait_for_turn(&mut self, index: usize) {
        for place in self.tenants[index].next..self.tenants[index].line.len() {
            let tenant = &self.tenants[index];
            let pod = &tenant.line[place];
            let reason = pod.hopeless.clone().or_else(|| {
                let refusal = tenant.refusal(&self.asks[pod.asks.clone()], &self.resources)?;
                Some(WaitReason::from_refusal(&refusal))
            });
            self.wait(index, place, reason.unwrap_or(WaitReason::WaitingForFairShareTurn));
        }
    }

    fn in_order(mut self) -> ReleasePlan {
        // Stable: within a tenant the pods were judged in its order.
        self.plan.waiting.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let sound = self.tenants.iter().filter(|tenant| tenant.fault.is_none());
        self.plan.entitled = sound
            .map(|tenant| {
                let parts = self.resources.iter().zip(&tenant.entitled).zip(&self.total);
                let shared = parts.filter(|(_, total)| **total > 0);
                (tenant.input.name.clone(), shared.map(|((name, part), _)| ((*name).to_owned(), *part)).collect())
            })
            .collect();
        self.plan
    }
}

impl<'a> Tenant<'a> {
    fn new(input: &'a TenantInput, resources: &[&str]) -> Self {
        Self {
            input,
            weight: input.weight.min(MAX_WEIGHT),
            used: dense(resources, &input.used),
            hard: resources.iter().map(|name| input.hard.get(*name).copied()).collect(),
            entitled: vec![0; resources.len()],
            share: Share::NONE,
            fault: None,
            line: Vec::new(),
            next: 0,
        }
    }

    fn line_up(&mut self, index: &BTreeMap<&str, usize>, ceiling: &[Option<u64>], resources: &[&str], arena: &mut Vec<Ask>) {
        let mut pods: Vec<&PendingPod> = self.input.pending.iter().collect();
        // The request comes last only to settle the order of twins, of which one is dropped.
        pods.sort_unstable_by(|a, b| {
            let key = |pod: &PendingPod| (Reverse(pod.priority), pod.created_ms);
            key(a).cmp(&key(b)).then_with(|| a.uid.cmp(&b.uid)).then_with(|| a.request.cmp(&b.request))
        });
        self.line.reserve_exact(pods.len());
        for pod in pods {
            let start = arena.len();
            arena.extend(pod.request.iter().filter(|&(_, &amount)| amount > 0).filter_map(|(name, &amount)| Some((*index.get(name.as_str())?, amount))));
            if pod.request.get(PODS).is_none_or(|&count| count == 0) {
                arena.extend(index.get(PODS).map(|&resource| (resource, 1)));
            }
            let asks = start..arena.len();
            let hopeless = self.hopeless(&arena[start..], ceiling, resources);
            self.line.push(Pod { pod, asks, hopeless });
        }
    }

    fn hopeless(&self, asks: &[Ask], ceiling: &[Option<u64>], resources: &[&str]) -> Option<WaitReason> {
        if let Some(fault) = &self.fault {
            return Some(WaitReason::Misconfigured { fault: fault.clone() });
        }
        if let Some(refusal) = self.refusal(asks, resources).filter(|refusal| refusal.never) {
            return Some(WaitReason::from_refusal(&refusal));
        }
        let &(resource, requested) = asks.iter().find(|&&(r, amount)| ceiling[r].is_some_and(|most| amount > most))?;
        Some(WaitReason::WaitingForCapacity { resource: resources[resource].to_owned(), requested })
    }

    /// [`crate::first_refusal`] over dense vectors.
    fn refusal(&self, asks: &[Ask], resources: &[&str]) -> Option<Refusal> {
        let refused = asks.iter().filter(|&&(r, amount)| !admits(self.hard[r], self.used[r], amount));
        let first = refused.min_by_key(|&&(r, amount)| (self.hard[r].is_some_and(|hard| amount <= hard), resources[r] != PODS, r));
        first.map(|&(r, requested)| {
            let hard = self.hard[r].unwrap_or(0);
            Refusal { resource: resources[r].to_owned(), used: self.used[r], hard, requested, never: requested > hard }
        })
    }

    fn dominant_share(&self, total: &[u64]) -> Share {
        let shares = self.used.iter().zip(total).map(|(used, total)| Share::new(*used, *total, self.weight));
        shares.max().unwrap_or(Share::NONE)
    }

    /// Usage only grows within a pass, so only the resources asked for can raise the share.
    fn share_with(&self, asks: &[Ask], total: &[u64]) -> Share {
        let asked = asks.iter().map(|&(r, amount)| Share::new(self.used[r].saturating_add(amount), total[r], self.weight));
        asked.fold(self.share, Share::max)
    }
}

/// All resources of the input, by name.
fn resource_names(input: &ReleaseInput) -> Vec<&str> {
    let mut names: BTreeSet<&str> = BTreeSet::from([PODS]);
    let mut last: Option<&ResourceVector> = None;
    names.extend(input.total.keys().map(String::as_str));
    for tenant in &input.tenants {
        names.extend(tenant.used.keys().chain(tenant.hard.keys()).map(String::as_str));
        for pod in &tenant.pending {
            // Pods of one owner ask for the same: looking at the first is enough.
            if last.is_none_or(|last| !last.keys().eq(pod.request.keys())) {
                names.extend(pod.request.keys().map(String::as_str));
                last = Some(&pod.request);
            }
        }
    }
    names.into_iter().collect()
}

fn dense(resources: &[&str], vector: &ResourceVector) -> Vec<u64> {
    resources.iter().map(|name| vector.get(*name).copied().unwrap_or(0)).collect()
}

fn is_bounded(input: &ReleaseInput, resource: &str) -> bool {
    resource != PODS || input.total.contains_key(PODS)
}

/// total · window / 100, rounded down.
fn window(input: &ReleaseInput, total: u64) -> u64 {
    u64::try_from(u128::from(total) * u128::from(input.window_percent) / 100).unwrap_or(u64::MAX)
}

/// The most that an empty cluster and the window would take.
fn ceiling(input: &ReleaseInput, resources: &[&str], total: &[u64]) -> Vec<Option<u64>> {
    let bounded = resources.iter().zip(total);
    bounded.map(|(name, &total)| is_bounded(input, name).then(|| total.saturating_add(window(input, total)))).collect()
}

/// free + window − unbound.
fn budget(input: &ReleaseInput, resources: &[&str], total: &[u64]) -> Vec<Option<u64>> {
    let of = |vector: &ResourceVector, name: &str| vector.get(name).copied().unwrap_or(0);
    let bounded = resources.iter().zip(total);
    bounded
        .map(|(name, &total)| {
            let room = of(&input.free, name).saturating_add(window(input, total));
            is_bounded(input, name).then(|| room.saturating_sub(of(&input.unbound, name)))
        })
        .collect()
}

/// A tenant without weight, and all of several tenants of one name.
fn mark_faults(tenants: &mut [Tenant<'_>]) {
    let names: Vec<&str> = tenants.iter().map(|tenant| tenant.input.name.as_str()).collect();
    let twice: BTreeSet<&str> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    for tenant in tenants {
        let name = tenant.input.name.as_str();
        if twice.contains(name) {
            tenant.fault = Some(format!("several tenants are named {name}: rename all but one"));
        } else if tenant.weight == 0 {
            tenant.fault = Some(format!("tenant {name} has weight 0: set spec.weight to 1 or more"));
        }
    }
}

/// A pod waits once, however often it is listed: the first in order of tenant, then of the tenant's line, stays.
fn drop_twins(tenants: &mut [Tenant<'_>]) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for tenant in tenants {
        tenant.line.retain(|pod| seen.insert(&pod.pod.uid));
    }
}
