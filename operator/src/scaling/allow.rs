//! Which queue addresses may be dialled at all: an address comes from whoever may write a WorkerPool, so it must not
//! become a way to reach what that person cannot.
use std::fmt;
use std::str::FromStr;

/// A host (or all hosts below a domain) with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Exact(String),
    /// With its leading dot.
    Below(String),
}

/// Why a text is no pattern or no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The part behind the colon is no port.
    #[error("{text:?}: the port must be a number from 1 to 65535")]
    Port {
        /// The text as found.
        text: String,
    },
    /// The host is empty or has characters that no host has.
    #[error(
        "{text:?}: expected host, host:port, *.suffix or *.suffix:port, the host of letters, digits, dots and hyphens"
    )]
    Host {
        /// The text as found.
        text: String,
    },
    /// An address without a port.
    #[error("{text:?}: expected host:port")]
    NoPort {
        /// The text as found.
        text: String,
    },
}

/// A host, in lower case and without a final dot, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

fn split(text: &str) -> Result<(&str, Option<u16>), AddressError> {
    let Some((host, port)) = text.split_once(':') else { return Ok((text, None)) };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok((host, Some(port))),
        _ => Err(AddressError::Port { text: text.to_owned() }),
    }
}

fn canonical(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let sound = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| !label.is_empty())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
    sound.then(|| host.to_ascii_lowercase())
}

impl FromStr for Pattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text.trim())?;
        let bad = || AddressError::Host { text: text.to_owned() };
        let host = match host.strip_prefix("*.") {
            Some(suffix) => Host::Below(format!(".{}", canonical(suffix).ok_or_else(bad)?)),
            None => Host::Exact(canonical(host).ok_or_else(bad)?),
        };
        Ok(Self { host, port })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        let host = canonical(host).ok_or_else(|| AddressError::Host { text: text.to_owned() })?;
        let port = port.ok_or_else(|| AddressError::NoPort { text: text.to_owned() })?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The addresses that may be dialled. An empty list admits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Pattern>);

impl AllowList {
    /// What any of the patterns admits is admitted.
    #[must_use]
    pub fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    /// Whether the address may be dialled. A pattern `*.suffix` admits hosts below the suffix, not the suffix itself.
    #[must_use]
    pub fn admits(&self, address: &Address) -> bool {
        self.0.iter().any(|pattern| {
            let host = match &pattern.host {
                Host::Exact(host) => *host == address.host,
                Host::Below(suffix) => address.host.len() > suffix.len() && address.host.ends_with(suffix),
            };
            host && pattern.port.is_none_or(|port| port == address.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> AllowList {
        AllowList::new(patterns.iter().map(|p| p.parse().unwrap()).collect())
    }

    fn admits(patterns: &[&str], address: &str) -> bool {
        list(patterns).admits(&address.parse().unwrap())
    }

    #[test]
    fn nothing_is_allowed_by_an_empty_list() {
        assert!(!admits(&[], "redis.acme:6379"));
    }

    #[test]
    fn exact_hosts_suffixes_and_ports() {
        assert!(admits(&["redis.acme"], "Redis.ACME.:6379"));
        assert!(!admits(&["redis.acme:6380"], "redis.acme:6379"));
        assert!(admits(&["*.acme:6379"], "a.b.acme:6379"));
        assert!(!admits(&["*.acme"], "acme:6379"));
        assert!(!admits(&["*.acme"], "evilacme:6379"));
        assert!(!admits(&["redis.acme"], "x.redis.acme:6379"));
        assert!(admits(&["127.0.0.1"], "127.0.0.1:1"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "*", "*.", "a:0", "a:b", "a:1:2", "a:65536", "a b", "http://a", "a..b", ":1", "a:+1"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert!(matches!("a".parse::<Address>(), Err(AddressError::NoPort { .. })));
        assert!(matches!("*.a:1".parse::<Address>(), Err(AddressError::Host { .. })));
    }
}
