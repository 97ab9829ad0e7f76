//! What a pod wishes of its CPUs: its annotations, then its WorkerPool, then the default, field by field.
use crate::pools::PoolView;
use fairlead_crds::keys::WISH_ANNOTATION_PREFIX;
use fairlead_crds::topology_wish::{
    AlignWish, CacheWish, CpuClassWish, CpuOwnership, PackingWish, PlacementMode, ThreadWish, TopologyWish,
};
use fairlead_topology::{Align, Cache, CpuClass, Packing, Threads, Wish};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// As the schema of WorkerPool has it.
const MAX_NEAR: usize = 8;
/// As the schema of WorkerPool has it.
const MAX_POOLS: usize = 16;
/// As the schema of WorkerPool has it, and that of NodeTopology for names of the operating system.
const MAX_DEVICE_LENGTH: usize = 64;
/// Longest name of a pool.
const MAX_POOL_LENGTH: usize = 253;

/// Where a wish comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum WishSource {
    /// Nobody said anything.
    #[default]
    Default,
    /// The pod's WorkerPool.
    Pool,
    /// An annotation of the pod.
    Annotation,
}

/// One field of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wished<T> {
    /// What is wished.
    pub value: T,
    /// Who says so.
    pub source: WishSource,
}

/// Whether a pod gets CPUs of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Ownership {
    /// Where the pod and its request allow it.
    #[default]
    WherePossible,
    /// It must.
    Exclusive,
    /// It does not.
    Shared,
}

/// Who has the last word on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Mode {
    /// kube-scheduler.
    #[default]
    Score,
    /// The extender: filter returns one node.
    Decide,
}

/// What the devices of a pod's resource claims (DRA) are to the choice of its CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum ClaimWish {
    /// CPUs near them are better.
    #[default]
    Near,
    /// Nothing.
    Ignored,
}

/// A wish as it was understood, each field with its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Understood {
    /// The pod's WorkerPool, if it has one.
    pub pool: Option<String>,
    /// Whether it gets CPUs of its own.
    pub cpus: Wished<Ownership>,
    /// Which hardware threads.
    pub threads: Wished<Threads>,
    /// How many NUMA nodes.
    pub align: Wished<Align>,
    /// How L3 caches are weighed.
    pub cache: Wished<Cache>,
    /// Which hole.
    pub packing: Wished<Packing>,
    /// Which CPUs.
    pub class: Wished<CpuClass>,
    /// Devices to be near.
    pub near: Wished<BTreeSet<String>>,
    /// What the devices of its resource claims are to it.
    pub claims: Wished<ClaimWish>,
    /// Pools of the namespace whose neighbour it wants to be.
    pub likes: Wished<BTreeSet<String>>,
    /// Pools of the namespace whose neighbour it does not want to be.
    pub dislikes: Wished<BTreeSet<String>>,
    /// Who has the last word.
    pub mode: Wished<Mode>,
}

/// An annotation that is no wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishFault {
    /// The part of its key after the prefix.
    pub field: String,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: &'static str,
}

impl fmt::Display for WishFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, allowed } = self;
        write!(f, "annotation {WISH_ANNOTATION_PREFIX}{field}: {value:?}; write {allowed}")
    }
}

/// Fields that may be written as annotations.
const FIELDS: &str =
    "one of the fields cpus, threads, align, cache, packing, class, near, likes, dislikes, mode after the slash";

impl Understood {
    /// The wish of a pod with these annotations (keys without their prefix) and this pool.
    ///
    /// # Errors
    /// The first annotation that is no wish; what the pool says was checked by its schema.
    pub fn of(annotations: &BTreeMap<String, String>, pool: Option<&PoolView>) -> Result<Self, WishFault> {
        let mut wish = Self::default();
        if let Some(pool) = pool {
            wish.pool = Some(pool.name.clone());
            wish.take_pool(&pool.wish);
        }
        for (field, value) in annotations {
            let fault = |allowed| WishFault { field: field.clone(), value: value.clone(), allowed };
            wish.take_annotation(field, value).map_err(fault)?;
        }
        Ok(wish)
    }

    /// The part that the choice of CPUs reads.
    #[must_use]
    pub fn choice(&self) -> Wish {
        Wish {
            threads: self.threads.value,
            align: self.align.value,
            cache: self.cache.value,
            packing: self.packing.value,
            class: self.class.value,
        }
    }

    /// Whether what lies around the pod on a node matters to it.
    #[must_use]
    pub fn looks_around(&self) -> bool {
        !(self.near.value.is_empty() && self.likes.value.is_empty() && self.dislikes.value.is_empty())
    }

    /// Whether it can only be had with CPUs of its own.
    #[must_use]
    pub fn needs_own_cpus(&self) -> bool {
        self.cpus.value == Ownership::Exclusive || self.class.value == CpuClass::Isolated
    }

