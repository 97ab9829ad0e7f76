//! Laws of the order of release, and an oracle that decides one pod at a time without any of the plan's shortcuts.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]
use fairlead_fairshare::{
    PODS, PendingPod, Release, ReleaseInput, ReleasePlan, ResourceVector, TenantDemand, TenantInput, WaitReason,
    admits, entitlements, first_refusal, line, plan,
};
use proptest::prelude::*;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

fn add(to: &mut ResourceVector, more: &ResourceVector) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn of(vector: &ResourceVector, name: &str) -> u64 {
    vector.get(name).copied().unwrap_or(0)
}

/// The request with its one pod.
fn asks(pod: &PendingPod) -> ResourceVector {
    let mut request = pod.request.clone();
    request.insert(PODS.to_owned(), 1);
    request.retain(|_, amount| *amount > 0);
    request
}

fn vector() -> impl Strategy<Value = ResourceVector> {
    prop::collection::btree_map(
        prop::sample::select(vec!["cpu".to_owned(), "gpu".to_owned(), "memory".to_owned()]),
        0u64..9,
        0..4,
    )
}

fn inputs() -> impl Strategy<Value = ReleaseInput> {
    let pod = (vector(), -1i32..2, 0u64..4);
    let limits = (vector(), prop::option::of(0u64..6));
    let tenant = (1u64..5, limits, vector(), 0u64..3, prop::collection::vec(pod, 0..6));
    let tenants = prop::collection::btree_map("[a-e]", tenant, 0..5);
    (tenants, vector(), prop::option::of(0u64..20), vector(), vector(), 0u32..150, 0usize..20).prop_map(
        |(tenants, mut total, pods, mut free, unbound, window_percent, max_releases)| {
            // Of a size that lets several pods in.
            total.values_mut().for_each(|amount| *amount *= 4);
            free.values_mut().for_each(|amount| *amount *= 2);
            if let Some(pods) = pods {
                total.insert(PODS.to_owned(), pods);
                free.insert(PODS.to_owned(), pods / 2);
            }
            let tenants = tenants.into_iter().map(|(name, (weight, (mut hard, slots), mut used, held, pods))| {
                hard.values_mut().for_each(|amount| *amount *= 3);
                hard.extend(slots.map(|slots| (PODS.to_owned(), slots)));
                used.insert(PODS.to_owned(), held);
                let pending = pods.into_iter().enumerate().map(|(i, (request, priority, created_ms))| PendingPod {
                    uid: format!("{i}{name}"),
                    request,
                    priority,
                    created_ms,
                });
                TenantInput { weight, hard, used, pending: pending.collect(), name }
            });
            ReleaseInput { tenants: tenants.collect(), total, free, unbound, window_percent, max_releases }
        },
    )
}

/// May be released when capacity is all that counts.
fn bounded(input: &ReleaseInput, name: &str) -> bool {
    name != PODS || input.total.contains_key(PODS)
}

fn window(input: &ReleaseInput, name: &str) -> u64 {
    of(&input.total, name) * u64::from(input.window_percent) / 100
}

fn fits(input: &ReleaseInput, unbound: &ResourceVector, request: &ResourceVector) -> bool {
    let fits = |name: &str, amount: u64| of(unbound, name) + amount <= of(&input.free, name) + window(input, name);
    request.iter().all(|(name, &amount)| !bounded(input, name) || fits(name, amount))
}

fn can_ever_run(input: &ReleaseInput, tenant: &TenantInput, pod: &PendingPod) -> bool {
    asks(pod).iter().all(|(name, &amount)| {
        let within = tenant.hard.get(name).is_none_or(|&hard| amount <= hard);
        within && (!bounded(input, name) || amount <= of(&input.total, name) + window(input, name))
    })
}

fn entitled(input: &ReleaseInput) -> BTreeMap<String, ResourceVector> {
    let demands: Vec<TenantDemand> = input
        .tenants
        .iter()
        .map(|tenant| {
            let mut demand = tenant.used.clone();
            tenant
                .pending
                .iter()
                .filter(|pod| can_ever_run(input, tenant, pod))
                .for_each(|pod| add(&mut demand, &asks(pod)));
            TenantDemand { name: tenant.name.clone(), weight: tenant.weight, hard: tenant.hard.clone(), demand }
        })
        .collect();
    entitlements(&input.total, &demands)
}

