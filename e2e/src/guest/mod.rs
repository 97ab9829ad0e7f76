//! A genuine node: Linux in QEMU on a machine of several NUMA nodes, with containerd, runc and kubelet, joined to the bed.

mod archive;
mod cpio;
mod image;
mod probe;
mod qemu;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;

pub use self::probe::{Confinement, GuestProcess, Probe, Throttling, list};
pub use self::qemu::{FOUR_NODES, HUGE_PAGE_BYTES, Machine};
use crate::bed::Bed;
use crate::control_plane::base_env;
use crate::eventually::{Seen, eventually};
use crate::ports;
use crate::processes::{Command, Process, log_tail};

/// What every sandbox runs.
const PAUSE_IMAGE: &str = "localhost/pause:1";
/// A container with a shell, for the test's own pods. Never pulled.
pub const WORKER_IMAGE: &str = "localhost/worker:1";
const FIRST_LINE_LIMIT: Duration = Duration::from_secs(60);
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of its Node; must be one of the bed's `genuine_nodes`.
    pub node: String,
    /// Its machine.
    pub machine: Machine,
    /// Image archives (OCI or docker) that its runtime knows from the start.
    pub archives: Vec<PathBuf>,
}

/// A running guest. Dropping it kills it and removes its disk.
pub struct Guest {
    /// Name of its Node.
    pub node: String,
    /// Its machine.
    pub machine: Machine,
    /// What its kernel says.
    pub probe: Probe,
    dir: PathBuf,
    process: Process,
}

impl Guest {
    /// Makes the disk, boots, and returns when the guest answers questions; its kubelet joins a moment later.
    ///
    /// # Errors
    /// A part is missing, QEMU refuses, or the guest does not come up within three minutes (with the end of its console).
    pub async fn start(bed: &Bed, options: Options) -> Result<Self> {
        let dir = bed.dir.join(format!("guest-{}", options.node));
        std::fs::create_dir_all(&dir)?;
        let began = Instant::now();
        write_images(bed, &options, &dir).await?;
        tracing::info!(seconds = began.elapsed().as_secs_f32(), "the guest's disk is made");
        let probe = Probe { port: ports::free()? };
        let process = boot_twice(bed, &options, &dir, probe.port).await?;
        let guest = Self { node: options.node, machine: options.machine, probe, dir, process };
        let answers = || async { guest.probe.shell("true").await.is_ok() };
        guest.process.wait_ready(BOOT_LIMIT, answers).await.with_context(|| guest.console_tail(25))?;
        tracing::info!(seconds = began.elapsed().as_secs_f32(), "the guest answers");
        Ok(guest)
    }

    /// Waits until its Node is Ready.
    ///
    /// # Errors
    /// Not within `limit`: with the ends of its logs.
    pub async fn ready(&self, client: &kube::Client, limit: Duration) -> Result<()> {
        let api: Api<Node> = Api::all(client.clone());
        let is_ready = || async {
            let Some(node) = api.get_opt(&self.node).await? else {
                return Ok(Seen::NotYet("the kubelet has not registered".to_owned()));
            };
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
            Ok(match ready {
                Some(condition) if condition.status == "True" => Seen::Yes(()),
                other => Seen::NotYet(format!("{:?}", other.and_then(|condition| condition.message))),
            })
        };
        let waited = eventually(&format!("node {} is Ready", self.node), limit, is_ready).await;
        match waited {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.logs().await)),
        }
    }

    /// The end of the console.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> String {
        format!("console of {}:\n{}", self.node, log_tail(&self.dir.join("console"), lines))
    }

    /// The ends of the logs of console, containerd, kubelet and all containers, for a failure's report.
    pub async fn logs(&self) -> String {
        let script = "cd /var/log; for f in *.log pods/*/*/*.log; do echo \"== $f\"; tail -n 400 \"$f\"; done";
        let inside = self.probe.shell(script).await.unwrap_or_else(|error| format!("{error:#}"));
        format!("{}\n{inside}", self.console_tail(100))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A gigabyte that tells nothing; the process ends with its handle.
        let _ = std::fs::remove_file(self.dir.join("disk"));
    }
}

async fn write_images(bed: &Bed, options: &Options, dir: &Path) -> Result<()> {
    let (parts, plane) = (bed.parts.clone(), &bed.plane);
    let (ca_file, kubeconfig) = (plane.ca_file(), plane.node_kubeconfig(&options.node));
    let (options, dir, api_port) = (options.clone(), dir.to_owned(), plane.port());
    let work = move || {
        image::write_initrd(&parts.kernel(), &dir.join("initrd"))?;
        let content = image::Content {
            node: &options.node,
            api_port,
            ca_file: &ca_file,
            kubeconfig: &kubeconfig,
            archives: &options.archives,
        };
        image::write_disk(&parts, &content, &dir, &dir.join("disk"))
    };
    tokio::task::spawn_blocking(work).await.context("make the guest's disk")?
}

/// Early boot hung twice in fifty starts of the same machine: once more is enough.
async fn boot_twice(bed: &Bed, options: &Options, dir: &Path, probe_port: u16) -> Result<Process> {
    match boot(bed, options, dir, probe_port).await {
        Ok(process) => Ok(process),
        Err(error) => {
            tracing::warn!("{error:#}; once more");
            boot(bed, options, dir, probe_port).await
        }
    }
}

/// Starts QEMU and waits for the first line on the console: a boot that hangs does so before it.
async fn boot(bed: &Bed, options: &Options, dir: &Path, probe_port: u16) -> Result<Process> {
    let kernel = bed.parts.kernel().join("vmlinuz");
    let (initrd, disk, console) = (dir.join("initrd"), dir.join("disk"), dir.join("console"));
    std::fs::write(&console, "")?;
    let start = qemu::Start {
        machine: options.machine,
        kernel: &kernel,
        initrd: &initrd,
        disk: &disk,
        console: &console,
        probe_port,
    };
    let command = Command {
        name: format!("qemu-{}", options.node),
        program: "/usr/bin/qemu-system-x86_64".into(),
        args: start.args(),
        env: base_env(&bed.dir.join("home")),
        dir: dir.to_owned(),
        log: dir.join("qemu.log"),
    };
    let process = Process::start(&command).await?;
    let speaks = || async { std::fs::metadata(&console).is_ok_and(|file| file.len() > 0) };
    process.wait_ready(FIRST_LINE_LIMIT, speaks).await?;
    if !process.running() {
        bail!("QEMU ended at once: {}", log_tail(&dir.join("qemu.log"), 10));
    }
    Ok(process)
}
