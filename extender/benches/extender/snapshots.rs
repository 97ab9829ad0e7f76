//! From one event to the snapshot with it.
use fairlead_cluster::{Change, Event, Model};
use serde_json::{Value, json};

use crate::support::world::{FLEET, World, carried, node_name, placement, pod, reservation};
use crate::{Wanted, measure};

/// 5,000 nodes in use, and 1,000 tenants that all ask for more than there is.
fn model() -> Model {
    let mut world = World::in_use(5000);
    for index in 0..1_000 {
        let name = format!("tenant-{index:04}");
        world.quotas.push(json!({ "metadata": { "name": name, "uid": name }, "spec": { "namespaces": [name], "weight": 1 + index % 7 } }));
        for waiting in 0..30 {
            world.pods.push(gated(&name, &format!("{name}-{waiting}"), "64"));
        }
    }
    world.model()
}

fn gated(tenant: &str, name: &str, cpu: &str) -> Value {
    let mut gated = pod(name, cpu);
    gated["metadata"]["namespace"] = json!(tenant);
    gated["spec"]["schedulingGates"] = json!([{ "name": "fairlead.dev/quota" }]);
    gated
}

pub(crate) fn after_one_event(wanted: &Wanted) {
    if !wanted.wants("snapshot") {
        return;
    }
    let mut model = model();
    let mut held = model.snapshot();
    let typed = |value| Event::Pods(Change::Apply(serde_json::from_value(value).unwrap()));
    let mut run = |kind: &str, event: &dyn Fn(u32) -> Event| {
        let name = format!("snapshot of 5000 nodes after {kind}");
        measure(
            &name,
            2_000,
            |number| event(u32::try_from(number).unwrap()),
            |event| {
                model.apply(event);
                held = model.snapshot();
            },
        );
    };
    run("a pod bound in the shared pool", &|number| {
        let mut bound = pod(&format!("new-{number}"), "500m");
        bound["spec"]["nodeName"] = json!(node_name(number * 7 % 5000));
        typed(bound)
    });
    run("a pod bound with CPUs of its own", &|number| {
        let mut bound = pod(&format!("own-{number}"), "2");
        bound["spec"]["nodeName"] = json!(node_name(number * 7 % 5000));
        bound["metadata"]["annotations"] = json!({ "fairlead.dev/placement": carried("0") });
        typed(bound)
    });
    run("a status change of a bound pod", &|number| {
        let mut seen = pod(&format!("own-{}", number % 1_000), "2");
        seen["spec"]["nodeName"] = json!(node_name(number % 1_000 * 7));
        seen["metadata"]["annotations"] = json!({ "fairlead.dev/placement": carried("0") });
        seen["metadata"]["resourceVersion"] = json!((100 + number).to_string());
        typed(seen)
    });
    run("a pod of a tenant created", &|number| {
        let tenant = format!("tenant-{:04}", number % 1_000);
        typed(gated(&tenant, &format!("more-{number}"), "4"))
    });
    run("a reservation written", &|number| {
        let index = number * 7 % 5000;
        let shape = FLEET[index as usize % FLEET.len()];
        let mut written = placement(&node_name(index), &[reservation(shape, &format!("res-{number}"), 1, 2)]);
        written["metadata"]["generation"] = json!(2);
        Event::Placements(Change::Apply(serde_json::from_value(written).unwrap()))
    });
}
