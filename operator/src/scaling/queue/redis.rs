//! A Redis stream and its consumer group, by `XINFO GROUPS`: lag, pending entries, entries read. `XINFO STREAM`, whose answer
//! carries entries, is asked only where the group's own counters are not known, and for its counters only.
use super::{Sample, SourceError};
use crate::scaling::allow::Address;
use fairlead_crds::worker_pool::RedisStream;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, Value,
};
use std::time::Duration;

/// A queue that does not take a connection, or does not answer, within this time is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Name lookup, connection and authentication together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

const LAG_UNKNOWN: &str = "the group's lag is unknown, as after XDEL of undelivered entries or XGROUP SETID; it is known \
                           again when the group has read to the end";

/// An open connection to one stream.
pub struct RedisQueue {
    address: Address,
    stream: String,
    group: String,
    connection: MultiplexedConnection,
}

/// What `XINFO GROUPS` says of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    name: Vec<u8>,
    last_delivered: Option<Vec<u8>>,
    pending: Option<u64>,
    entries_read: Option<u64>,
    lag: Option<u64>,
}

impl RedisQueue {
    /// Connects and authenticates. The address must have been admitted before.
    ///
    /// # Errors
    /// Unreachable, or the credentials were refused.
    pub async fn open(address: &Address, source: &RedisStream, password: Option<&str>) -> Result<Self, SourceError> {
        let failed = |error: RedisError| classify(&error, address, &source.stream);
        let mut info =
            ConnectionAddr::Tcp(address.host.clone(), address.port).into_connection_info().map_err(failed)?;
        if let Some(password) = password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = Client::open(info).map_err(failed)?;
        let opening = client.get_multiplexed_async_connection_with_config(&config);
        let connection = tokio::time::timeout(OPEN_TIMEOUT, opening)
            .await
            .map_err(|_| SourceError::Unreachable {
                address: address.clone(),
                what: "no connection in time".to_owned(),
            })?
            .map_err(failed)?;
        let (stream, group) = (source.stream.clone(), source.group.clone());
        Ok(Self { address: address.clone(), stream, group, connection })
    }

    /// Asks once. `now_ms` is the time of asking.
    ///
    /// # Errors
    /// One variant for each way to fail.
    pub async fn sample(&mut self, now_ms: u64) -> Result<Sample, SourceError> {
        let answer = self.ask("GROUPS").await?;
        let groups = groups(&answer).ok_or_else(|| self.bad("XINFO GROUPS gave no list of groups"))?;
        let Some(group) = groups.into_iter().find(|group| group.name == self.group.as_bytes()) else {
            let (address, stream, group) = (self.address.clone(), self.stream.clone(), self.group.clone());
            return Err(SourceError::NoGroup { address, stream, group });
        };
        let pending = group.pending.ok_or_else(|| self.bad("XINFO GROUPS gave no pending count"))?;
        let sample = |length, added_total, done_total| {
            Ok(Sample { length, in_flight: pending, added_total, done_total, at_ms: now_ms })
        };
        if let (Some(lag), Some(read)) = (group.lag, group.entries_read) {
            // By Redis' own definition the lag is entries-added − entries-read.
            return sample(lag, Some(read.saturating_add(lag)), Some(read.saturating_sub(pending)));
        }
        // A group that has not read yet, or whose place was set by hand.
        let answer = self.ask("STREAM").await?;
        let stream = pairs(&answer).ok_or_else(|| self.bad("XINFO STREAM gave no fields"))?;
        let length = match group.lag {
            Some(lag) => lag,
            None => length_without_lag(&group, &stream).ok_or_else(|| self.bad(LAG_UNKNOWN))?,
        };
        sample(length, field(&stream, "entries-added").and_then(number), None)
    }

    async fn ask(&mut self, what: &str) -> Result<Value, SourceError> {
        let answer = redis::cmd("XINFO").arg(what).arg(&self.stream).query_async(&mut self.connection).await;
        answer.map_err(|error| classify(&error, &self.address, &self.stream))
    }

    fn bad(&self, what: &str) -> SourceError {
        SourceError::BadAnswer { address: self.address.clone(), what: what.to_owned() }
    }
}

/// What a client error means. The queue's own text is not repeated.
fn classify(error: &RedisError, address: &Address, stream: &str) -> SourceError {
    let address = address.clone();
    let code = error.code().unwrap_or("ERR").to_owned();
    let no_such_key = error.detail().is_some_and(|detail| detail.contains("no such key"));
    match (error.kind(), code.as_str()) {
        _ if error.is_timeout() => SourceError::Unreachable { address, what: "no answer in time".to_owned() },
        (ErrorKind::AuthenticationFailed, _) => SourceError::WrongCredentials { address, code },
        (_, "WRONGPASS" | "NOAUTH" | "NOPERM") => SourceError::WrongCredentials { address, code },
        (_, "WRONGTYPE") => SourceError::WrongType { address, stream: stream.to_owned() },
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask), _) => {
            SourceError::Redirect { address, code }
        }
        (ErrorKind::Server(ServerErrorKind::ResponseError), _) if no_such_key => {
            SourceError::NoStream { address, stream: stream.to_owned() }
        }
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => {
            SourceError::Unreachable { address, what: "it is loading its data".to_owned() }
        }
        (ErrorKind::Io, _) => SourceError::Unreachable { address, what: io_text(error) },
        (kind, _) => SourceError::BadAnswer { address, what: format!("the queue refused XINFO ({kind:?}, {code})") },
    }
}

