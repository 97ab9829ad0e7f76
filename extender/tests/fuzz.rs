//! Requests nobody meant: golden bodies, mutated. Whatever comes, the extender answers: JSON with a 200, or a refusal that
//! says why; nothing panics.
//!
//! Bounded to a few seconds; `FAIRLEAD_FUZZ_SECONDS=600 cargo test --release -p fairlead-extender --test fuzz` runs longer,
//! and `FAIRLEAD_FUZZ_SEED` repeats a run, whose seed is printed first.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::House;
use support::api::{Api, pod_path};
use support::world::{World, args, node_name, pod};

const DEFAULT_SECONDS: u64 = 2;
/// Pieces that parsers and validators stumble over.
const DICTIONARY: [&[u8]; 34] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"0.1",
    b"\"cpu\"",
    b"\"4\"",
    b"\"-4\"",
    b"\"4e30\"",
    b"\"0.0001m\"",
    b"\"1Ei\"",
    b"\"NaN\"",
    b"\"\\u0000\"",
    b"\"\\ud800\"",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\"Always\"",
    b"\"initContainers\"",
    b"\"uid-p\"",
    b"\"node-00001\"",
    b"\"NodeNames\"",
    b"\"Nodes\"",
    b"\"Pod\"",
    b"\"NodeNameToMetaVictims\"",
    b"\"UID\"",
    b"\"resources\":{\"requests\":{\"cpu\":\"4\"}}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":{",
];

/// xorshift64*: repeatable, and no more is needed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

fn mutated(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut body = corpus[chance.below(corpus.len())].clone();
    for _ in 0..=chance.below(6) {
        let (at, length) = (chance.below(body.len()), chance.below(24));
        let end = (at + length).min(body.len());
        match chance.below(7) {
            0 => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
            1 => drop(body.drain(at..end)),
            2 => drop(body.splice(at..end, DICTIONARY[chance.below(DICTIONARY.len())].iter().copied())),
            3 => {
                let piece = body[at..end].to_vec();
                let to = chance.below(body.len());
                drop(body.splice(to..to, piece));
            }
            4 => body.truncate(at),
            5 => {
                let other = &corpus[chance.below(corpus.len())];
                let from = chance.below(other.len());
                let piece = other[from..(from + length * 4).min(other.len())].to_vec();
                drop(body.splice(at..end, piece));
            }
            _ => replace_value(&mut body, chance),
        }
    }
    body
}

/// Replaces one value of the JSON by another, which bytes at random rarely do.
fn replace_value(body: &mut Vec<u8>, chance: &mut Chance) {
    let Ok(mut whole) = serde_json::from_slice::<Value>(body) else { return };
    let mut path = String::new();
    for _ in 0..chance.below(8) {
        let step = match whole.pointer(&path) {
            Some(Value::Object(fields)) if !fields.is_empty() => {
                let key = fields.keys().nth(chance.below(fields.len())).unwrap();
                key.replace('~', "~0").replace('/', "~1")
            }
            Some(Value::Array(items)) if !items.is_empty() => chance.below(items.len()).to_string(),
            _ => break,
        };
        path.push('/');
        path.push_str(&step);
    }
    let values = [
        json!(null),
        json!({}),
        json!([]),
        json!("x"),
        json!(-1),
        json!(u64::MAX),
        json!("99999999999Ei"),
        json!("1e-9"),
    ];
    *whole.pointer_mut(&path).unwrap() = values[chance.below(values.len())].clone();
    *body = whole.to_string().into_bytes();
}

fn corpus() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let names: Vec<String> = (0..12).map(node_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rich = pod("p", "4");
    rich["spec"]["initContainers"] = json!([{ "name": "side", "restartPolicy": "Always", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } }]);
    rich["spec"]["overhead"] = json!({ "cpu": "250m" });
    rich["metadata"]["annotations"] =
        json!({ "topology.fairlead.dev/cpus": "Exclusive", "fairlead.dev/released": "1:1" });
    let objects: Vec<Value> = names.iter().map(|name| json!({ "metadata": { "name": name }, "status": {} })).collect();
    let full = json!({ "Pod": rich, "Nodes": { "metadata": {}, "items": objects }, "NodeNames": null });
    let scheduling = vec![args(&pod("p", "500m"), &names), args(&rich, &names), full.to_string().into_bytes()];
    let victims: serde_json::Map<String, Value> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            ((*name).to_owned(), json!({ "Pods": [{ "UID": format!("other-{index}") }], "NumPDBViolations": 1 }))
        })
        .collect();
    let meta = json!({ "Pod": rich, "NodeNameToVictims": null, "NodeNameToMetaVictims": victims });
    let whole =
        json!({ "Pod": rich, "NodeNameToVictims": { "node-00001": { "Pods": [rich], "NumPDBViolations": 0 } } });
    let bind = json!({ "PodName": "p", "PodNamespace": "apps", "PodUID": "uid-p", "Node": "node-00001" });
    vec![
        ("/filter", scheduling.clone()),
        ("/prioritize", scheduling),
        ("/preempt", vec![meta.to_string().into_bytes(), whole.to_string().into_bytes()]),
        ("/bind", vec![bind.to_string().into_bytes()]),
    ]
}

/// The reply must be what kube-scheduler can read.
fn check(verb: &str, body: &[u8], status: u16, reply: &str) {
    let told = || format!("{verb} {status} {reply}\n{}", String::from_utf8_lossy(body));
    let parsed: Value = serde_json::from_str(reply).unwrap_or_else(|error| panic!("{error}: {}", told()));
    match status {
        200 if verb == "/prioritize" => assert!(parsed.is_array(), "{}", told()),
        200 if verb == "/preempt" => assert!(parsed["NodeNameToMetaVictims"].is_object(), "{}", told()),
        200 => assert!(parsed["Error"].is_string(), "{}", told()),
        400..=499 => assert!(parsed["Error"].as_str().is_some_and(|text| !text.is_empty()), "{}", told()),
        _ => panic!("{}", told()),
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[tokio::test]
async fn every_request_is_answered() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed =
        from_environment("FAIRLEAD_FUZZ_SEED").unwrap_or_else(|| u64::try_from(clock.as_micros()).unwrap()).max(1);
    let limit = Duration::from_secs(from_environment("FAIRLEAD_FUZZ_SECONDS").unwrap_or(DEFAULT_SECONDS));
    eprintln!("fuzz: FAIRLEAD_FUZZ_SEED={seed}");
    let (api, mut world) = (Api::default(), World::of_nodes(12));
    api.put(pod_path("p"), pod("p", "4"));
    world.pods.push(pod("p", "4"));
    let house = House::new(world.model(), &api);
    let (corpus, mut chance) = (corpus(), Chance(seed));
    for (verb, bodies) in &corpus {
        for body in bodies {
            let (status, reply) = house.post(verb, body.clone()).await;
            assert_eq!(status, 200, "{verb}: {reply}");
            check(verb, body, status, &reply);
        }
    }
    let before = house.snapshot.load_full();
    let (began, mut tried, mut accepted) = (Instant::now(), 0u64, 0u64);
    while began.elapsed() < limit {
        let (verb, bodies) = &corpus[chance.below(corpus.len())];
        let body = mutated(bodies, &mut chance);
        let (status, reply) = house.post(verb, body.clone()).await;
        check(verb, &body, status, &reply);
        tried += 1;
        accepted += u64::from(status == 200);
    }
    eprintln!("fuzz: {tried} requests in {} s, {accepted} of them answered with 200", limit.as_secs());
    assert!(tried > 100 && accepted > 0);
    assert_eq!(before.pods.len(), house.snapshot.load().pods.len());
}