    fn take_pool(&mut self, wish: &TopologyWish) {
        let from = WishSource::Pool;
        set(&mut self.cpus, wish.cpus.map(ownership), from);
        set(&mut self.threads, wish.threads.map(threads), from);
        set(&mut self.align, wish.align.map(align), from);
        set(&mut self.cache, wish.cache.map(cache), from);
        set(&mut self.packing, wish.packing.map(packing), from);
        set(&mut self.class, wish.class.map(class), from);
        set(&mut self.mode, wish.mode.map(mode), from);
        let some = |list: &[String]| (!list.is_empty()).then(|| list.iter().cloned().collect());
        set(&mut self.near, some(&wish.near), from);
        if self.near.source == from {
            self.split_claims();
        }
        if let Some(colocation) = &wish.colocation {
            set(&mut self.likes, some(&colocation.likes), from);
            set(&mut self.dislikes, some(&colocation.dislikes), from);
        }
    }

    /// The word for the claims is no device: who lists what to be near, and not the claims, renounces them.
    fn split_claims(&mut self) {
        let listed = self.near.value.len();
        self.near.value.retain(|wished| !wished.eq_ignore_ascii_case(OF_CLAIMS));
        let value = if self.near.value.len() < listed { ClaimWish::Near } else { ClaimWish::Ignored };
        self.claims = Wished { value, source: self.near.source };
    }

    fn take_annotation(&mut self, field: &str, value: &str) -> Result<(), &'static str> {
        match field {
            "cpus" => word(&mut self.cpus, value, "Exclusive or Shared", ownership),
            "threads" => word(&mut self.threads, value, "WholeCores, OnePerCore or Any", threads),
            "align" => word(&mut self.align, value, "SingleNUMA, FewestNUMA or Spread", align),
            "cache" => word(&mut self.cache, value, "PreferOneL3 or RequireOneL3", cache),
            "packing" => word(&mut self.packing, value, "BestFit or Spread", packing),
            "class" => word(&mut self.class, value, "Regular or Isolated", class),
            "mode" => word(&mut self.mode, value, "Score or Decide", mode),
            "near" => {
                let allowed = "up to 8 PCI addresses, vendor:device pairs, device names or claims, separated by commas";
                list(&mut self.near, value, MAX_NEAR, MAX_DEVICE_LENGTH, is_device).ok_or(allowed)?;
                self.split_claims();
                Ok(())
            }
            "likes" | "dislikes" => {
                let held = if field == "likes" { &mut self.likes } else { &mut self.dislikes };
                let allowed = "up to 16 names of WorkerPools of the namespace, separated by commas";
                list(held, value, MAX_POOLS, MAX_POOL_LENGTH, is_pool).ok_or(allowed)
            }
            _ => Err(FIELDS),
        }
    }
}

/// In the list of what to be near the word for the devices of the pod's own claims.
const OF_CLAIMS: &str = "claims";

fn set<T>(held: &mut Wished<T>, value: Option<T>, source: WishSource) {
    if let Some(value) = value {
        *held = Wished { value, source };
    }
}

/// Reads one word of an enum of the schema.
fn word<W: serde::de::DeserializeOwned, T>(
    held: &mut Wished<T>,
    text: &str,
    allowed: &'static str,
    known: fn(W) -> T,
) -> Result<(), &'static str> {
    let read = serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| allowed)?;
    *held = Wished { value: known(read), source: WishSource::Annotation };
    Ok(())
}

/// An empty text is an empty list: a pod may take back what its pool wishes.
fn list(
    held: &mut Wished<BTreeSet<String>>,
    text: &str,
    most: usize,
    longest: usize,
    fits: fn(u8) -> bool,
) -> Option<()> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let value: BTreeSet<String> = parts.map(str::to_owned).collect();
    let fine = value.len() <= most && value.iter().all(|part| part.len() <= longest && part.bytes().all(fits));
    fine.then(|| *held = Wished { value, source: WishSource::Annotation })
}

fn is_device(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:*-".contains(&byte)
}

fn is_pool(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
}

fn ownership(wish: CpuOwnership) -> Ownership {
    match wish {
        CpuOwnership::Exclusive => Ownership::Exclusive,
        CpuOwnership::Shared => Ownership::Shared,
    }
}

fn threads(wish: ThreadWish) -> Threads {
    match wish {
        ThreadWish::WholeCores => Threads::WholeCores,
        ThreadWish::OnePerCore => Threads::OnePerCore,
        ThreadWish::Any => Threads::Any,
    }
}

fn align(wish: AlignWish) -> Align {
    match wish {
        AlignWish::SingleNUMA => Align::SingleNuma,
        AlignWish::FewestNUMA => Align::FewestNuma,
        AlignWish::Spread => Align::Spread,
    }
}

fn cache(wish: CacheWish) -> Cache {
    match wish {
        CacheWish::PreferOneL3 => Cache::PreferOneL3,
        CacheWish::RequireOneL3 => Cache::RequireOneL3,
    }
}

fn packing(wish: PackingWish) -> Packing {
    match wish {
        PackingWish::BestFit => Packing::BestFit,
        PackingWish::Spread => Packing::Spread,
    }
}

fn class(wish: CpuClassWish) -> CpuClass {
    match wish {
        CpuClassWish::Regular => CpuClass::Regular,
        CpuClassWish::Isolated => CpuClass::Isolated,
    }
}

fn mode(wish: PlacementMode) -> Mode {
    match wish {
        PlacementMode::Score => Mode::Score,
        PlacementMode::Decide => Mode::Decide,
    }
}
