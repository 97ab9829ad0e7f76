//! Filter and prioritize.
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use fairlead_cluster::{Change, Event, Model, Snapshot};
use fairlead_extender::answer::{Reply, filter, prioritize};
use serde_json::{Value, json};

use crate::support::world::{World, args, carried, node_name, pod};
use crate::{Wanted, allocated, live_mib, measure, resident_kib, row};

const NODES: u32 = 5000;

type Answer = fn(&Snapshot, &[u8]) -> Reply;
const VERBS: [(&str, Answer); 2] = [("filter", filter), ("prioritize", prioritize)];

/// What is asked. Every pod has another name and UID; between two calls one pod comes to some node or goes from there.
#[derive(Clone, Copy)]
enum Kind {
    /// Four CPUs of its own, the same for all pods.
    Exclusive,
    /// The same, each pod of another size: nobody asked for that before.
    New,
    /// Twenty sizes in turn.
    Sizes,
    /// Near a device, beside one pool and away from another.
    Neighbours,
    Decide,
    Shared,
}

const KINDS: [(&str, Kind); 6] = [
    ("exclusive", Kind::Exclusive),
    ("exclusive, of 20 sizes", Kind::Sizes),
    ("exclusive, near and likes and dislikes", Kind::Neighbours),
    ("exclusive, decide mode", Kind::Decide),
    ("exclusive, never asked before", Kind::New),
    ("shared", Kind::Shared),
];

fn asked(kind: Kind, number: usize) -> Value {
    let cpu = match kind {
        Kind::Shared => "500m".to_owned(),
        Kind::Sizes => (2 + number % 20).to_string(),
        _ => "4".to_owned(),
    };
    let mut asked = pod(&format!("asked-{number}"), &cpu);
    match kind {
        Kind::Decide => asked["metadata"]["annotations"] = json!({ "topology.fairlead.dev/mode": "Decide" }),
        Kind::Neighbours => {
            asked["metadata"]["annotations"] = json!({
                "topology.fairlead.dev/near": "10de:*",
                "topology.fairlead.dev/likes": "front",
                "topology.fairlead.dev/dislikes": "batch",
            });
        }
        Kind::New => {
            let amounts = json!({ "cpu": cpu, "memory": (1 << 30) + number });
            asked["spec"]["containers"][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
        }
        Kind::Exclusive | Kind::Sizes | Kind::Shared => {}
    }
    asked
}

/// In no order that a reader could guess: kube-scheduler goes round the zones, with many threads.
fn names(count: u32) -> Vec<String> {
    (0..count).map(|index| node_name(index * 2_741 % count * (NODES / count))).collect()
}

fn body(kind: Kind, number: usize, names: &[String]) -> Vec<u8> {
    args(&asked(kind, number), &names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A pod with a core of its own comes to a node, by what its Binding carries, or goes again.
fn one_pod_event(model: &mut Model, number: usize) {
    let mut other = pod(&format!("passing-{}", number / 2), "2");
    other["spec"]["nodeName"] = json!(node_name(u32::try_from(number / 2 * 7).unwrap() % NODES));
    other["metadata"]["annotations"] = json!({ "fairlead.dev/placement": carried("0") });
    let other = serde_json::from_value(other).unwrap();
    model.apply(Event::Pods(if number.is_multiple_of(2) { Change::Apply(other) } else { Change::Delete(other) }));
}

pub(crate) fn in_process(wanted: &Wanted) {
    let before = live_mib();
    let mut model = World::in_use(NODES).model();
    drop(model.snapshot());
    row("memory of model and snapshot, 5000 nodes in use", live_mib() - before, "MiB");
    let mut events = 0;
    for count in [500, NODES] {
        let names = names(count);
        for (kind_name, kind) in KINDS {
            for (verb, answer) in VERBS {
                let name = format!("{verb}, {count} names, {kind_name}");
                if !wanted.wants(&name) {
                    continue;
                }
                let calls = if matches!(kind, Kind::New) { 200 } else { 1_000 };
                let mut fitting = 0;
                let mut prepare = |number: usize| {
                    events += 1;
                    one_pod_event(&mut model, events);
                    (model.snapshot(), body(kind, number, &names))
                };
                // Until it is as warm as it gets.
                for number in 0..40 {
                    let (snapshot, body) = prepare(number);
                    fitting = answer(&snapshot, &body).tally.fits;
                }
                measure(
                    &name,
                    calls,
                    |number| prepare(100_000 + number),
                    |(snapshot, body)| {
                        drop(black_box(answer(&snapshot, black_box(&body))));
                    },
                );
                let (snapshot, body) = prepare(1_000_000);
                let (bytes, blocks) = allocated(|| drop(black_box(answer(&snapshot, black_box(&body)))));
                row(&format!("{name}, nodes that fit"), f64::from(fitting), "");
                row(&format!("{name}, allocations"), blocks as f64, "");
                row(&format!("{name}, allocated"), bytes as f64 / 1024.0, "KiB");
            }
        }
    }
}

/// One connection to the shipped router and server on loopback, as kube-scheduler keeps one.
pub(crate) fn over_http(wanted: &Wanted) {
    if !wanted.wants("loopback HTTP") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let address = runtime.block_on(crate::support::serve_on_loopback(World::in_use(NODES).model()));
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    for count in [500, NODES] {
        let names = names(count);
        for (verb, _) in VERBS {
            let prepare = |number| body(Kind::Exclusive, number, &names);
            measure(&format!("{verb}, {count} names, exclusive, loopback HTTP"), 1_000, prepare, |body| {
                let length = post(&mut connection, verb, &body);
                assert!(length > 2);
            });
        }
    }
}

/// Sends one request and reads its reply; the length of the reply's body.
fn post(connection: &mut TcpStream, verb: &str, body: &[u8]) -> usize {
    let head = format!(
        "POST /{verb} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    connection.write_all(&request).unwrap();
    let mut reply = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        filled += connection.read(&mut reply[filled..]).unwrap();
        let Some(end) = reply[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&reply[..end]).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        if filled == end + 4 + length {
            return length;
        }
    }
}

/// Memory after a tenth of so many calls, half filter and half prioritize, and after all of them; every thousandth time a
/// pod event comes between.
pub(crate) fn memory(calls: u64) {
    let mut model = World::in_use(NODES).model();
    let names = names(500);
    let bodies: Vec<Vec<u8>> = (0..100).map(|number| body(Kind::Sizes, number, &names)).collect();
    let mut snapshot = model.snapshot();
    for (call, body) in (1..=calls).zip(bodies.iter().cycle()) {
        if call % 1_000 == 0 {
            one_pod_event(&mut model, usize::try_from(call / 1_000).unwrap());
            snapshot = model.snapshot();
        }
        let answer = if call % 2 == 0 { filter } else { prioritize };
        drop(black_box(answer(&snapshot, black_box(body))));
        if call == calls / 10 || call == calls {
            row(&format!("resident after {call} calls"), resident_kib() / 1024.0, "MiB");
            row(&format!("live memory after {call} calls"), live_mib(), "MiB");
        }
    }
}
