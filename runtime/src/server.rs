//! A small HTTP/1 server with limits: connections, time to shake hands and to send a request's head, and time to finish
//! at the end.

use crate::tls::{Edition, Tls};
use axum::Router;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// After a failed accept (no file descriptors left, mostly) the next is tried only after this pause, or the loop spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time in which a TLS handshake must be complete: until then nobody has proved to be allowed to take a connection.
const HANDSHAKE_LIMIT: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(5) };

/// What a server lets its peers take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections: usize,
    /// Time in which a request's head must be complete; it also ends an idle connection. `None`: no limit, for a
    /// loopback peer that keeps one connection.
    pub header_read_timeout: Option<Duration>,
    /// Time that requests in flight get to finish after the shutdown.
    pub drain: Duration,
}

/// Serves `router` on `listener` until `shutdown`, then lets what is in flight finish within [`Limits::drain`]. With `tls`
/// only peers with a certificate that it admits are served.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Some((stream, permit)) = accept(&listener, &permits, &shutdown).await {
        while connections.try_join_next().is_some() {}
        let (router, watcher, limits) = (router.clone(), graceful.watcher(), limits.clone());
        let edition = tls.as_ref().map(Tls::edition);
        connections.spawn(async move {
            match edition {
                None => converse(stream, router, &limits, watcher).await,
                Some(edition) => {
                    if let Some(stream) = handshake(stream, &edition).await {
                        converse(stream, until_replaced(router, edition), &limits, watcher).await;
                    }
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(left = connections.len(), "Requests were still in flight at the end");
    }
    connections.shutdown().await;
}

/// The stream of a peer that proved who it is in time.
async fn handshake(stream: TcpStream, edition: &Edition) -> Option<TlsStream<TcpStream>> {
    let acceptor = TlsAcceptor::from(edition.config.clone());
    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(error = %error, "Refused a TLS connection");
            None
        }
        Err(_) => {
            tracing::info!("A TLS handshake took too long");
            None
        }
    }
}

/// Whoever came before the TLS material was replaced is told with the next answer to come again. Closing at once could
/// meet a request that is on its way, which Go's client does not send twice.
fn until_replaced(router: Router, edition: Edition) -> Router {
    router.layer(axum::middleware::map_response(move |mut response: Response| {
        if edition.is_former() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(response)
    }))
}

async fn converse<S>(stream: S, router: Router, limits: &Limits, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %error, "Connection ended early");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let permit = permits.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Small answers must not wait for more to send.
                    drop(stream.set_nodelay(true));
                    return Some((stream, permit));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "Failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = next => accepted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    async fn start(limits: Limits) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = get(|| async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            "slow"
        });
        let router = Router::new().route("/", slow);
        let token = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, limits, None, token.clone()));
        (address, token, task)
    }

    fn limits() -> Limits {
        Limits { connections: 4, header_read_timeout: Some(Duration::from_millis(100)), drain: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn what_is_in_flight_is_finished_at_the_end() {
        let (address, token, task) = start(limits()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        token.cancel();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-length: 4"), "{answer}");
        task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_peer_that_never_asks_is_hung_up_on() {
        let (address, _token, _task) = start(limits()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok());
    }

    #[tokio::test]
    async fn connections_above_the_limit_wait_for_their_turn() {
        let one = Limits { connections: 1, header_read_timeout: Some(Duration::from_secs(2)), ..limits() };
        let (address, _token, _task) = start(one).await;
        let started = std::time::Instant::now();
        let ask = || async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(ASK).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("slow"), "{answer}");
        };
        tokio::join!(ask(), ask());
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
}
