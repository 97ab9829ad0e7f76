//! Messages of NRI and ttrpc as the stand-in for the runtime writes and reads them.
#![allow(missing_docs, reason = "test support")]
use std::collections::HashMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Call {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_ns: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub text: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Register {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub index: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Configure {
    #[prost(string, tag = "1")]
    pub config: String,
    #[prost(string, tag = "2")]
    pub runtime: String,
    #[prost(string, tag = "3")]
    pub version: String,
    #[prost(int64, tag = "4")]
    pub registration_ms: i64,
    #[prost(int64, tag = "5")]
    pub request_ms: i64,
    #[prost(string, tag = "6")]
    pub nri: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Configured {
    #[prost(uint32, tag = "2")]
    pub events: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Sync {
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<Pod>,
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Synced {
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<Update>,
    #[prost(bool, tag = "2")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct About {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<Pod>,
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
    #[prost(message, optional, tag = "3")]
    pub resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StateChange {
    #[prost(uint32, tag = "1")]
    pub event: u32,
    #[prost(message, optional, tag = "2")]
    pub pod: Option<Pod>,
    #[prost(message, optional, tag = "3")]
    pub container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Created {
    #[prost(message, optional, tag = "1")]
    pub adjust: Option<Adjust>,
    #[prost(message, repeated, tag = "2")]
    pub update: Vec<Update>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Updates {
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<Update>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Adjust {
    #[prost(map = "string, string", tag = "2")]
    pub annotations: HashMap<String, String>,
    #[prost(message, repeated, tag = "4")]
    pub env: Vec<Pair>,
    #[prost(message, optional, tag = "6")]
    pub linux: Option<AdjustLinux>,
    #[prost(message, repeated, tag = "7")]
    pub rlimits: Vec<Rlimit>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pair {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct AdjustLinux {
    #[prost(message, optional, tag = "2")]
    pub resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Rlimit {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(uint64, tag = "2")]
    pub hard: u64,
    #[prost(uint64, tag = "3")]
    pub soft: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Update {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub linux: Option<UpdateLinux>,
    #[prost(bool, tag = "3")]
    pub ignore_failure: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateLinux {
    #[prost(message, optional, tag = "1")]
    pub resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pod {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub uid: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
    #[prost(string, tag = "7")]
    pub handler: String,
    #[prost(uint32, tag = "9")]
    pub pid: u32,
    #[prost(string, repeated, tag = "10")]
    pub ips: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(uint32, tag = "4")]
    pub state: u32,
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
    #[prost(string, repeated, tag = "7")]
    pub args: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    pub env: Vec<String>,
    #[prost(message, optional, tag = "11")]
    pub linux: Option<Linux>,
    #[prost(uint32, tag = "12")]
    pub pid: u32,
    #[prost(int64, tag = "14")]
    pub created_at: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Linux {
    #[prost(message, optional, tag = "3")]
    pub resources: Option<Resources>,
    #[prost(string, tag = "5")]
    pub cgroup: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resources {
    #[prost(message, optional, tag = "1")]
    pub memory: Option<Memory>,
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<Cpu>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Memory {
    #[prost(message, optional, tag = "1")]
    pub limit: Option<Number>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Cpu {
    #[prost(message, optional, tag = "1")]
    pub shares: Option<Unsigned>,
    #[prost(message, optional, tag = "2")]
    pub quota: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub period: Option<Unsigned>,
    #[prost(string, tag = "6")]
    pub cpus: String,
    #[prost(string, tag = "7")]
    pub mems: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Number {
    #[prost(int64, tag = "1")]
    pub value: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Unsigned {
    #[prost(uint64, tag = "1")]
    pub value: u64,
}
