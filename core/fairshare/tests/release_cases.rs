//! What people ask about the order of release, one case each.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]
use fairlead_fairshare::{
    PODS, PendingPod, ReleaseInput, ReleasePlan, ResourceVector, TenantInput, WaitReason, line, plan, plan_within,
};

fn cpu(amount: u64) -> ResourceVector {
    ResourceVector::from([("cpu".to_owned(), amount)])
}

fn pod(uid: &str, amount: u64, priority: i32, created_ms: u64) -> PendingPod {
    PendingPod { uid: uid.to_owned(), request: cpu(amount), priority, created_ms }
}

fn tenant(name: &str, weight: u64, pending: Vec<PendingPod>) -> TenantInput {
    TenantInput { name: name.to_owned(), weight, pending, ..TenantInput::default() }
}

fn cluster(amount: u64, tenants: Vec<TenantInput>) -> ReleaseInput {
    ReleaseInput { tenants, total: cpu(amount), free: cpu(amount), max_releases: usize::MAX, ..ReleaseInput::default() }
}

fn released(plan: &ReleasePlan) -> Vec<&str> {
    plan.release.iter().map(|release| release.uid.as_str()).collect()
}

fn reason<'a>(plan: &'a ReleasePlan, uid: &str) -> &'a WaitReason {
    &plan.waiting.iter().find(|waiting| waiting.uid == uid).unwrap().reason
}

#[test]
fn within_entitlement_goes_before_beyond() {
    // b holds more than its half already; a's pod is larger than b's, and still goes first.
    let mut b = tenant("b", 1, vec![pod("b1", 1, 0, 0)]);
    b.used = cpu(60);
    let mut a = tenant("a", 1, vec![pod("a1", 45, 0, 9)]);
    a.used = cpu(0);
    let mut input = cluster(100, vec![b, a]);
    input.free = cpu(45);
    let plan = plan(&input);
    assert_eq!(released(&plan), ["a1"]);
    assert_eq!(reason(&plan, "b1"), &WaitReason::WaitingForFairShareTurn);
    assert_eq!(line(&input).iter().map(|r| r.uid.as_str()).collect::<Vec<_>>(), ["a1", "b1"]);
}

#[test]
fn priority_counts_inside_the_tenant_only() {
    let a = tenant("a", 1, vec![pod("a-low", 1, 0, 0), pod("a-high", 5, 1000, 9)]);
    let b = tenant("b", 1, vec![pod("b1", 1, 0, 5)]);
    assert_eq!(released(&plan(&cluster(100, vec![a, b]))), ["b1", "a-high", "a-low"]);
}

#[test]
fn a_pod_that_does_not_fit_blocks_nobody() {
    let mut a = tenant("a", 3, vec![pod("large", 8, 0, 0), pod("small", 2, 0, 1)]);
    a.hard = cpu(10);
    a.used = cpu(4);
    let b = tenant("b", 1, vec![pod("b1", 4, 0, 2)]);
    let plan = plan(&cluster(100, vec![a, b]));
    assert_eq!(released(&plan), ["small", "b1"]);
    assert_eq!(reason(&plan, "large").as_str(), "WaitingForTenantQuota");
}

#[test]
fn the_window_lets_out_more_than_is_free_and_then_stops() {
    let a = tenant("a", 1, (0..10).map(|i| pod(&format!("p{i}"), 10, 0, i)).collect());
    let mut input = cluster(100, vec![a]);
    input.free = cpu(15);
    input.window_percent = 20;
    assert_eq!(plan(&input).release.len(), 3, "15 free and 20 of the window");
    input.unbound = cpu(30);
    assert_eq!(plan(&input).release.len(), 0);
}

#[test]
fn reasons_name_what_is_in_the_way() {
    let mut a = tenant("a", 1, vec![pod("never", 50, 0, 0), pod("vast", 500, 1, 0)]);
    a.hard = cpu(20);
    let mut b = tenant("b", 1, vec![pod("slot", 1, 0, 0)]);
    b.hard = ResourceVector::from([(PODS.to_owned(), 2)]);
    b.used = ResourceVector::from([(PODS.to_owned(), 2)]);
    let c = tenant("c", 1, vec![pod("huge", 500, 0, 0)]);
    let d = tenant("d", 0, vec![pod("idle", 1, 0, 0)]);
    let plan = plan(&cluster(100, vec![a, b, c, d]));
    assert_eq!(reason(&plan, "never").as_str(), "ExceedsHardLimit");
    assert_eq!(reason(&plan, "vast").as_str(), "ExceedsHardLimit", "the limit is told before the capacity");
    assert_eq!(reason(&plan, "slot"), &WaitReason::WaitingForConcurrencySlot { hard: 2 });
    assert_eq!(reason(&plan, "huge").as_str(), "WaitingForCapacity");
    assert!(reason(&plan, "idle").message().contains("spec.weight"), "{}", reason(&plan, "idle").message());
    assert!(released(&plan).is_empty());
}

#[test]
fn what_is_not_in_the_cluster_is_not_released_but_pods_need_no_total() {
    let mut request = cpu(1);
    request.insert("example.com/fpga".to_owned(), 1);
    let fpga = PendingPod { uid: "fpga".to_owned(), request, priority: 0, created_ms: 0 };
    let plan = plan(&cluster(4, vec![tenant("a", 1, vec![fpga, pod("plain", 1, 0, 1)])]));
    assert_eq!(released(&plan), ["plain"]);
    assert!(
        matches!(reason(&plan, "fpga"), WaitReason::WaitingForCapacity { resource, .. } if resource == "example.com/fpga")
    );
}

#[test]
fn a_lost_resource_does_not_starve_its_holder() {
    // The nodes with devices are gone; that a's pods still hold them says nothing about CPUs.
    let mut a = tenant("a", 1, vec![pod("a1", 1, 0, 0)]);
    a.used = ResourceVector::from([("gpu".to_owned(), 8)]);
    let b = tenant("b", 1, vec![pod("b1", 1, 0, 1)]);
    assert_eq!(released(&plan(&cluster(4, vec![a, b]))), ["a1", "b1"]);
}

#[test]
fn twins_are_told_and_counted_once() {
    let twins = vec![tenant("a", 1, vec![pod("x", 1, 0, 0)]), tenant("a", 2, vec![pod("y", 1, 0, 0)])];
    let faulty = plan(&cluster(4, twins));
    assert_eq!(reason(&faulty, "x").as_str(), "Misconfigured");
    assert_eq!(reason(&faulty, "y").as_str(), "Misconfigured");
    let doubled = plan(&cluster(4, vec![tenant("a", 1, vec![pod("x", 1, 0, 0), pod("x", 1, 0, 0)])]));
    assert_eq!(released(&doubled), ["x"]);
    assert!(doubled.waiting.is_empty());
}

#[test]
fn a_tenant_may_be_held_to_a_number_of_releases() {
    let waits = |name: &str| (0..4).map(|i| pod(&format!("{name}{i}"), 1, 0, i)).collect::<Vec<_>>();
    let input = cluster(100, vec![tenant("a", 1, waits("a")), tenant("b", 1, waits("b"))]);
    let plan = plan_within(&input, &[("a".to_owned(), 1)].into());
    let of = |name: &str| plan.release.iter().filter(|release| release.tenant == name).count();
    assert_eq!((of("a"), of("b")), (1, 4));
    assert_eq!(reason(&plan, "a3"), &WaitReason::WaitingForFairShareTurn);
}
