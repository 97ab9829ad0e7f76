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

    /// Where the next bytes of the socket go; then [`Decoder::take`].
    pub fn space(&mut self) -> &mut BytesMut {
        &mut self.socket
    }

    /// The next complete message; none until more bytes came.
    ///
    /// # Errors
    /// [`NriError::FrameTooLong`], [`NriError::MessageTooLong`]: the connection cannot be used any more.
    pub fn take(&mut self) -> Result<Option<Message>, NriError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(connection: u32, stream: u32, bytes: usize) -> Message {
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        Message { connection, stream, kind: KIND_REQUEST, data: data.into() }
    }

    fn encoded(messages: &[Message]) -> BytesMut {
        let mut out = BytesMut::new();
        for message in messages {
            encode(message, &mut out).unwrap();
        }
        out
    }

    fn decoded(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Message>, NriError> {
        decoder.space().extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(message) = decoder.take()? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn no_frame_is_longer_than_runtimes_read() {
        let bytes = encoded(&[message(1, 1, 20_000)]);
        let mut rest = bytes.as_ref();
        let mut frames = 0;
        while rest.has_remaining() {
            let (connection, length) = (rest.get_u32(), rest.get_u32() as usize);
            assert!(connection == 1 && length <= 4096);
            rest.advance(length);
            frames += 1;
        }
        assert_eq!(frames, 5);
        let long = Message { data: vec![0; 4 * 1024 * 1024 + 1].into(), ..message(1, 1, 0) };
        assert!(matches!(encode(&long, &mut BytesMut::new()), Err(NriError::MessageTooLong { bytes: 4_194_305, .. })));
    }

    #[test]
    fn cut_at_every_byte_and_mixed_the_same_messages_come_out() {
        let sent = [message(1, 1, 0), message(2, 7, 5_000), message(1, 3, 17), message(2, 9, 1)];
        let bytes = encoded(&sent);
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut came = decoded(&mut decoder, &bytes[..cut]).unwrap();
            came.extend(decoded(&mut decoder, &bytes[cut..]).unwrap());
            assert_eq!(came, sent, "cut at {cut}");
            assert_eq!(decoder.unfinished_bytes(), 0);
        }
        let mut decoder = Decoder::default();
        let one_by_one: Vec<Message> = bytes.iter().flat_map(|byte| decoded(&mut decoder, &[*byte]).unwrap()).collect();
        assert_eq!(one_by_one, sent);
    }

    #[test]
    fn messages_of_two_connections_may_be_interleaved() {
        let (first, second) = (message(1, 1, 6_000), message(2, 2, 6_000));
        let (a, b) = (encoded(std::slice::from_ref(&first)), encoded(std::slice::from_ref(&second)));
        let whole_frame = 8 + 4096;
        let mut mixed = a[..whole_frame].to_vec();
        mixed.extend_from_slice(&b);
        mixed.extend_from_slice(&a[whole_frame..]);
        assert_eq!(decoded(&mut Decoder::default(), &mixed).unwrap(), [second, first]);
    }

    #[test]
    fn connections_that_nobody_opened_are_passed_over() {
        let sent = [message(1, 1, 3), message(1, 3, 3)];
        let mut bytes = encoded(&sent[..1]);
        for unknown in [0, 3, u32::MAX] {
            bytes.unsplit(encoded(&[message(unknown, 1, 9_000)]));
        }
        bytes.unsplit(encoded(&sent[1..]));
        let mut decoder = Decoder::default();
        assert_eq!(decoded(&mut decoder, &bytes).unwrap(), sent);
        assert_eq!(decoder.unfinished_bytes(), 0);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let mut decoder = Decoder::default();
        let frame = [0, 0, 0, 1, 0x00, 0x40, 0x00, 0x0b];
        assert!(matches!(
            decoded(&mut decoder, &frame),
            Err(NriError::FrameTooLong { connection: 1, bytes: 4_194_315 })
        ));
        let message = [0, 0, 0, 2, 0, 0, 0, 10, 0x00, 0x40, 0x00, 0x01, 0, 0, 0, 1, 1, 0];
        let refused = decoded(&mut Decoder::default(), &message);
        assert!(matches!(refused, Err(NriError::MessageTooLong { connection: 2, bytes: 4_194_305 })));
        // The longest that is allowed, in one frame.
        let mut longest = BytesMut::new();
        longest.put_u32(1);
        longest.put_u32(FRAME_BYTES_MAX);
        longest.put_u32(MESSAGE_BYTES_MAX);
        longest.put_slice(&[0, 0, 0, 1, 1, 0]);
        longest.resize(8 + FRAME_BYTES_MAX as usize, 7);
        assert_eq!(decoded(&mut Decoder::default(), &longest).unwrap()[0].data.len(), MESSAGE_BYTES_MAX as usize);
    }
}
