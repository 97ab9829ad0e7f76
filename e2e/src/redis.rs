//! The genuine queue: redis-server on loopback, which can go away and come back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Mutex;

use crate::control_plane::base_env;
use crate::ports;
use crate::processes::{Command, Process};

/// Debian's `redis-tools` holds the server too, one binary that looks at the name it is called by; `redis-server` adds
/// only the link and a daemon that the host would start.
const PROGRAM: &str = "/usr/bin/redis-check-rdb";

/// A Redis server with a password and nothing on disk: after a stop its streams are gone.
pub struct Redis {
    dir: PathBuf,
    port: u16,
    password: String,
    process: Mutex<Option<Process>>,
}

impl Redis {
    /// Starts it and returns when it answers.
    pub async fn start(dir: &Path, password: &str) -> Result<Self> {
        let redis = Self {
            dir: dir.to_owned(),
            port: ports::free()?,
            password: password.to_owned(),
            process: Mutex::new(None),
        };
        redis.resume().await?;
        Ok(redis)
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The password of the default user.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A client of the `redis` crate.
    pub fn client(&self) -> Result<redis::Client> {
        Ok(redis::Client::open(format!("redis://:{}@127.0.0.1:{}/", self.password, self.port))?)
    }

    /// Its process id while it runs.
    pub async fn pid(&self) -> Option<i32> {
        self.process.lock().await.as_ref().filter(|process| process.running()).map(Process::pid)
    }

    /// Starts it again on the same port, empty.
    pub async fn resume(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        if slot.as_ref().is_some_and(Process::running) {
            return Ok(());
        }
        let data = self.dir.join("redis");
        std::fs::create_dir_all(&data)?;
        let program = data.join("redis-server");
        if !program.exists() {
            std::os::unix::fs::symlink(PROGRAM, &program)?;
        }
        let port = self.port.to_string();
        let data_text = data.display().to_string();
        let args = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            &data_text,
            "--save",
            "",
            "--appendonly",
            "no",
            "--requirepass",
            &self.password,
        ];
        let command = Command {
            name: "redis-server".to_owned(),
            program,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: base_env(&data),
            dir: data,
            log: self.dir.join("logs/redis-server.log"),
        };
        let process = Process::start(&command).await?;
        process.wait_ready(Duration::from_secs(20), || async { self.answers().await.is_ok() }).await?;
        *slot = Some(process);
        Ok(())
    }

    /// SIGKILL: what it held is gone.
    pub async fn kill(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.kill().await;
        }
    }

    async fn answers(&self) -> Result<()> {
        let client = self.client()?;
        let ping = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        tokio::time::timeout(Duration::from_secs(1), ping).await??;
        Ok(())
    }
}
