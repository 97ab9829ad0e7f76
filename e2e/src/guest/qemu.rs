//! The machine of the guest and the command that starts it. Emulated (TCG) everywhere: a nested host may offer a KVM that
//! stock kernels do not survive.

use std::path::Path;

/// A machine of equal sockets, each with one NUMA node.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// NUMA nodes, each a socket.
    pub numa_nodes: u32,
    /// L3 caches of a NUMA node. Each is a die: an emulated L3 is shared by the cores of a die.
    pub l3_per_node: u32,
    /// Cores that share an L3.
    pub cores_per_l3: u32,
    /// Hardware threads of a core.
    pub threads_per_core: u32,
    /// Memory of one NUMA node, MiB.
    pub memory_per_node_mib: u32,
    /// NUMA nodes with huge pages and how many each has, set aside at boot out of that memory.
    pub huge_pages: &'static [(u32, u32)],
}

/// Bytes of a huge page of the machine.
pub const HUGE_PAGE_BYTES: i64 = 2 << 20;

/// 4 NUMA nodes, each with two L3 of two cores, eight CPUs: 32 CPUs, 3 GiB. Big enough to go wrong, quick to emulate. Huge
/// pages are where nobody would go by himself: few on node 2, more on node 3.
pub const FOUR_NODES: Machine = Machine {
    numa_nodes: 4,
    l3_per_node: 2,
    cores_per_l3: 2,
    threads_per_core: 2,
    memory_per_node_mib: 768,
    huge_pages: &[(2, 8), (3, 32)],
};

impl Machine {
    /// Logical CPUs that share an L3.
    #[must_use]
    pub fn cpus_per_l3(self) -> u32 {
        self.cores_per_l3 * self.threads_per_core
    }

    /// Logical CPUs of one NUMA node. They are numbered node by node, threads of a core side by side.
    #[must_use]
    pub fn cpus_per_node(self) -> u32 {
        self.l3_per_node * self.cpus_per_l3()
    }

    /// Logical CPUs.
    #[must_use]
    pub fn cpus(self) -> u32 {
        self.numa_nodes * self.cpus_per_node()
    }

    fn memory_mib(self) -> u32 {
        self.numa_nodes * self.memory_per_node_mib
    }

    /// Huge pages of a NUMA node.
    #[must_use]
    pub fn huge_pages_of(self, node: u32) -> u32 {
        self.huge_pages.iter().filter(|(id, _)| *id == node).map(|(_, count)| count).sum()
    }

    fn kernel_line(self) -> String {
        let counts: Vec<String> = self.huge_pages.iter().map(|(node, count)| format!("{node}:{count}")).collect();
        if counts.is_empty() {
            return KERNEL_LINE.to_owned();
        }
        format!("{KERNEL_LINE} hugepagesz={}M hugepages={}", HUGE_PAGE_BYTES >> 20, counts.join(","))
    }

    /// Sockets two by two are neighbours: 10 to itself, 21 to the neighbour, 31 to the others.
    fn distance(from: u32, to: u32) -> u32 {
        match (from == to, from / 2 == to / 2) {
            (true, _) => 10,
            (false, true) => 21,
            (false, false) => 31,
        }
    }

    fn numa_args(self) -> Vec<String> {
        let mut args = Vec::new();
        for node in 0..self.numa_nodes {
            let (first, last) = (node * self.cpus_per_node(), (node + 1) * self.cpus_per_node() - 1);
            args.push("-object".to_owned());
            args.push(format!("memory-backend-ram,size={}M,id=m{node}", self.memory_per_node_mib));
            args.push("-numa".to_owned());
            args.push(format!("node,nodeid={node},cpus={first}-{last},memdev=m{node}"));
        }
        for from in 0..self.numa_nodes {
            for to in 0..self.numa_nodes {
                args.push("-numa".to_owned());
                args.push(format!("dist,src={from},dst={to},val={}", Self::distance(from, to)));
            }
        }
        args
    }
}

/// What one start of the guest needs.
pub(super) struct Start<'a> {
    pub(super) machine: Machine,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    pub(super) disk: &'a Path,
    /// The serial console is written there.
    pub(super) console: &'a Path,
    /// Host port of the guest's port 80.
    pub(super) probe_port: u16,
}

impl Start<'_> {
    pub(super) fn args(&self) -> Vec<String> {
        let machine = self.machine;
        let smp = format!(
            "{},sockets={},dies={},cores={},threads={}",
            machine.cpus(),
            machine.numa_nodes,
            machine.l3_per_node,
            machine.cores_per_l3,
            machine.threads_per_core
        );
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        // One emulating thread: with several, early boot hung now and then. The default vendor would show threads as cores.
        let mut args = words("-M q35,usb=off -accel tcg,thread=single -cpu max,vendor=GenuineIntel");
        args.extend(["-smp".to_owned(), smp, "-m".to_owned(), format!("{}M", machine.memory_mib())]);
        args.extend(machine.numa_args());
        args.extend(["-kernel".to_owned(), self.kernel.display().to_string()]);
        args.extend([
            "-initrd".to_owned(),
            self.initrd.display().to_string(),
            "-append".to_owned(),
            machine.kernel_line(),
        ]);
        let disk = format!("file={},format=raw,if=none,id=d0,cache=unsafe", self.disk.display());
        args.extend(["-drive".to_owned(), disk]);
        let net = format!("user,id=n0,hostfwd=tcp:127.0.0.1:{}-:80", self.probe_port);
        args.extend(["-netdev".to_owned(), net]);
        args.extend(words("-device virtio-blk-pci,drive=d0 -device virtio-net-pci,netdev=n0,romfile="));
        // A network card that hangs off NUMA node 1.
        args.extend(words("-device pxb-pcie,id=p1,bus_nr=32,numa_node=1,bus=pcie.0"));
        args.extend(words(
            "-device pcie-root-port,id=rp1,bus=p1,chassis=1,slot=1 -device virtio-net-pci,bus=rp1,romfile=",
        ));
        args.extend(words("-nodefaults -vga none -display none -no-reboot -serial"));
        args.push(format!("file:{}", self.console.display()));
        args
    }
}

/// `panic=-1` with `-no-reboot` ends QEMU when the kernel gives up; the rest shortens the boot on an emulated machine.
const KERNEL_LINE: &str = "console=ttyS0 panic=-1 quiet edd=off mitigations=off nowatchdog tsc=reliable random.trust_cpu=on audit=0 net.ifnames=0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_own_their_cpus_and_distances_are_symmetric() {
        assert_eq!(FOUR_NODES.cpus(), 32);
        let args = FOUR_NODES.numa_args();
        assert!(args.contains(&"node,nodeid=3,cpus=24-31,memdev=m3".to_owned()), "{args:?}");
        for from in 0..4 {
            for to in 0..4 {
                assert_eq!(Machine::distance(from, to), Machine::distance(to, from));
            }
        }
    }

    #[test]
    fn huge_pages_are_set_aside_by_node() {
        assert!(
            FOUR_NODES.kernel_line().ends_with(" hugepagesz=2M hugepages=2:8,3:32"),
            "{}",
            FOUR_NODES.kernel_line()
        );
        assert_eq!((FOUR_NODES.huge_pages_of(1), FOUR_NODES.huge_pages_of(3)), (0, 32));
        assert_eq!(Machine { huge_pages: &[], ..FOUR_NODES }.kernel_line(), KERNEL_LINE);
    }
}
