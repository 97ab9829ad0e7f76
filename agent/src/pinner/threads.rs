//! Keeps the agent's own threads off CPUs that containers own. Its cgroup keeps all CPUs: from within a smaller one the
//! agent would see a smaller machine.
use std::io;

use fairlead_topology::CpuMask;
use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

/// A thread may be started by one that was not confined yet; its own children are.
const PASSES: usize = 2;

/// Lets all threads of this process run on these CPUs only, those that they start included. CPUs beyond the kernel's
/// fixed-size set of 1,024 are left out: the agent needs one, and not all.
///
/// # Errors
/// None of the CPUs is there for this process; then it runs where it ran.
pub(super) fn confine(cpus: &CpuMask) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter_map(|cpu| usize::try_from(cpu).ok()).filter(|cpu| *cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    for _ in 0..PASSES {
        for entry in std::fs::read_dir("/proc/self/task")? {
            let name = entry?.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
                continue;
            };
            match sched_setaffinity(Some(thread), &set) {
                // It has ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use fairlead_discovery::{HwlocSource, TopologySource as _};
    use rustix::thread::{gettid, sched_getaffinity};

    use super::*;

    /// All threads of the process are confined by one of these tests.
    static ALONE: Mutex<()> = Mutex::new(());

    fn allowed() -> CpuMask {
        mask(&sched_getaffinity(None).unwrap())
    }

    fn mask(set: &CpuSet) -> CpuMask {
        CpuMask::from_ids((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| u32::try_from(cpu).unwrap()))
    }

    #[test]
    fn threads_that_run_and_threads_to_come_are_kept_off() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = allowed();
        let one = CpuMask::from_ids(before.iter().take(1));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let earlier = std::thread::spawn(move || wait.recv().map(|()| allowed()));
        confine(&one).unwrap();
        go.send(()).unwrap();
        assert_eq!(earlier.join().unwrap().unwrap(), one);
        assert_eq!(std::thread::spawn(allowed).join().unwrap(), one);
        confine(&before).unwrap();
        assert_eq!(allowed(), before);
        assert!(confine(&CpuMask::new()).is_err());
    }

    /// hwloc's x86 backend would ask each CPU on that CPU, those that containers own included.
    #[test]
    fn a_look_at_the_machine_binds_nobody() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = allowed();
        let (tell, told) = std::sync::mpsc::channel();
        let looks = std::thread::spawn(move || {
            tell.send(gettid()).unwrap();
            (0..10).for_each(|_| drop(HwlocSource::native().describe().unwrap()));
        });
        let thread = told.recv().unwrap();
        while !looks.is_finished() {
            if let Ok(set) = sched_getaffinity(Some(thread)) {
                assert_eq!(mask(&set), before);
            }
        }
        looks.join().unwrap();
    }
}
