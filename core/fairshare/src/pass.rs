//! One pass over the waiting pods: names become dense indices once, then every decision is a few integer operations.
//!
//! Within a pass usage only grows and capacity only shrinks, so a pod that was refused once stays refused: each pod is
//! looked at once, and a heap over the tenants' candidates yields the next release. A second heap per resource finds the
//! candidates that no longer fit when capacity has shrunk.
use crate::entitlement::{MAX_WEIGHT, capped_demand, fill};
use crate::limit::{PODS, Refusal, ResourceVector, admits};
use crate::order::{PendingPod, Release, ReleaseInput, ReleasePlan, TenantInput, Waiting};
use crate::reason::WaitReason;
use crate::share::Share;
use foldhash::fast::FixedState;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
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
    candidates: BinaryHeap<Reverse<Key<'a>>>,
    /// Per resource bounded by capacity, what the candidates ask for, the most first.
    largest: Vec<BinaryHeap<(u64, Place)>>,
    release: Vec<Release>,
}

/// A pod by dense indices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    tenant: usize,
    pod: usize,
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
    /// Index into `line` of the first pod not looked at yet.
    next: usize,
    /// Most releases that are left to it in this pass.
    room: usize,
    /// Index of the pod that stands for the tenant: entries of other pods in the heaps are out of date.
    candidate: Option<usize>,
}

struct Pod<'a> {
    pod: &'a PendingPod,
    asks: Range<usize>,
    /// Set when nothing that happens in a pass can let it go.
    hopeless: Option<Box<WaitReason>>,
    released: bool,
}

