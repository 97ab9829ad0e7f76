//! Bytes of the runtime's socket to ttrpc messages and back, without I/O.
//!
//! ```text
//! socket:      [connection u32 BE][length u32 BE][payload] …            frames of all connections, mixed
//! connection:  [length u32 BE][stream u32 BE][kind u8][flags u8][data] … the payloads put together
//! ```
//!
//! Formats: containerd/nri `pkg/net/multiplex/mux.go`, containerd/ttrpc `PROTOCOL.md`. A message may be cut into frames
//! anywhere, and a frame may hold several messages.
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::NriError;

/// The connection on which the plugin serves.
pub const PLUGIN_CONNECTION: u32 = 1;
/// The connection on which the runtime serves.
pub const RUNTIME_CONNECTION: u32 = 2;
/// Data of one message, bytes: the protocol's bound.
pub const MESSAGE_BYTES_MAX: u32 = 4 << 20;
/// Payload of one frame that is accepted, bytes: a message and its header.
pub const FRAME_BYTES_MAX: u32 = MESSAGE_BYTES_MAX + MESSAGE_HEADER_BYTES as u32;
/// Payload of one frame that is sent, bytes: runtimes read a frame into a buffer of this size, and drop the connection
/// when it does not fit.
const SENT_FRAME_BYTES_MAX: usize = 4096;
const FRAME_HEADER_BYTES: usize = 8;
const MESSAGE_HEADER_BYTES: usize = 10;

/// ttrpc message type: a call.
pub const KIND_REQUEST: u8 = 1;
/// ttrpc message type: its answer.
pub const KIND_RESPONSE: u8 = 2;

/// One ttrpc message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The multiplexed connection it came on.
    pub connection: u32,
    /// Number of the call, chosen by the caller.
    pub stream: u32,
    /// [`KIND_REQUEST`] or [`KIND_RESPONSE`].
    pub kind: u8,
    /// An encoded request or response.
    pub data: Bytes,
}

/// Puts messages together from bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes that are not yet a frame's header, or the frame's payload as far as it belongs to no known connection.
    socket: BytesMut,
    /// The frame whose payload is being read: its connection and the bytes that are missing.
    frame: Option<(u32, usize)>,
    plugin: BytesMut,
    runtime: BytesMut,
}

impl Decoder {
    /// Bytes held of messages that are not complete.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        self.socket.len() + self.plugin.len() + self.runtime.len()
    }

    /// Where the next bytes of the socket go; then [`Decoder::next`].
    pub fn space(&mut self) -> &mut BytesMut {
        &mut self.socket
    }

    /// The next complete message; none until more bytes came.
    ///
    /// # Errors
    /// [`NriError::FrameTooLong`], [`NriError::MessageTooLong`]: the connection cannot be used any more.
    pub fn next(&mut self) -> Result<Option<Message>, NriError> {
        loop {
            for connection in [PLUGIN_CONNECTION, RUNTIME_CONNECTION] {
                let buffer = self.buffer(connection);
                if let Some(message) = buffer.map(|buffer| take_message(connection, buffer)).transpose()?.flatten() {
                    return Ok(Some(message));
                }
            }
            if !self.take_frame_part()? {
                return Ok(None);
            }
        }
    }

    fn buffer(&mut self, connection: u32) -> Option<&mut BytesMut> {
        match connection {
            PLUGIN_CONNECTION => Some(&mut self.plugin),
            RUNTIME_CONNECTION => Some(&mut self.runtime),
            _ => None,
        }
    }

    /// Moves bytes of the socket to the connection they belong to; false when there are none to move.
    fn take_frame_part(&mut self) -> Result<bool, NriError> {
        let Some((connection, missing)) = self.frame else { return self.take_frame_header() };
        let part = missing.min(self.socket.len());
        if part == 0 && missing > 0 {
            return Ok(false);
        }
        let bytes = self.socket.split_to(part);
        // Payload of a connection that nobody opened is dropped, as the runtime does.
        if let Some(buffer) = self.buffer(connection) {
            buffer.unsplit(bytes);
        }
        self.frame = (missing > part).then_some((connection, missing - part));
        Ok(true)
    }

    fn take_frame_header(&mut self) -> Result<bool, NriError> {
        if self.socket.len() < FRAME_HEADER_BYTES {
            return Ok(false);
        }
        let (connection, bytes) = (self.socket.get_u32(), self.socket.get_u32());
        if bytes > FRAME_BYTES_MAX {
            return Err(NriError::FrameTooLong { connection, bytes });
        }
        self.frame = Some((connection, bytes as usize));
        Ok(true)
    }
}

fn take_message(connection: u32, buffer: &mut BytesMut) -> Result<Option<Message>, NriError> {
    let mut header = buffer.as_ref();
    if header.len() < MESSAGE_HEADER_BYTES {
        return Ok(None);
    }
    let (bytes, stream, kind) = (header.get_u32(), header.get_u32(), header.get_u8());
    if bytes > MESSAGE_BYTES_MAX {
        return Err(NriError::MessageTooLong { connection, bytes });
    }
    let end = MESSAGE_HEADER_BYTES + bytes as usize;
    if buffer.len() < end {
        return Ok(None);
    }
    let mut message = buffer.split_to(end);
    message.advance(MESSAGE_HEADER_BYTES);
    Ok(Some(Message { connection, stream, kind, data: message.freeze() }))
}

/// Appends a message to `out`, cut into frames that every runtime reads.
///
/// # Errors
/// [`NriError::MessageTooLong`]: it cannot be sent.
pub fn encode(message: &Message, out: &mut BytesMut) -> Result<(), NriError> {
    let connection = message.connection;
    let bytes = u32::try_from(message.data.len()).unwrap_or(u32::MAX);
    if bytes > MESSAGE_BYTES_MAX {
        return Err(NriError::MessageTooLong { connection, bytes });
    }
    let mut whole = BytesMut::with_capacity(MESSAGE_HEADER_BYTES + message.data.len());
    whole.put_u32(bytes);
    whole.put_u32(message.stream);
    whole.put_u8(message.kind);
    whole.put_u8(0);
    whole.put_slice(&message.data);
    for part in whole.chunks(SENT_FRAME_BYTES_MAX) {
        out.put_u32(connection);
        out.put_u32(part.len() as u32);
        out.put_slice(part);
    }
    Ok(())
}
