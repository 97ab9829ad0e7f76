//! From the elements of hwloc's XML to a description.

use std::collections::BTreeSet;

use fairlead_topology::{
    CacheDescription, CpuMask, HugePages, MAX_CPUS, MachineDescription, NumaDescription, NumaDistance, PciDescription,
};

use super::scan::{Element, Event, excerpt, scan};
use crate::{Discovered, Gap, XmlError, shape};

/// Name of hwloc's matrix of NUMA latencies (the SLIT); there may be others over other objects, or of no known meaning.
const LATENCY_MATRIX: &str = "NUMALatency";

/// Longest name of a kind of memory that is kept; hwloc's have less than a dozen letters.
const KIND_BYTES_MAX: usize = 64;

/// What the objects of a text tell, by their types.
#[derive(Default)]
pub(super) struct Reading {
    pus: CpuMask,
    packages: Vec<(CpuMask, Option<u32>)>,
    dies: Vec<CpuMask>,
    clusters: Vec<CpuMask>,
    l2: Vec<CpuMask>,
    l3: Vec<(CpuMask, u64)>,
    cores: Vec<CpuMask>,
    numa_nodes: Vec<NumaDescription>,
    pages: Vec<HugePages>,
    pages_missing: bool,
    latencies: Option<Matrix>,
    /// Efficiency that was given, and CPUs.
    kinds: Vec<(Option<i64>, CpuMask)>,
    devices: Vec<PciDescription>,
    /// Of the machine, where its nodes are not told.
    memory_bytes: u64,
    complete: CpuMask,
    allowed: Option<CpuMask>,
}

#[derive(Default)]
struct Matrix {
    ids: Vec<u64>,
    values: Vec<u64>,
}

/// An element that is open, with what those inside need of it.
enum Open {
    Object { cpus: CpuMask, bridges: Vec<String>, device: Option<usize>, is_numa: bool },
    Matrix,
    Indexes,
    Values,
    Other,
}

impl Reading {
    pub(super) fn of(text: &str) -> Result<Self, XmlError> {
        let mut reading = Self::default();
        let mut open: Vec<Open> = Vec::new();
        scan(text, |event| {
            match event {
                Event::Open(element) => {
                    let opened = reading.begin(element, &open)?;
                    open.push(opened);
                }
                Event::Text(text) => reading.text(text, open.last())?,
                Event::Close => {
                    if let Some(Open::Object { is_numa: true, .. }) = open.pop() {
                        reading.end_numa();
                    }
                }
            }
            Ok(())
        })?;
        if reading.pus.is_empty() { Err(XmlError::NoCpus) } else { Ok(reading) }
    }