/// a/b of both: small numbers, so plain cross-multiplication is exact.
fn compare_shares(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

fn weighted_share(total: &ResourceVector, used: &ResourceVector, weight: u64) -> (u64, u64) {
    let shares = total.iter().filter(|(_, total)| **total > 0).map(|(name, &total)| (of(used, name), total * weight));
    shares.max_by(|a, b| compare_shares(*a, *b)).unwrap_or((0, 1))
}

/// One decision at a time, everything computed anew each time.
fn oracle(input: &ReleaseInput) -> Vec<Release> {
    let entitled = entitled(input);
    let (mut input, mut unbound, mut released) = (input.clone(), input.unbound.clone(), Vec::new());
    while released.len() < input.max_releases {
        let mut candidates = Vec::new();
        for (index, tenant) in input.tenants.iter().enumerate() {
            let admissible = tenant.pending.iter().filter(|pod| {
                can_ever_run(&input, tenant, pod)
                    && first_refusal(&tenant.hard, &tenant.used, &asks(pod)).is_none()
                    && fits(&input, &unbound, &asks(pod))
            });
            let Some(pod) = admissible.min_by_key(|pod| (Reverse(pod.priority), pod.created_ms, pod.uid.clone()))
            else {
                continue;
            };
            let mut after = tenant.used.clone();
            add(&mut after, &asks(pod));
            let beyond = asks(pod)
                .keys()
                .any(|name| bounded(&input, name) && of(&after, name) > of(&entitled[&tenant.name], name));
            let share = weighted_share(&input.total, &after, tenant.weight);
            candidates.push((beyond, share, pod.created_ms, pod.uid.clone(), index));
        }
        let first = candidates
            .into_iter()
            .min_by(|a, b| a.0.cmp(&b.0).then(compare_shares(a.1, b.1)).then_with(|| (a.2, &a.3).cmp(&(b.2, &b.3))));
        let Some((.., uid, index)) = first else { break };
        let tenant = &mut input.tenants[index];
        let at = tenant.pending.iter().position(|pod| pod.uid == uid).unwrap();
        let pod = tenant.pending.remove(at);
        add(&mut tenant.used, &asks(&pod));
        add(&mut unbound, &asks(&pod));
        released.push(Release { tenant: tenant.name.clone(), uid });
    }
    released
}

fn apply(input: &mut ReleaseInput, plan: &ReleasePlan) {
    for release in &plan.release {
        let tenant = input.tenants.iter_mut().find(|tenant| tenant.name == release.tenant).unwrap();
        let at = tenant.pending.iter().position(|pod| pod.uid == release.uid).unwrap();
        let pod = tenant.pending.remove(at);
        add(&mut tenant.used, &asks(&pod));
        add(&mut input.unbound, &asks(&pod));
    }
}

fn shuffled(input: &ReleaseInput) -> ReleaseInput {
    let mut other = input.clone();
    other.tenants.reverse();
    for tenant in &mut other.tenants {
        tenant.pending.reverse();
        let middle = tenant.pending.len() / 2;
        tenant.pending.rotate_left(middle);
    }
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_plan_is_the_oracle(input in inputs()) {
        prop_assert_eq!(plan(&input).release, oracle(&input));
    }

    #[test]
    fn the_order_of_the_input_never_matters(input in inputs()) {
        prop_assert_eq!(plan(&shuffled(&input)), plan(&input));
        prop_assert_eq!(line(&shuffled(&input)), line(&input));
    }

    #[test]
    fn the_published_entitlement_is_the_one_decided_by(input in inputs()) {
        let expected: BTreeMap<_, ResourceVector> = entitled(&input)
            .into_iter()
            .map(|(name, parts)| (name, parts.into_iter().filter(|(resource, _)| of(&input.total, resource) > 0).collect()))
            .collect();
        prop_assert_eq!(plan(&input).entitled, expected);
    }

    #[test]
    fn nobody_passes_a_hard_limit_nor_the_window(input in inputs()) {
        let mut after = input.clone();
        apply(&mut after, &plan(&input));
        for (tenant, before) in after.tenants.iter().zip(&input.tenants) {
            for (name, &hard) in &tenant.hard {
                prop_assert!(of(&tenant.used, name) <= hard.max(of(&before.used, name)));
            }
        }
        for (name, &amount) in &after.unbound {
            let most = of(&input.free, name) + window(&input, name);
            prop_assert!(!bounded(&input, name) || amount <= most.max(of(&input.unbound, name)));
        }
    }

    #[test]
    fn every_pod_goes_or_has_an_honest_reason(input in inputs()) {
        let plan = plan(&input);
        let mut after = input.clone();
        apply(&mut after, &plan);
        let left: BTreeSet<_> = after.tenants.iter().flat_map(|t| t.pending.iter().map(|pod| pod.uid.as_str())).collect();
        prop_assert_eq!(&left, &plan.waiting.iter().map(|waiting| waiting.uid.as_str()).collect::<BTreeSet<_>>());
        prop_assert_eq!(left.len(), plan.waiting.len());
        for waiting in &plan.waiting {
            let tenant = after.tenants.iter().find(|tenant| tenant.name == waiting.tenant).unwrap();
            let pod = tenant.pending.iter().find(|pod| pod.uid == waiting.uid).unwrap();
            let request = asks(pod);
            let refusal = first_refusal(&tenant.hard, &tenant.used, &request);
            match &waiting.reason {
                WaitReason::ExceedsHardLimit { resource, .. } => prop_assert!(!admits(tenant.hard.get(resource).copied(), 0, request[resource])),
                WaitReason::WaitingForTenantQuota { .. } | WaitReason::WaitingForConcurrencySlot { .. } => {
                    let expected = refusal.as_ref().map(WaitReason::from_refusal);
                    prop_assert_eq!(Some(&waiting.reason), expected.as_ref());
                }
                WaitReason::WaitingForCapacity { resource, .. } => prop_assert!(request[resource] > of(&input.total, resource)),
                // Work-conserving: what fits goes, unless the plan is full.
                WaitReason::WaitingForFairShareTurn => prop_assert!(
                    refusal.is_none() && (!fits(&input, &after.unbound, &request) || plan.release.len() == input.max_releases)
                ),
                WaitReason::ReleaseStalled | WaitReason::ReleaseRefused { .. } | WaitReason::Misconfigured { .. } => {
                    prop_assert!(false, "not for a plan to say");
                }
            }
        }
    }

    #[test]
    fn every_admissible_pod_is_released_in_bounded_passes(mut input in inputs()) {
        // The cluster is empty before each pass: whatever was released has ended.
        input.max_releases = input.max_releases.max(1);
        let pods: usize = input.tenants.iter().map(|tenant| tenant.pending.len()).sum();
        for _ in 0..=pods {
            input.tenants.iter_mut().for_each(|tenant| tenant.used.clear());
            input.unbound.clear();
            input.free = input.total.clone();
            let plan = plan(&input);
            apply(&mut input, &plan);
        }
        for tenant in &input.tenants {
            prop_assert!(!tenant.pending.iter().any(|pod| can_ever_run(&input, tenant, pod)));
        }
    }

    #[test]
    fn the_line_is_the_order_of_passes_of_one(input in inputs()) {
        // With room for everything the line is what one release after the other gives.
        let mut roomy = input.clone();
        roomy.window_percent = 0;
        let needed: BTreeMap<String, u64> = roomy.tenants.iter().flat_map(|t| &t.pending).fold(roomy.unbound.clone(), |mut sum, pod| {
            add(&mut sum, &asks(pod));
            sum
        });
        roomy.free = needed;
        roomy.max_releases = usize::MAX;
        prop_assert_eq!(line(&roomy), plan(&roomy).release);
    }

    #[test]
    fn three_to_one_within_one_pod(a in 1u64..4, b in 1u64..4, cpu in 1u64..5, room in 1u64..60, from in 0u64..5) {
        // Both wait all the time with equal pods, and start from the same share per weight.
        let tenant = |name: &str, weight: u64| TenantInput {
            name: name.into(),
            weight,
            used: ResourceVector::from([("cpu".into(), from * weight * cpu)]),
            pending: (0..80).map(|i| PendingPod {
                uid: format!("{i:02}{name}"),
                request: ResourceVector::from([("cpu".into(), cpu)]),
                priority: 0,
                created_ms: i,
            }).collect(),
            ..TenantInput::default()
        };
        let input = ReleaseInput {
            tenants: vec![tenant("a", a), tenant("b", b)],
            total: ResourceVector::from([("cpu".into(), room * cpu)]),
            free: ResourceVector::from([("cpu".into(), room * cpu)]),
            window_percent: 20,
            max_releases: usize::MAX,
            ..ReleaseInput::default()
        };
        let mut released = (0, 0);
        for release in plan(&input).release {
            if release.tenant == "a" { released.0 += 1 } else { released.1 += 1 }
            // |a − (a + b) · weight share| ≤ 1 pod, over the common divisor.
            let error = (released.0 * b).abs_diff(released.1 * a);
            prop_assert!(error <= a + b, "{released:?} of {a}:{b}");
        }
    }
}
