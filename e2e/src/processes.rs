//! Child processes: each in its own process group with its own log, and none outlives this process, however that ends.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc as blocking;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};

/// What to start.
#[derive(Clone, Debug)]
pub struct Command {
    /// Name for people and for the log file.
    pub name: String,
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub dir: PathBuf,
    /// Both outputs are appended here.
    pub log: PathBuf,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Exit code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.code == Some(0)
    }

    /// As a container runtime reports it: 128 + signal.
    #[must_use]
    pub fn container_code(self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => write!(f, "an unknown end"),
        }
    }
}

/// A running or ended child. Dropping it kills its whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    log: PathBuf,
    control: mpsc::UnboundedSender<Signal>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts the command; must run inside a tokio runtime.
    pub async fn start(command: &Command) -> Result<Self> {
        if let Some(folder) = command.log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let prepared = prepare(command)?;
        let child = spawn_guarded(prepared).await.with_context(|| format!("start {}", command.name))?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| anyhow!("{} has no process id", command.name))?;
        let (control, signals) = mpsc::unbounded_channel();
        let (ended, exit) = watch::channel(None);
        tokio::spawn(tend(child, pid, signals, ended));
        Ok(Self { name: command.name.clone(), pid, log: command.log.clone(), control, exit })
    }

    /// Name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id; only for looking at it in /proc while [`Self::running`].
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Not ended yet.
    #[must_use]
    pub fn running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends a signal to the whole group, if the process still runs (a stale process id is never signalled).
    pub fn signal(&self, signal: Signal) {
        // A closed channel means that it has ended: then there is nobody to signal.
        let _ = self.control.send(signal);
    }

    /// Resolves when the process has ended.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let gone = Exit { code: None, signal: None };
        exit.wait_for(Option::is_some).await.map_or(gone, |exit| exit.unwrap_or(gone))
    }

    /// SIGTERM, and SIGKILL to the group when `grace` is over.
    pub async fn stop(&self, grace: Duration) -> Exit {
        self.signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(grace, self.exited()).await {
            return exit;
        }
        tracing::debug!(part = %self.name, "did not stop in time, killing");
        self.kill().await
    }

    /// SIGKILL to the group.
    pub async fn kill(&self) -> Exit {
        self.signal(Signal::KILL);
        self.exited().await
    }

    /// Waits until `ready` answers true; fails with the end of the log if the process ends or `limit` passes.
    pub async fn wait_ready<F, Fut>(&self, limit: Duration, mut ready: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let polling = async {
            while !ready().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = polling => Ok(()),
            exit = self.exited() => Err(self.not_ready(&format!("it ended with {exit}"))),
            () = tokio::time::sleep(limit) => Err(self.not_ready(&format!("not within {} s", limit.as_secs()))),
        }
    }

    fn not_ready(&self, why: &str) -> anyhow::Error {
        anyhow!(
            "part {} did not become ready: {why}; the end of its log ({}):\n{}",
            self.name,
            self.log.display(),
            log_tail(&self.log, 25)
        )
    }
}

/// The last lines of a log file, indented.
#[must_use]
pub fn log_tail(path: &Path, lines: usize) -> String {
    const WINDOW_BYTES: u64 = 16 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].iter().fold(String::new(), |mut out, line| {
                let _ = writeln!(out, "    {line}");
                out
            })
        }
        Err(error) => format!("    (no log: {error})\n"),
    }
}

/// The child asks the kernel to be killed with its parent *thread*, hence the one long-lived spawner thread. Between
/// fork and that request the parent may already be gone: the shell compares its parent before it becomes the program.
pub(crate) fn guarded(program: &Path) -> tokio::process::Command {
    let mut out = tokio::process::Command::new("/usr/bin/setpriv");
    out.args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c", "test \"$PPID\" = \"$0\" || exit 125; exec \"$@\""])
        .arg(std::process::id().to_string())
        .arg(program)
        .env_clear()
        .process_group(0)
        .kill_on_drop(true);
    out
}

fn prepare(command: &Command) -> Result<tokio::process::Command> {
    let mut log = OpenOptions::new().create(true).append(true).open(&command.log)?;
    writeln!(log, "--- {} {}", command.program.display(), command.args.join(" "))?;
    let mut out = guarded(&command.program);
    out.args(&command.args)
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(out)
}

type Job = Box<dyn FnOnce() + Send>;

fn spawner() -> Result<&'static blocking::Sender<Job>> {
    static SPAWNER: OnceLock<Option<blocking::Sender<Job>>> = OnceLock::new();
    let start = || {
        let (sender, jobs) = blocking::channel::<Job>();
        let thread = std::thread::Builder::new().name("spawner".to_owned());
        thread.spawn(move || jobs.into_iter().for_each(|job| job())).ok().map(|_| sender)
    };
    SPAWNER.get_or_init(start).as_ref().ok_or_else(|| anyhow!("the spawner thread could not be started"))
}

/// Starts a [`guarded`] command.
pub(crate) async fn spawn_guarded(mut command: tokio::process::Command) -> Result<Child> {
    let runtime = tokio::runtime::Handle::current();
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move || {
        let _inside = runtime.enter();
        // The receiver waits below; if it was dropped, the child is killed on drop.
        let _ = reply.send(command.spawn());
    });
    if spawner()?.send(job).is_err() {
        bail!("the spawner thread has ended");
    }
    Ok(answer.await??)
}

async fn tend(
    mut child: Child,
    pid: i32,
    mut signals: mpsc::UnboundedReceiver<Signal>,
    ended: watch::Sender<Option<Exit>>,
) {
    use std::os::unix::process::ExitStatusExt as _;
    let mut owned = true;
    loop {
        // Only this task reaps, so while it loops the process id is the child's.
        tokio::select! {
            status = child.wait() => {
                let exit = status.map_or(Exit { code: None, signal: None }, |status| Exit { code: status.code(), signal: status.signal() });
                ended.send_replace(Some(exit));
                return;
            }
            signal = signals.recv(), if owned => {
                owned = signal.is_some();
                if let Some(group) = Pid::from_raw(pid) {
                    let _ = kill_process_group(group, signal.unwrap_or(Signal::KILL));
                }
            }
        }
    }
}
