//! CPU time and memory of the bed's processes, by kind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report::Report;
use crate::bed::{Bed, resident_bytes};

/// Busy time of all processes together below which the bed counts as at rest, in percent of one CPU.
const AT_REST_PERCENT: f64 = 35.0;

/// All processes of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Kind {
    /// How many.
    pub(super) processes: usize,
    /// CPU time of all of them since they started, in milliseconds.
    pub(super) cpu_ms: f64,
    /// Largest resident set.
    pub(super) resident_bytes: u64,
}

/// What all kinds have used so far.
pub(super) type Usage = BTreeMap<String, Kind>;

/// Looks at every process of the bed, and at `others`.
pub(super) async fn now(bed: &Bed, others: &[(String, i32)]) -> Usage {
    let mut all = Usage::new();
    for (name, pid) in bed.processes().await.iter().chain(others) {
        // Processes end while they are being looked at.
        let (Ok(cpu_ms), Ok(resident)) = (cpu_ms(*pid), resident_bytes(*pid)) else { continue };
        let kind = all.entry(kind_of(name)).or_default();
        kind.processes += 1;
        kind.cpu_ms += cpu_ms;
        kind.resident_bytes = kind.resident_bytes.max(resident);
    }
    all
}

/// CPU time of a kind between two looks, in milliseconds.
pub(super) fn spent_ms(kind: &str, before: &Usage, after: &Usage) -> f64 {
    let at = |usage: &Usage| usage.get(kind).map_or(0.0, |kind| kind.cpu_ms);
    (at(after) - at(before)).max(0.0)
}

/// One row of memory for each kind.
pub(super) fn report_memory(report: &mut Report, when: &str, usage: &Usage) {
    for (name, kind) in usage {
        let of = if kind.processes > 1 { format!("{name}, largest of {}", kind.processes) } else { name.clone() };
        let bytes = u32::try_from(kind.resident_bytes >> 10).map_or(f64::INFINITY, |kib| f64::from(kib) * 1024.0);
        report.add(format!("resident memory {when}: {of}"), bytes, "bytes", kind.processes);
    }
}

/// Waits until the bed does next to nothing for two seconds; goes on after `limit` all the same, since other work on the
/// machine is none of its business. Returns whether it came to rest.
pub(super) async fn settle(bed: &Bed, limit: Duration) -> bool {
    let began = Instant::now();
    let total = |usage: &Usage| usage.values().map(|kind| kind.cpu_ms).sum::<f64>();
    let (mut before, mut looked) = (total(&now(bed, &[]).await), Instant::now());
    let mut calm = 0;
    while began.elapsed() < limit {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = total(&now(bed, &[]).await);
        let percent = (after - before) / looked.elapsed().as_secs_f64() / 10.0;
        (before, looked) = (after, Instant::now());
        calm = if percent < AT_REST_PERCENT { calm + 1 } else { 0 };
        if calm == 2 {
            return true;
        }
    }
    tracing::warn!(seconds = limit.as_secs(), "the bed did not come to rest, going on");
    false
}

/// `POD/CONTAINER` for the release, a plain name for the genuine parts.
fn kind_of(name: &str) -> String {
    match name.split_once('/') {
        Some((_, "kube-scheduler")) => "kube-scheduler of Fairlead".to_owned(),
        Some((_, container)) => format!("fairlead-{container}"),
        None => name.to_owned(),
    }
}

/// CPU time of the whole machine and of this process with all its children, ended ones included, in milliseconds.
pub(super) fn machine_and_own_ms() -> Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let all = text.lines().next().context("/proc/stat is empty")?;
    // proc(5): user, nice, system, idle, iowait, irq, softirq; what a hypervisor took is nobody's here.
    let ticks: Vec<f64> = all.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|column: &usize| ticks.get(*column)).sum();
    let me = std::process::id().to_string();
    let mut own = 0.0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, after_name)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // Fields 4 and 14 to 17 of proc(5), counted from the third; children that have ended count with their parent.
        let times = if entry.file_name().to_str() == Some(&me) { 11..15 } else { 11..13 };
        if times.end == 15 || fields.get(1) == Some(&me.as_str()) {
            own += fields.get(times).into_iter().flatten().filter_map(|text| text.parse::<f64>().ok()).sum::<f64>();
        }
    }
    Ok((busy * ms_per_tick(), own * ms_per_tick()))
}

fn ms_per_tick() -> f64 {
    1000.0 / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100))
}

fn cpu_ms(pid: i32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15 of proc(5), counted from the one after the program's name, the third.
    let mut fields = stat.rsplit_once(')').context("stat without a name")?.1.split_whitespace().skip(11);
    let mut ticks = || -> Result<u32> { Ok(fields.next().context("stat without CPU times")?.parse()?) };
    let both = f64::from(ticks()?) + f64::from(ticks()?);
    Ok(both * ms_per_tick())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_passes() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = cpu_ms(pid).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        assert!(cpu_ms(pid).unwrap() >= before);
        let (machine, own) = machine_and_own_ms().unwrap();
        assert!(machine > own && own >= before);
    }

    #[test]
    fn kinds_are_what_people_call_them() {
        assert_eq!(kind_of("fairlead-operator-5d-x/operator"), "fairlead-operator");
        assert_eq!(kind_of("fairlead-scheduler-5d-x/kube-scheduler"), "kube-scheduler of Fairlead");
        assert_eq!(kind_of("etcd"), "etcd");
    }
}
