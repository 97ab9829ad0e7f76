//! Free loopback ports, outside the range from which the kernel draws client ports.

use std::net::TcpListener;
use std::sync::Mutex;

use anyhow::{Result, anyhow};

const FIRST: u16 = 12_000;
const DEFAULT_END: u16 = 32_000;
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// A port that nobody listens on now and that this process was not given before. A server that is restarted keeps its
/// port, so it must not be one that an outgoing connection could take meanwhile.
pub fn free() -> Result<u16> {
    let end = end_of_range();
    let mut next = NEXT.lock().map_err(|_| anyhow!("the port cursor is poisoned"))?;
    // Two processes start at different places, so that two beds seldom look at the same port.
    let mut port = next.unwrap_or_else(|| {
        FIRST + u16::try_from(u64::from(std::process::id()) * 97 % u64::from(end - FIRST)).unwrap_or(0)
    });
    for _ in FIRST..end {
        port = if port + 1 >= end { FIRST } else { port + 1 };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            *next = Some(port);
            return Ok(port);
        }
    }
    Err(anyhow!("no free port between {FIRST} and {end}"))
}

fn end_of_range() -> u16 {
    let first_client_port = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next().and_then(|first| first.parse::<u16>().ok()));
    match first_client_port {
        Some(first) if first > FIRST + 2_000 => first.min(DEFAULT_END),
        _ => DEFAULT_END,
    }
}