    fn begin(&mut self, element: Element<'_>, open: &[Open]) -> Result<Open, XmlError> {
        let is_slit = |element: Element<'_>| {
            let told = ["name", "type", "indexing"].map(|name| element.attribute(name));
            told == [Some(LATENCY_MATRIX), Some("NUMANode"), Some("os")]
        };
        Ok(match (element.name, open.last()) {
            ("object", _) => self.object(element, open)?,
            ("page_type", Some(Open::Object { is_numa: true, .. })) => {
                let (size, count) = (element.number("size")?, element.number("count")?);
                self.pages.extend(size.zip(count).map(|(page_bytes, count)| HugePages { page_bytes, count }));
                Open::Other
            }
            ("cpukind", _) => {
                let forced = element.attribute("forced_efficiency").and_then(|text| text.parse().ok());
                let cpus = set(element, "cpuset")?.unwrap_or_default();
                self.kinds.push((forced, cpus));
                Open::Other
            }
            ("distances2", _) if self.latencies.is_none() && is_slit(element) => {
                self.latencies = Some(Matrix::default());
                Open::Matrix
            }
            ("indexes", Some(Open::Matrix)) => Open::Indexes,
            ("u64values", Some(Open::Matrix)) => Open::Values,
            _ => Open::Other,
        })
    }

    fn object(&mut self, element: Element<'_>, open: &[Open]) -> Result<Open, XmlError> {
        let (around, mut bridges, parent) = match open.last() {
            Some(Open::Object { cpus, bridges, device, .. }) => (cpus.clone(), bridges.clone(), *device),
            _ => (CpuMask::new(), Vec::new(), None),
        };
        let own = set(element, "cpuset")?;
        let mut device = None;
        let kind = element.attribute("type").unwrap_or_default();
        match kind {
            "Bridge" => bridges.extend(element.attribute("pci_busid").map(str::to_owned)),
            "PCIDev" => device = self.device(element, &around, &bridges)?,
            "OSDev" => {
                let device = parent.and_then(|index| self.devices.get_mut(index));
                if let (Some(name), Some(device)) = (element.attribute("name"), device) {
                    device.names.push(unescaped(name));
                }
            }
            "Misc" => {}
            _ => self.with_cpus(kind, element, own.as_ref())?,
        }
        let is_numa = matches!(kind, "NUMANode" | "Node");
        Ok(Open::Object { cpus: own.filter(|own| !own.is_empty()).unwrap_or(around), bridges, device, is_numa })
    }

    /// An object that is neither I/O nor a remark.
    fn with_cpus(&mut self, kind: &str, element: Element<'_>, own: Option<&CpuMask>) -> Result<(), XmlError> {
        let cpus = own.cloned().unwrap_or_default();
        match kind {
            "PU" => drop(self.pus.insert(os_index(element, "PU")?)),
            "NUMANode" | "Node" => self.begin_numa(element, cpus)?,
            "Machine" | "System" => {
                self.complete.union_with(&set(element, "complete_cpuset")?.unwrap_or_default());
                self.allowed = set(element, "allowed_cpuset")?;
                self.memory_bytes = element.number("local_memory")?.unwrap_or(0);
            }
            _ if cpus.is_empty() => {}
            "Package" | "Socket" => self.packages.push((cpus, os_index(element, "Package").ok())),
            "Die" => self.dies.push(cpus),
            "Core" => self.cores.push(cpus),
            "L2Cache" => self.l2.push(cpus),
            "L3Cache" => self.l3.push((cpus, element.number("cache_size")?.unwrap_or(0))),
            // Format 1: level in `depth`; type 2 holds instructions only.
            "Cache" if element.attribute("cache_type") == Some("2") => {}
            "Cache" => match element.attribute("depth") {
                Some("2") => self.l2.push(cpus),
                Some("3") => self.l3.push((cpus, element.number("cache_size")?.unwrap_or(0))),
                _ => {}
            },
            "Group" if element.attribute("subtype") == Some("Cluster") => self.clusters.push(cpus),
            _ => {}
        }
        Ok(())
    }

    fn begin_numa(&mut self, element: Element<'_>, cpus: CpuMask) -> Result<(), XmlError> {
        let kind = element.attribute("subtype").map(unescaped).filter(|kind| kind.len() <= KIND_BYTES_MAX);
        self.pages.clear();
        self.numa_nodes.push(NumaDescription {
            id: os_index(element, "NUMANode")?,
            cpus,
            memory_bytes: element.number("local_memory")?.unwrap_or(0),
            kind,
            ..NumaDescription::default()
        });
        Ok(())
    }

    /// In format 1 whole packages lie within a node, but its pages come before them.
    fn end_numa(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        // Without its memory nothing can be said of them.
        if let Some(node) = self.numa_nodes.last_mut().filter(|node| node.memory_bytes > 0) {
            self.pages_missing |= pages.is_empty();
            node.huge_pages = shape::huge_pages(pages);
        }
    }

    fn device(&mut self, element: Element<'_>, around: &CpuMask, above: &[String]) -> Result<Option<usize>, XmlError> {
        let address = element.attribute("pci_busid").unwrap_or_default();
        let kind = element.attribute("pci_type").unwrap_or_default();
        // class [vendor:device] [subvendor:subdevice] revision
        let digits: Vec<&str> = kind.split([' ', '[', ':', ']']).filter(|part| !part.is_empty()).collect();
        let number = |at: usize| digits.get(at).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let wrong = || XmlError::Value {
            attribute: "pci_type",
            text: excerpt(kind),
            expected: "like 0200 [14e4:1639] [0014:007c] 20",
        };
        let class = number(0).ok_or_else(wrong)?;
        if !shape::is_of_interest(class) {
            return Ok(None);
        }
        self.devices.push(PciDescription {
            address: address.to_owned(),
            class,
            vendor: number(1).ok_or_else(wrong)?,
            device: number(2).ok_or_else(wrong)?,
            names: Vec::new(),
            cpus: around.clone(),
            switch: shape::switch_of(above),
        });
        Ok(Some(self.devices.len() - 1))
    }

    fn text(&mut self, text: &str, open: Option<&Open>) -> Result<(), XmlError> {
        let Some(matrix) = &mut self.latencies else { return Ok(()) };
        let (list, attribute) = match open {
            Some(Open::Indexes) => (&mut matrix.ids, "indexes"),
            Some(Open::Values) => (&mut matrix.values, "u64values"),
            _ => return Ok(()),
        };
        for item in text.split_ascii_whitespace() {
            let wrong = |_| XmlError::Value { attribute, text: excerpt(item), expected: "a number" };
            list.push(item.parse().map_err(wrong)?);
        }
        Ok(())
    }

    /// # Errors
    /// Distances that are no square of numbers.
    pub(super) fn describe(mut self) -> Result<Discovered, XmlError> {
        let mut gaps = BTreeSet::new();
        self.distances(&mut gaps)?;
        shape::own_cpus(&mut self.numa_nodes);
        if self.numa_nodes.is_empty() {
            gaps.insert(Gap::NumaNodes);
            let (id, cpus) = (0, self.pus.clone());
            self.numa_nodes.push(NumaDescription { id, cpus, memory_bytes: self.memory_bytes, ..Default::default() });
        }
        if self.numa_nodes.iter().any(|node| node.memory_bytes == 0) {
            gaps.insert(Gap::Memory);
        }
        if self.pages_missing {
            gaps.insert(Gap::HugePages);
        }
        let all = self.pus;
        self.packages.sort_by_key(|(cpus, _)| cpus.first());
        let (packages, ids): (Vec<_>, Vec<_>) = self.packages.into_iter().unzip();
        self.l3.sort_by_key(|(cpus, _)| cpus.first());
        let l3_caches = (0..).zip(self.l3).map(|(id, (cpus, size_bytes))| CacheDescription { id, cpus, size_bytes });
        for device in &mut self.devices {
            device.cpus.intersect_with(&all);
            if device.cpus.is_empty() {
                device.cpus.clone_from(&all);
            }
        }
        let mut description = MachineDescription {
            packages: shape::packages(packages, &ids, &all, &mut gaps),
            numa_nodes: self.numa_nodes,
            l3_caches: l3_caches.collect(),
            cores: shape::cores(self.cores, &all, &mut gaps),
            offline: self.complete.subtract(&all),
            pci_devices: shape::pci_devices(self.devices),
            ..MachineDescription::default()
        };
        description.dies = shape::dies(&description, self.dies);
        description.clusters = shape::clusters(&description, self.clusters, self.l2);
        description.cpu_kinds = shape::cpu_kinds(&description, ranked(self.kinds));
        let mut found = Discovered { description, gaps: gaps.into_iter().collect() };
        if let Some(allowed) = self.allowed {
            found.withhold(&all.subtract(&allowed));
        }
        Ok(found)
    }

    fn distances(&mut self, gaps: &mut BTreeSet<Gap>) -> Result<(), XmlError> {
        let Some(Matrix { ids, values }) = self.latencies.take() else {
            if self.numa_nodes.len() > 1 {
                gaps.insert(Gap::Distances);
            }
            return Ok(());
        };
        let wrong = |text: String| XmlError::Value { attribute: "u64values", text, expected: "a square of distances" };
        if ids.len().checked_mul(ids.len()) != Some(values.len()) || ids.is_empty() {
            return Err(wrong(format!("{} values for {} objects", values.len(), ids.len())));
        }
        for (from, row) in ids.iter().zip(values.chunks(ids.len())) {
            let node = self.numa_nodes.iter_mut().find(|node| u64::from(node.id) == *from);
            let Some(node) = node else { continue };
            for (&to, &value) in ids.iter().zip(row) {
                let to = u32::try_from(to).map_err(|_| wrong(to.to_string()))?;
                let value = u32::try_from(value).map_err(|_| wrong(value.to_string()))?;
                node.distances.push(NumaDistance { to, value });
            }
            node.distances.sort_unstable_by_key(|distance| distance.to);
        }
        Ok(())
    }
}

