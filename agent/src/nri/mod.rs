//! The container runtime's plugin interface (NRI): frames, messages, and one connection that speaks them.
pub mod call;
pub mod connection;
mod error;
pub mod frame;
pub mod proto;

pub use connection::Connection;
pub use error::NriError;
