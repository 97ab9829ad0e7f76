//! A machine as a drawing of text: sockets, NUMA nodes, L3 caches, cores and threads, and whose they are.
#[cfg(test)]
mod drawing_test;

use crate::amount::bytes;
use fairlead_placement::Reservation;
use fairlead_topology::{CpuMask, Machine};

/// A thread that nobody holds.
const FREE: char = '·';
/// An isolated thread that nobody holds.
const FREE_ISOLATED: char = '○';
/// The pod in question.
const OWN: char = '█';
/// Any other pod, where only one pod is of interest.
const OTHER: char = '▒';
/// Holders beyond the letters.
const MANY: char = '#';
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Columns that a line of cores may take.
const CORE_COLUMNS: usize = 72;

/// Somebody with CPUs of its own.
pub(crate) struct Holder {
    /// Who, in words.
    pub(crate) name: String,
    /// Its CPUs.
    pub(crate) cpus: CpuMask,
    /// What is to be said of it beside its CPUs; may be empty.
    pub(crate) note: String,
}

impl Holder {
    /// A pod with a reservation.
    pub(crate) fn of(held: &Reservation, note: String) -> Self {
        Self { name: format!("{}/{}", held.pod.namespace, held.pod.name), cpus: held.cpus.clone(), note }
    }
}

/// What is drawn.
pub(crate) struct Scene<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) holders: &'a [Holder],
    /// Bytes that nobody holds by dense NUMA index; empty where that is not known.
    pub(crate) memory_free_bytes: &'a [u64],
    /// The one holder that matters: all others look alike, and NUMA nodes without its CPUs are left out.
    pub(crate) only: Option<usize>,
}