/// A tenant's candidate in the heap; the smallest goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    beyond: bool,
    share: Share,
    created_ms: u64,
    uid: &'a str,
    place: Place,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(input: &'a ReleaseInput, bounded_by_capacity: bool) -> Self {
        let resources = resource_names(input);
        let mut names = Names::new(&resources);
        let total = dense(&resources, &input.total);
        let ceiling = ceiling(input, &resources, &total);
        let budget = if bounded_by_capacity { budget(input, &resources, &total) } else { vec![None; resources.len()] };
        let mut asks = Vec::new();
        let mut tenants: Vec<Tenant<'a>> = input.tenants.iter().map(|tenant| Tenant::new(tenant, &resources)).collect();
        // Tenants of one name are faulty, but what is told of their pods must not depend on the input's order either.
        let least_uid = |tenant: &Tenant<'a>| tenant.input.pending.iter().map(|pod| &pod.uid).min();
        tenants.sort_by(|a, b| a.input.name.cmp(&b.input.name).then_with(|| least_uid(a).cmp(&least_uid(b))));
        mark_faults(&mut tenants);
        for tenant in &mut tenants {
            tenant.line_up(&mut names, &ceiling, &resources, &mut asks);
            tenant.share = tenant.dominant_share(&total);
        }
        drop_twins(&mut tenants);
        let largest = resources.iter().map(|_| BinaryHeap::new()).collect();
        let candidates = BinaryHeap::with_capacity(tenants.len());
        let mut pass = Self { resources, total, budget, asks, tenants, candidates, largest, release: Vec::new() };
        pass.entitle();
        pass
    }

    pub(crate) fn run(mut self, max_releases: usize, most: &BTreeMap<String, usize>) -> ReleasePlan {
        for tenant in &mut self.tenants {
            tenant.room = most.get(&tenant.input.name).copied().unwrap_or(usize::MAX);
        }
        for tenant in 0..self.tenants.len() {
            self.nominate(tenant);
        }
        while self.release.len() < max_releases {
            let Some(Reverse(key)) = self.candidates.pop() else { break };
            if self.stands(key.place) {
                self.release(key.place);
                self.withdraw_what_no_longer_fits(key.place);
                self.nominate(key.place.tenant);
            }
        }
        self.finish()
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

    /// The next pod of the tenant that its limits and the capacity admit now stands for it; those passed over wait.
    fn nominate(&mut self, index: usize) {
        loop {
            let tenant = &mut self.tenants[index];
            let place = Place { tenant: index, pod: tenant.next };
            tenant.candidate = None;
            if tenant.room == 0 {
                return;
            }
            tenant.next += 1;
            let tenant = &self.tenants[index];
            let Some(pod) = tenant.line.get(place.pod) else { return };
            let asks = &self.asks[pod.asks.clone()];
            if pod.hopeless.is_some() || !tenant.admits(asks) || !self.fits_capacity(asks) {
                continue;
            }
            self.candidates.push(Reverse(Key {
                beyond: asks.iter().any(|&(resource, amount)| self.is_beyond(tenant, resource, amount)),
                share: tenant.share_with(asks, &self.total),
                created_ms: pod.pod.created_ms,
                uid: &pod.pod.uid,
                place,
            }));
            for &(resource, amount) in asks.iter().filter(|(resource, _)| self.budget[*resource].is_some()) {
                self.largest[resource].push((amount, place));
            }
            self.tenants[index].candidate = Some(place.pod);
            return;
        }
    }

    fn stands(&self, place: Place) -> bool {
        self.tenants[place.tenant].candidate == Some(place.pod)
    }

    /// Concurrency has an entitlement only where the cluster bounds it.
    fn is_beyond(&self, tenant: &Tenant<'_>, resource: usize, amount: u64) -> bool {
        let unbounded = self.total[resource] == 0 && self.resources[resource] == PODS;
        !unbounded && tenant.used[resource].saturating_add(amount) > tenant.entitled[resource]
    }

    fn fits_capacity(&self, asks: &[Ask]) -> bool {
        asks.iter().all(|&(resource, amount)| self.budget[resource].is_none_or(|left| amount <= left))
    }

    fn release(&mut self, place: Place) {
        let tenant = &mut self.tenants[place.tenant];
        let pod = &mut tenant.line[place.pod];
        pod.released = true;
        tenant.room -= 1;
        self.release.push(Release { tenant: tenant.input.name.clone(), uid: pod.pod.uid.clone() });
        let asks = &self.asks[pod.asks.clone()];
        tenant.share = tenant.share_with(asks, &self.total);
        for &(resource, amount) in asks {
            tenant.used[resource] = tenant.used[resource].saturating_add(amount);
            self.budget[resource] = self.budget[resource].map(|left| left.saturating_sub(amount));
        }
    }

    /// The release took capacity that candidates of other tenants counted on: the next of their pods stand for them.
    fn withdraw_what_no_longer_fits(&mut self, released: Place) {
        let asks = self.tenants[released.tenant].line[released.pod].asks.clone();
        for at in asks {
            let (resource, _) = self.asks[at];
            let Some(left) = self.budget[resource] else { continue };
            while self.largest[resource].peek().is_some_and(|(amount, _)| *amount > left) {
                let Some((_, place)) = self.largest[resource].pop() else { break };
                if self.stands(place) && place != released {
                    self.nominate(place.tenant);
                }
            }
        }
    }

    /// The pods that were not released, with what is in their way now that all others have gone.
    fn finish(self) -> ReleasePlan {
        let mut plan = ReleasePlan { release: self.release, ..ReleasePlan::default() };
        for tenant in self.tenants {
            let name = &tenant.input.name;
            for pod in tenant.line.iter().filter(|pod| !pod.released) {
                let asks = &self.asks[pod.asks.clone()];
                let refused = || tenant.refusal(asks, &self.resources).as_ref().map(WaitReason::from_refusal);
                let reason =
                    pod.hopeless.as_deref().cloned().or_else(refused).unwrap_or(WaitReason::WaitingForFairShareTurn);
                plan.waiting.push(Waiting { tenant: name.clone(), uid: pod.pod.uid.clone(), reason });
            }
            if tenant.fault.is_none() {
                let parts = self.resources.iter().zip(&tenant.entitled).zip(&self.total);
                let shared =
                    parts.filter(|(_, total)| **total > 0).map(|((name, part), _)| ((*name).to_owned(), *part));
                plan.entitled.insert(name.clone(), shared.collect());
            }
        }
        plan
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
            room: usize::MAX,
            candidate: None,
        }
    }

    fn line_up(&mut self, names: &mut Names<'a>, ceiling: &[Option<u64>], resources: &[&str], arena: &mut Vec<Ask>) {
        let mut pods: Vec<&PendingPod> = self.input.pending.iter().collect();
        // The request comes last only to settle the order of twins, of which one is dropped.
        pods.sort_unstable_by(|a, b| {
            let key = |pod: &PendingPod| (Reverse(pod.priority), pod.created_ms);
            key(a).cmp(&key(b)).then_with(|| a.uid.cmp(&b.uid)).then_with(|| a.request.cmp(&b.request))
        });
        self.line.reserve_exact(pods.len());
        for pod in pods {
            let start = arena.len();
            names.ask(&pod.request, arena);
            let asks = start..arena.len();
            let hopeless = self.hopeless(&arena[start..], ceiling, resources).map(Box::new);
            self.line.push(Pod { pod, asks, hopeless, released: false });
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

    fn admits(&self, asks: &[Ask]) -> bool {
        asks.iter().all(|&(r, amount)| admits(self.hard[r], self.used[r], amount))
    }

    /// [`crate::first_refusal`] over dense vectors.
    fn refusal(&self, asks: &[Ask], resources: &[&str]) -> Option<Refusal> {
        let refused = asks.iter().filter(|&&(r, amount)| !admits(self.hard[r], self.used[r], amount));
        let first = refused
            .min_by_key(|&&(r, amount)| (self.hard[r].is_some_and(|hard| amount <= hard), resources[r] != PODS, r));
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
        let asked =
            asks.iter().map(|&(r, amount)| Share::new(self.used[r].saturating_add(amount), total[r], self.weight));
        asked.fold(self.share, Share::max)
    }
}

/// Names to dense indices. Pods of one owner ask for the same resources one after the other, so the last answer is tried
/// before the map.
struct Names<'a> {
    index: BTreeMap<&'a str, usize>,
    last: Vec<(&'a str, usize)>,
    pods: usize,
}

impl<'a> Names<'a> {
    fn new(resources: &[&'a str]) -> Self {
        let index: BTreeMap<&str, usize> = resources.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let pods = index.get(PODS).copied().unwrap_or(0);
        Self { index, last: Vec::new(), pods }
    }

    /// Appends what `request` asks for, and the one pod that it is.
    fn ask(&mut self, request: &'a ResourceVector, arena: &mut Vec<Ask>) {
        if !request.keys().map(String::as_str).eq(self.last.iter().map(|(name, _)| *name)) {
            let index = &self.index;
            self.last = request.keys().filter_map(|name| Some((name.as_str(), *index.get(name.as_str())?))).collect();
        }
        let start = arena.len();
        let asks = self.last.iter().zip(request.values()).map(|((_, resource), amount)| (*resource, *amount));
        arena.extend(asks.filter(|(_, amount)| *amount > 0));
        if !arena[start..].iter().any(|(resource, _)| *resource == self.pods) {
            arena.push((self.pods, 1));
        }
    }
}

/// All resources of the input, by name; [`PODS`] is always among them.
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
    let pods = tenants.iter().map(|tenant| tenant.line.len()).sum();
    let mut seen: HashSet<&str, FixedState> = HashSet::with_capacity_and_hasher(pods, FixedState::default());
    for tenant in tenants {
        tenant.line.retain(|pod| seen.insert(&pod.pod.uid));
    }
}