/// The operating system's text, which names no content.
fn io_text(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "connection refused".to_owned();
    }
    if error.is_connection_dropped() {
        return "the connection broke".to_owned();
    }
    std::error::Error::source(error).map_or_else(|| error.category().to_owned(), ToString::to_string)
}

type Fields = Vec<(Vec<u8>, Value)>;

fn pairs(value: &Value) -> Option<Fields> {
    match value {
        Value::Map(entries) => {
            Some(entries.iter().filter_map(|(key, value)| Some((text(key)?.to_vec(), value.clone()))).collect())
        }
        Value::Array(items) => {
            let pairs = items.chunks_exact(2).filter_map(|pair| match pair {
                [key, value] => Some((text(key)?.to_vec(), value.clone())),
                _ => None,
            });
            Some(pairs.collect())
        }
        _ => None,
    }
}

fn groups(value: &Value) -> Option<Vec<Group>> {
    let Value::Array(groups) = value else { return None };
    let read = groups.iter().map(|group| {
        let fields = pairs(group)?;
        let get = |key: &str| field(&fields, key).and_then(number);
        Some(Group {
            name: field(&fields, "name").and_then(text)?.to_vec(),
            last_delivered: field(&fields, "last-delivered-id").and_then(text).map(<[u8]>::to_vec),
            pending: get("pending"),
            entries_read: get("entries-read"),
            lag: get("lag"),
        })
    });
    read.collect()
}

/// Entries were deleted between the group's place and the end, or the place was set by hand: what is undelivered is then
/// known only at the two ends of the stream.
fn length_without_lag(group: &Group, stream: &Fields) -> Option<u64> {
    match group.last_delivered.as_deref()? {
        id if Some(id) == field(stream, "last-generated-id").and_then(text) => Some(0),
        b"0-0" => field(stream, "length").and_then(number),
        _ => None,
    }
}

fn field<'a>(fields: &'a Fields, key: &str) -> Option<&'a Value> {
    fields.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value)
}

fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// A count; null and what is negative are not known.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => std::str::from_utf8(text(value)?).ok()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn group(lag: Value) -> Value {
        Value::Array(vec![
            bulk("name"),
            bulk("g"),
            bulk("consumers"),
            Value::Int(2),
            bulk("pending"),
            Value::Int(3),
            bulk("last-delivered-id"),
            bulk("5-0"),
            bulk("entries-read"),
            Value::Int(10),
            bulk("lag"),
            lag,
        ])
    }

    #[test]
    fn groups_are_read_in_both_protocols_and_null_is_not_zero() {
        let flat = Value::Array(vec![group(Value::Int(7))]);
        let read = groups(&flat).unwrap();
        assert_eq!((read[0].pending, read[0].entries_read, read[0].lag), (Some(3), Some(10), Some(7)));
        let Value::Array(items) = group(Value::Nil) else { unreachable!() };
        let map = Value::Map(items.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
        let mut unknown = groups(&Value::Array(vec![map])).unwrap().remove(0);
        assert_eq!(unknown.lag, None);
        let stream =
            |last: &str| vec![(b"last-generated-id".to_vec(), bulk(last)), (b"length".to_vec(), Value::Int(4))];
        assert_eq!(length_without_lag(&unknown, &stream("5-0")), Some(0));
        assert_eq!(length_without_lag(&unknown, &stream("9-0")), None);
        unknown.last_delivered = Some(b"0-0".to_vec());
        assert_eq!(length_without_lag(&unknown, &stream("9-0")), Some(4));
        assert_eq!(groups(&Value::Int(1)), None);
        assert_eq!(number(&Value::Int(-1)), None);
    }

    #[test]
    fn errors_are_told_apart_and_their_text_is_not_repeated() {
        let address: Address = "r:1".parse().unwrap();
        let server = |kind, detail: &str| RedisError::from((ErrorKind::Server(kind), "x", detail.to_owned()));
        let meaning = |error: &RedisError| classify(error, &address, "s");
        assert!(matches!(
            meaning(&server(ServerErrorKind::ResponseError, "no such key")),
            SourceError::NoStream { .. }
        ));
        let moved = meaning(&server(ServerErrorKind::Moved, "42 10.0.0.1:6379"));
        assert!(matches!(moved, SourceError::Redirect { .. }) && !moved.to_string().contains("10.0.0.1"), "{moved}");
        let refused: RedisError = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        assert!(meaning(&refused).to_string().contains("connection refused"));
        let auth = RedisError::from((ErrorKind::AuthenticationFailed, "x"));
        assert!(matches!(meaning(&auth), SourceError::WrongCredentials { .. }));
        let odd = meaning(&server(ServerErrorKind::ResponseError, "secret body"));
        assert!(matches!(odd, SourceError::BadAnswer { .. }) && !odd.to_string().contains("secret"), "{odd}");
    }
}
