//! A Redis that knows one stream with one group, for the tests of this crate.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Its address, and the number of entries that the group has not read.
pub async fn redis(lag: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let lag = Arc::new(AtomicU64::new(lag));
    let shown = lag.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shown.clone()));
        }
    });
    (address, lag)
}

async fn serve(mut stream: TcpStream, lag: Arc<AtomicU64>) {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let mut answers = String::new();
        while let Some((command, rest)) = command(&text) {
            let lag = lag.load(Ordering::SeqCst);
            match command.first().map(String::as_str) {
                Some("XINFO") => answers.push_str(&format!(
                    "*1\r\n*8\r\n$4\r\nname\r\n$1\r\ng\r\n$7\r\npending\r\n:0\r\n$12\r\nentries-read\r\n:10\r\n$3\r\nlag\r\n:{lag}\r\n"
                )),
                _ => answers.push_str("+OK\r\n"),
            }
            text = rest;
        }
        stream.write_all(answers.as_bytes()).await.unwrap();
    }
}

/// The first whole command of `text`, and what follows it.
fn command(text: &str) -> Option<(Vec<String>, String)> {
    let (count, mut rest) = text.strip_prefix('*')?.split_once("\r\n")?;
    let mut words = Vec::new();
    for _ in 0..count.parse::<usize>().unwrap() {
        let (length, after) = rest.strip_prefix('$')?.split_once("\r\n")?;
        let length: usize = length.parse().unwrap();
        words.push(after.get(..length)?.to_owned());
        rest = after.get(length + 2..)?;
    }
    Some((words, rest.to_owned()))
}
