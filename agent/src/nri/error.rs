//! What can be wrong with the other end of the runtime's socket.
use super::frame::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Why a connection to the runtime ended. The next one begins from nothing, so none of these harms what is pinned.
#[derive(Debug, thiserror::Error)]
pub enum NriError {
    /// No connection.
    #[error("failed to connect to the container runtime at {socket}")]
    Connect {
        /// The socket.
        socket: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Reading failed.
    #[error("failed to read from the container runtime")]
    Read(#[source] std::io::Error),
    /// Writing failed.
    #[error("failed to write to the container runtime")]
    Write(#[source] std::io::Error),
    /// The runtime does not read.
    #[error("the container runtime took nothing for {waited_ms} ms")]
    WriteTimeout {
        /// How long it was waited for, ms.
        waited_ms: u64,
    },
    /// The other end closed; with bytes left over it died in the middle of a message.
    #[error("the container runtime closed the connection, {bytes} byte(s) of an unfinished message are lost")]
    Closed {
        /// Bytes read of a message that never ended.
        bytes: usize,
    },
    /// A frame that is longer than the protocol allows.
    #[error("a frame of connection {connection} has {bytes} bytes: at most {FRAME_BYTES_MAX} are allowed")]
    FrameTooLong {
        /// Id of the multiplexed connection.
        connection: u32,
        /// Its length.
        bytes: u32,
    },
    /// A message that is longer than the protocol allows.
    #[error("a message of connection {connection} has {bytes} bytes: at most {MESSAGE_BYTES_MAX} are allowed")]
    MessageTooLong {
        /// Id of the multiplexed connection.
        connection: u32,
        /// Its length.
        bytes: u32,
    },
    /// A message of a kind that has no place on that connection.
    #[error("a message of kind {kind} on connection {connection}, stream {stream}, has no place there")]
    Misplaced {
        /// Id of the multiplexed connection.
        connection: u32,
        /// The ttrpc stream.
        stream: u32,
        /// The ttrpc message type.
        kind: u8,
    },
    /// Bytes that are no message of that type.
    #[error("failed to read {message}")]
    Malformed {
        /// Which message.
        message: &'static str,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// More pods and containers than any node has.
    #[error("the container runtime lists more than {max} {what}")]
    TooMany {
        /// Pods or containers.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The runtime refused the plugin.
    #[error("the container runtime refused the registration: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// The runtime did not finish what a registration starts.
    #[error("the container runtime did not {step} within {waited_ms} ms")]
    Silent {
        /// What was waited for.
        step: &'static str,
        /// How long, ms.
        waited_ms: u64,
    },
    /// The runtime says goodbye.
    #[error("the container runtime shuts the plugin down")]
    Shutdown,
}