/// Ranks kinds by the efficiency they were given, if all of them were given one.
fn ranked(mut kinds: Vec<(Option<i64>, CpuMask)>) -> Vec<(i32, CpuMask)> {
    if !kinds.iter().all(|(given, _)| given.is_some_and(|given| given >= 0)) {
        return kinds.into_iter().map(|(_, cpus)| (-1, cpus)).collect();
    }
    kinds.sort_by_key(|(given, _)| *given);
    (0..).zip(kinds).map(|(rank, (_, cpus))| (rank, cpus)).collect()
}

fn os_index(element: Element<'_>, object: &'static str) -> Result<u32, XmlError> {
    let number = element.number("os_index")?.ok_or(XmlError::Missing { object, attribute: "os_index" })?;
    u32::try_from(number).ok().filter(|&index| index < MAX_CPUS).ok_or_else(|| XmlError::Value {
        attribute: "os_index",
        text: number.to_string(),
        expected: "a number below 16384",
    })
}

/// A set as hwloc writes it: words of 32 bits in hexadecimal, the highest first; an empty word is zero.
fn set(element: Element<'_>, attribute: &'static str) -> Result<Option<CpuMask>, XmlError> {
    let Some(text) = element.attribute(attribute) else { return Ok(None) };
    let wrong =
        || XmlError::Value { attribute, text: excerpt(text), expected: "a set of CPUs below 16384 like 0x000000ff" };
    let mut mask = CpuMask::new();
    let mut bases = (0..MAX_CPUS).step_by(32);
    for word in text.trim().rsplit(',') {
        let base = bases.next().ok_or_else(wrong)?;
        let digits = word.strip_prefix("0x").unwrap_or(word);
        if digits.is_empty() {
            continue;
        }
        let word = u32::from_str_radix(digits, 16).map_err(|_| wrong())?;
        mask.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| base + bit));
    }
    Ok(Some(mask))
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}
