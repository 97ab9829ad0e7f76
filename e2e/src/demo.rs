//! The demo: a bed, Fairlead in it, and the story, on a terminal view or as JSON lines.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Options};
use crate::release;
use crate::story::milestones::{Lines, Teller};
use crate::story::{self, Play, Scene};
use crate::view::{self, Log};

const KUBECTL_LIMIT: Duration = Duration::from_secs(120);
/// Address of the queue in `examples/`; the bed's own takes its place.
const EXAMPLE_REDIS: &str = "redis.example.com:6379";
/// Password of the queue in `examples/`.
const EXAMPLE_PASSWORD: &str = "change-me";

/// The bed as the story sees it.
pub struct Stage<'a> {
    bed: &'a Bed,
    examples: PathBuf,
}

impl<'a> Stage<'a> {
    /// Copies what the story applies, with the addresses of this bed.
    ///
    /// # Errors
    /// A file cannot be read or written, or the bed has no queue.
    pub fn new(bed: &'a Bed) -> Result<Self> {
        Self::with(bed, &["examples", "e2e/scenery"])
    }

    /// Copies the examples only, with the addresses of this bed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_scenery(bed: &'a Bed) -> Result<Self> {
        Self::with(bed, &["examples"])
    }

    fn with(bed: &'a Bed, folders: &[&str]) -> Result<Self> {
        let redis = bed.redis.as_ref().context("the story needs a bed with a queue")?;
        let examples = bed.dir.join("examples");
        std::fs::create_dir_all(&examples)?;
        for from in folders.iter().map(|folder| bed.parts.root.join(folder)) {
            for entry in std::fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
                let path = entry?.path();
                let (Some(name), true) = (path.file_name(), path.is_file()) else { continue };
                let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                let text = text.replace(EXAMPLE_REDIS, &redis.address()).replace(EXAMPLE_PASSWORD, redis.password());
                std::fs::write(examples.join(name), text)?;
            }
        }
        Ok(Self { bed, examples })
    }
}

impl Scene for Stage<'_> {
    fn client(&self) -> kube::Client {
        self.bed.client.clone()
    }

    fn redis_url(&self) -> String {
        let redis = self.bed.redis.as_ref();
        redis.map(|redis| format!("redis://default:{}@{}/", redis.password(), redis.address())).unwrap_or_default()
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.bed.kubectl.run(args, KUBECTL_LIMIT).await
    }

    async fn uninstall(&self) -> Result<()> {
        self.bed.uninstall_fairlead().await
    }

    fn examples(&self) -> PathBuf {
        self.examples.clone()
    }
}

/// Plays the story; `script` tells it as JSON lines, otherwise a view is drawn.
///
/// # Errors
/// The bed did not start, or a milestone was not seen in its time.
pub async fn demo(script: bool) -> Result<()> {
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone()));
    let bed = tokio::select! {
        bed = Bed::start(Options::new("demo")) => bed?,
        () = stop.cancelled() => bail!("ended before the cluster was up"),
    };
    let told = tell(&bed, script, &stop).await.map_err(|error| keep_logs(&bed, error));
    bed.stop().await?;
    told
}

async fn tell(bed: &Bed, script: bool, stop: &CancellationToken) -> Result<()> {
    let prepare = async {
        bed.install_fairlead(&release::values(bed)).await?;
        let stage = Stage::new(bed)?;
        let play = Play::start(&stage).await?;
        anyhow::Ok((stage, play))
    };
    let (stage, play) = tokio::select! {
        ready = prepare => ready?,
        () = stop.cancelled() => bail!("ended before Fairlead was installed"),
    };
    if !script {
        return draw(&stage, &play, stop).await;
    }
    Lines.progress("the story begins");
    tokio::select! {
        told = story::run(&stage, &play, &Lines, Duration::ZERO) => told,
        () = stop.cancelled() => bail!("ended before the last milestone"),
    }
}

/// Plays on the terminal until somebody ends it; what is drawn stays when the story is over.
async fn draw(stage: &Stage<'_>, play: &Play, stop: &CancellationToken) -> Result<()> {
    let log = Log::default();
    let done = CancellationToken::new();
    let drawing = {
        let (world, log, stop, done) = (play.world.clone(), log.clone(), stop.clone(), done.clone());
        tokio::task::spawn_blocking(move || view::draw(&world, &log, &stop, &done))
    };
    tokio::pin!(drawing);
    let story = async {
        let told = story::run(stage, play, &log, Duration::ZERO).await;
        match &told {
            Ok(()) => log.progress("the story is told; q or Ctrl-C ends everything"),
            Err(error) => log.progress(&format!("{error:#}")),
        }
        stop.cancelled().await;
        told
    };
    let told = tokio::select! {
        told = story => told,
        () = stop.cancelled() => Ok(()),
        // It ends by itself only when it cannot draw.
        drawn = &mut drawing => return drawn.context("drawing the view")?,
    };
    done.cancel();
    drawing.await.context("drawing the view")??;
    told
}

/// On a failure the logs of the release stay where they can be read.
fn keep_logs(bed: &Bed, error: anyhow::Error) -> anyhow::Error {
    match bed.keep_logs() {
        Ok(kept) => error.context(format!("logs are kept in {}", kept.display())),
        Err(problem) => error.context(format!("logs could not be kept: {problem:#}")),
    }
}

async fn cancel_on_signal(stop: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    stop.cancel();
}
