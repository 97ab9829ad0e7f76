//! One connection to the runtime's socket: messages in, messages out.
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::NriError;
use super::frame::{Decoder, KIND_REQUEST, KIND_RESPONSE, Message, PLUGIN_CONNECTION, RUNTIME_CONNECTION, encode};
use super::proto::{RUNTIME_SERVICE, Request, Response, Status};

/// A runtime that takes nothing for this long hangs.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Read at a time, bytes.
const READ_BYTES: usize = 16 * 1024;

/// A connection to a runtime.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    next_stream: u32,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`NriError::Connect`].
    pub async fn open(socket: &Path) -> Result<Self, NriError> {
        let failed = |source| NriError::Connect { socket: socket.display().to_string(), source };
        let late = |_| failed(std::io::ErrorKind::TimedOut.into());
        let stream = timeout(CONNECT_LIMIT, UnixStream::connect(socket)).await.map_err(late)?.map_err(failed)?;
        Ok(Self::over(stream))
    }

    /// A connection over a stream that is open.
    #[must_use]
    pub fn over(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::default(), next_stream: 1 }
    }

    /// The next message. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub async fn receive(&mut self) -> Result<Message, NriError> {
        loop {
            if let Some(message) = self.decoder.take()? {
                return Ok(message);
            }
            self.decoder.space().reserve(READ_BYTES);
            if self.stream.read_buf(self.decoder.space()).await.map_err(NriError::Read)? == 0 {
                return Err(NriError::Closed { bytes: self.decoder.unfinished_bytes() });
            }
        }
    }

    /// Calls the runtime; the number of the call is on its answer.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub async fn call(&mut self, method: &str, limit: Duration, body: &impl prost::Message) -> Result<u32, NriError> {
        let stream = self.next_stream;
        // ttrpc: a caller's numbers are odd and grow.
        self.next_stream = self.next_stream.wrapping_add(2);
        let request = Request {
            service: RUNTIME_SERVICE.to_owned(),
            method: method.to_owned(),
            payload: body.encode_to_vec().into(),
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
        };
        self.send(RUNTIME_CONNECTION, stream, KIND_REQUEST, request.encode_to_vec().into()).await?;
        Ok(stream)
    }

    /// Answers a call of the runtime.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub async fn answer(&mut self, stream: u32, body: &impl prost::Message) -> Result<(), NriError> {
        let response = Response { status: None, payload: body.encode_to_vec().into() };
        self.send(PLUGIN_CONNECTION, stream, KIND_RESPONSE, response.encode_to_vec().into()).await
    }

    /// Answers a call of the runtime with an error.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub async fn refuse(&mut self, stream: u32, code: i32, message: String) -> Result<(), NriError> {
        let response = Response { status: Some(Status { code, message }), payload: Bytes::new() };
        self.send(PLUGIN_CONNECTION, stream, KIND_RESPONSE, response.encode_to_vec().into()).await
    }

    async fn send(&mut self, connection: u32, stream: u32, kind: u8, data: Bytes) -> Result<(), NriError> {
        let mut out = BytesMut::new();
        encode(&Message { connection, stream, kind, data }, &mut out)?;
        let waited_ms = u64::try_from(WRITE_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let written = timeout(WRITE_LIMIT, self.stream.write_all(&out)).await;
        written.map_err(|_| NriError::WriteTimeout { waited_ms })?.map_err(NriError::Write)
    }
}