impl Scene<'_> {
    /// The drawing, with its legend; every line ends with a newline.
    pub(crate) fn draw(&self) -> String {
        let mut lines = Vec::new();
        let sockets = self.sockets();
        for (socket, numa_nodes) in &sockets {
            lines.push(format!("socket {socket}"));
            for (position, &numa) in numa_nodes.iter().enumerate() {
                self.draw_numa(numa, position + 1 == numa_nodes.len(), &mut lines);
            }
        }
        let memory_only = (0..self.machine.numa_ids().len()).filter(|&numa| self.cpus_of(numa).is_empty());
        for numa in memory_only.filter(|_| self.only.is_none()) {
            lines.push(format!("NUMA {}   memory only{}", self.machine.numa_ids()[numa], self.memory_text(numa)));
        }
        if self.only.is_some() {
            let shown: usize = sockets.iter().map(|(_, numa_nodes)| numa_nodes.len()).sum();
            let all = self.machine.numa_ids().len();
            if shown < all {
                lines.push(format!("({} more NUMA nodes without CPUs of this pod)", all - shown));
            }
        }
        lines.push(String::new());
        lines.extend(self.legend());
        lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
    }

    /// Sockets by id with the dense indices of their NUMA nodes; a NUMA node of several sockets is shown in the first.
    fn sockets(&self) -> Vec<(u32, Vec<usize>)> {
        let machine = self.machine;
        let mut sockets: Vec<(u32, Vec<usize>)> = machine.package_ids().iter().map(|&id| (id, Vec::new())).collect();
        for numa in 0..machine.numa_ids().len() {
            let cpus = self.cpus_of(numa);
            let of_interest = self.only.is_none_or(|only| self.holders[only].cpus.intersects(&cpus));
            let socket = machine.package_cpus().iter().position(|package| package.intersects(&cpus));
            if let (Some(socket), true) = (socket, of_interest) {
                sockets[socket].1.push(numa);
            }
        }
        sockets.retain(|(_, numa_nodes)| !numa_nodes.is_empty());
        sockets
    }

    fn cpus_of(&self, numa: usize) -> CpuMask {
        self.machine.numa_cpus(numa).cloned().unwrap_or_default()
    }

    fn draw_numa(&self, numa: usize, last: bool, lines: &mut Vec<String>) {
        let machine = self.machine;
        let cpus = self.cpus_of(numa);
        let cores: Vec<&CpuMask> = (0..machine.core_count())
            .filter_map(|core| machine.core_cpus(core))
            .filter(|core| core.intersects(&cpus))
            .collect();
        let free = cores.iter().filter(|core| core.iter().all(|cpu| self.is_free(cpu))).count();
        let (branch, stem) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        let devices = self.devices_text(&cpus);
        lines.push(format!(
            "{branch} NUMA {}   {free} of {} cores free{}{devices}",
            machine.numa_ids()[numa],
            cores.len(),
            self.memory_text(numa)
        ));
        let mut shown = CpuMask::new();
        for (cache, own) in machine.l3_ids().iter().zip(machine.l3_cpus()).filter(|(_, own)| own.intersects(&cpus)) {
            let of_cache: Vec<&CpuMask> = cores.iter().copied().filter(|core| core.intersects(own)).collect();
            of_cache.iter().for_each(|core| shown.union_with(core));
            self.draw_cores(&format!("L3 {cache}"), &of_cache, stem, lines);
        }
        let rest: Vec<&CpuMask> = cores.into_iter().filter(|core| !core.intersects(&shown)).collect();
        if !rest.is_empty() {
            self.draw_cores(if shown.is_empty() { "cores" } else { "no L3" }, &rest, stem, lines);
        }
    }

    /// One line, or several where there are many cores; the CPU ids follow on the first.
    fn draw_cores(&self, title: &str, cores: &[&CpuMask], stem: &str, lines: &mut Vec<String>) {
        let widest = cores.iter().map(|core| core.len() as usize).max().unwrap_or(1);
        let per_line = (CORE_COLUMNS / (widest + 1)).max(1);
        let mut all = CpuMask::new();
        cores.iter().for_each(|core| all.union_with(core));
        for (row, part) in cores.chunks(per_line).enumerate() {
            let drawn: Vec<String> =
                part.iter().map(|core| core.iter().map(|cpu| self.symbol(cpu)).collect::<String>()).collect();
            let (title, ids) = if row == 0 { (title, format!("   {all}")) } else { ("", String::new()) };
            lines.push(format!("{stem}   {title:<7} {}{ids}", drawn.join(" ")));
        }
    }

    fn memory_text(&self, numa: usize) -> String {
        let all = self.machine.numa_memory_bytes().get(numa).copied().unwrap_or(0);
        match self.memory_free_bytes.get(numa) {
            Some(&free) => format!("   {} of {} memory free", bytes(free), bytes(all)),
            None => format!("   {} memory", bytes(all)),
        }
    }

    /// Devices whose own CPUs lie within these; one that is near to everything is near to nothing.
    fn devices_text(&self, cpus: &CpuMask) -> String {
        let near = self.machine.pci_devices().iter().filter(|device| device.cpus.is_subset(cpus));
        let names: Vec<&str> =
            near.map(|device| device.names.first().map_or(device.address.as_str(), String::as_str)).collect();
        if names.is_empty() { String::new() } else { format!("   near {}", names.join(", ")) }
    }

    fn is_free(&self, cpu: u32) -> bool {
        matches!(self.symbol(cpu), FREE | FREE_ISOLATED)
    }

    fn symbol(&self, cpu: u32) -> char {
        match self.holders.iter().position(|holder| holder.cpus.contains(cpu)) {
            Some(holder) => self.symbol_of(holder),
            None if self.machine.isolated().contains(cpu) => FREE_ISOLATED,
            None => FREE,
        }
    }

    fn symbol_of(&self, holder: usize) -> char {
        match self.only {
            Some(only) if only == holder => OWN,
            Some(_) => OTHER,
            None => LETTERS.chars().nth(holder).unwrap_or(MANY),
        }
    }

    fn legend(&self) -> Vec<String> {
        let widest = |part: fn(&Holder) -> usize| self.holders.iter().map(part).max().unwrap_or(0);
        let (names, lists) = (widest(|one| one.name.chars().count()), widest(|one| one.cpus.to_string().len()));
        let of_holder = |(index, holder): (usize, &Holder)| {
            let (name, cpus) = (&holder.name, holder.cpus.to_string());
            format!("{}  {name:<names$}   {cpus:<lists$}   {}", self.symbol_of(index), holder.note)
        };
        let mut lines: Vec<String> = match self.only {
            Some(only) => self.holders.iter().enumerate().filter(|(index, _)| *index == only).map(of_holder).collect(),
            None => self.holders.iter().enumerate().map(of_holder).collect(),
        };
        if self.only.is_some() && self.holders.len() > 1 {
            lines.push(format!("{OTHER}  other pods with CPUs of their own"));
        }
        lines.push(format!("{FREE}  free: the shared pool runs there until a pod gets it for itself"));
        if !self.machine.isolated().is_empty() {
            lines.push(format!("{FREE_ISOLATED}  isolated and free: for pods of class Isolated only"));
        }
        for (cpus, why) in [(self.machine.disallowed(), "closed by a cgroup"), (self.machine.offline(), "offline")] {
            if !cpus.is_empty() && self.only.is_none() {
                lines.push(format!("CPUs {cpus} are {why}: nobody gets them"));
            }
        }
        lines
    }
}
