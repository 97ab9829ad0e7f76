//! Whatever comes from the runtime's socket: typed errors, bounded memory, no panic. `FAIRLEAD_FUZZ_SECONDS` for longer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use fairlead_agent::nri::call::{Call, Listing, read_call};
use fairlead_agent::nri::frame::{Decoder, FRAME_BYTES_MAX, Message, encode};
use fairlead_agent::nri::proto::{
    Container, ContainerRequest, LinuxContainer, LinuxCpu, LinuxResources, OptionalInt64, PLUGIN_SERVICE, PodSandbox,
    Request, StateChangeEvent, SynchronizeRequest,
};
use prost::Message as _;

/// xorshift64*, so that a seed says which input it was.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn container(number: usize) -> Container {
    let quota = Some(OptionalInt64 { value: 100_000 });
    let cpu = LinuxCpu { quota, cpus: "0-3,8".into(), mems: "0".into() };
    let resources = Some(LinuxResources { cpu: Some(cpu) });
    Container {
        id: format!("c{number}"),
        pod_sandbox_id: "s".into(),
        name: "c".into(),
        state: 3,
        linux: Some(LinuxContainer { resources }),
        ..Container::default()
    }
}

fn pod() -> PodSandbox {
    let placement = r#"{"containers":[{"name":"c","cpus":"2-3","memoryNodes":"0"}]}"#;
    let annotations = [("fairlead.dev/placement".to_owned(), placement.to_owned())].into();
    PodSandbox { id: "s".into(), name: "p".into(), uid: "u".into(), namespace: "ns".into(), annotations }
}

/// One of each call, as a runtime sends it.
fn calls() -> Vec<Message> {
    let about =
        ContainerRequest { pod: Some(pod()), container: Some(container(1)), linux_resources: None }.encode_to_vec();
    let sync = SynchronizeRequest { pods: vec![pod()], containers: (0..40).map(container).collect(), more: false };
    let change = StateChangeEvent { event: 11, pod: Some(pod()), container: Some(container(1)) };
    let bodies = [
        ("CreateContainer", about.clone()),
        ("PostCreateContainer", about.clone()),
        ("PostStartContainer", about.clone()),
        ("UpdateContainer", about.clone()),
        ("PostUpdateContainer", about.clone()),
        ("StopContainer", about.clone()),
        ("RemoveContainer", about),
        ("Synchronize", sync.encode_to_vec()),
        ("StateChange", change.encode_to_vec()),
        ("NoSuchMethod", Vec::new()),
    ];
    let message = |(at, (method, payload)): (usize, (&str, Vec<u8>))| {
        let service = PLUGIN_SERVICE.to_owned();
        let request = Request { service, method: method.into(), payload: payload.into(), timeout_nano: 2_000_000_000 };
        Message { connection: 1, stream: 2 * at as u32 + 1, kind: 1, data: request.encode_to_vec().into() }
    };
    bodies.into_iter().enumerate().map(message).collect()
}

#[test]
fn every_call_is_read() {
    for message in calls() {
        let (call, limit) = read_call(&message).unwrap();
        assert_eq!(limit, Some(Duration::from_secs(2)));
        match call {
            Call::Create(seen) | Call::Update(seen, _) | Call::Created(seen) | Call::Changed(seen) => {
                assert_eq!((seen.title().as_str(), seen.placed), ("ns/p/c", true));
                assert_eq!(seen.annotated.unwrap().cpus.to_string(), "2-3");
                assert_eq!(seen.runs.unwrap().cpus.to_string(), "0-3,8");
            }
            Call::Started(id) | Call::Stopped(id) | Call::Removed(id) => assert_eq!(id, "c1"),
            Call::Synchronize(part) => {
                let containers = Listing::default().take(part).unwrap().unwrap();
                assert!(containers.len() == 40 && containers.iter().all(|seen| seen.pod_uid == "u"));
            }
            Call::Unknown(what) => assert_eq!(what, "method \"NoSuchMethod\""),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn more_containers_than_any_node_has_are_refused() {
    let mut listing = Listing::default();
    let part = |first: usize| {
        let containers = (first..first + 5_000).map(container).collect();
        SynchronizeRequest { pods: Vec::new(), containers, more: true }
    };
    for first in 0..4 {
        assert!(listing.take(part(first * 5_000)).unwrap().is_none());
    }
    let refused = listing.take(part(20_000)).unwrap_err();
    assert_eq!(refused.to_string(), "the container runtime lists more than 20000 containers");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let part: Vec<u8> = bytes[at..].iter().take(random.below(64)).copied().collect();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => {
                let end = (at + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// True if the connection lived through it.
fn feed(bytes: &[u8], random: &mut Random) -> bool {
    let mut decoder = Decoder::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (part, after) = rest.split_at((1 + random.below(700)).min(rest.len()));
        rest = after;
        decoder.space().extend_from_slice(part);
        loop {
            match decoder.take() {
                Ok(Some(message)) => {
                    if let Ok((Call::Synchronize(part), _)) = read_call(&message) {
                        drop(Listing::default().take(part));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return false;
                }
            }
        }
        assert!(decoder.unfinished_bytes() <= bytes.len().min(2 * FRAME_BYTES_MAX as usize));
    }
    true
}

#[test]
fn no_bytes_make_it_panic() {
    let seconds = std::env::var("FAIRLEAD_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut whole = BytesMut::new();
    for message in calls() {
        encode(&message, &mut whole).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut inputs, mut lived, mut seed) = (0_u64, 0_u64, 1_u64);
    while Instant::now() < until {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut bytes = whole.to_vec();
        mutate(&mut bytes, &mut random);
        lived += u64::from(feed(&bytes, &mut random));
        inputs += 1;
        seed += 1;
    }
    eprintln!("NRI frames: {inputs} mutated inputs in {seconds} s, {lived} read to their end");
    assert!(inputs > 0 && lived > 0 && lived < inputs.max(1_000));
}
