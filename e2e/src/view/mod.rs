//! The terminal view of the demo: queues, pools, tenants and nodes, drawn from what the API server and Redis show.
mod panels;

use crate::story::milestones::Teller;
use crate::story::watch::Shared;
use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What the story has told so far.
#[derive(Clone)]
pub struct Log {
    start: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Default for Log {
    fn default() -> Self {
        Self { start: Instant::now(), lines: Arc::default() }
    }
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

impl Teller for Log {
    fn milestone(&self, name: &str, at_ms: u64, detail: &Value) {
        self.push(format!("✓ {:6.1} s  {name}  {detail}", at_ms as f64 / 1000.0));
    }

    fn progress(&self, text: &str) {
        for line in text.lines() {
            self.push(format!("  {line}"));
        }
    }
}

/// Redraws four times a second until `done` is cancelled; Ctrl-C or `q` cancels `stop`. Blocking: run it on its own thread.
///
/// # Errors
/// The terminal cannot be drawn on.
pub fn draw(world: &Shared, log: &Log, stop: &CancellationToken, done: &CancellationToken) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("taking over the terminal")?;
    let drawn = redraw(&mut terminal, world, log, stop, done);
    ratatui::restore();
    drawn
}

fn redraw(
    terminal: &mut DefaultTerminal,
    world: &Shared,
    log: &Log,
    stop: &CancellationToken,
    done: &CancellationToken,
) -> anyhow::Result<()> {
    while !done.is_cancelled() {
        let height = usize::from(terminal.size().context("reading the size of the terminal")?.height / 4).max(4);
        let lines = log.last(height);
        let elapsed = log.start.elapsed();
        {
            let world = world.lock();
            terminal.draw(|frame| panels::all(frame, &world, &lines, elapsed)).context("drawing")?;
        }
        if event::poll(Duration::from_millis(250)).context("waiting for a key")?
            && let Event::Key(key) = event::read().context("reading a key")?
            && (key.code == KeyCode::Char('q')
                || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)))
        {
            stop.cancel();
        }
    }
    Ok(())
}
