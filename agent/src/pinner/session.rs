//! One registration with the runtime, from the connection to its end.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::nri::call::{Call, Listing, decode, read_call, updates};
use crate::nri::frame::{KIND_RESPONSE, Message, PLUGIN_CONNECTION};
use crate::nri::proto::{
    ConfigureRequest, ConfigureResponse, ContainerUpdates, Empty, RegisterPluginRequest, Response, SynchronizeRequest,
    SynchronizeResponse, event,
};
use crate::nri::{Connection, NriError};
use crate::pin::{Place, Seen};

/// Name of the plugin.
const PLUGIN_NAME: &str = "fairlead";
/// Plugins are asked in the order of their index: the last one sees what all others set.
const PLUGIN_INDEX: &str = "99";
/// The runtime's own limit where it does not tell one.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// The runtime may be busy with other plugins, and lists its containers only between two creations.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(60);
/// The runtime changes some containers one after another, and may be busy before it begins.
const UPDATE_LIMIT: Duration = Duration::from_secs(30);
/// A creation holds up every other one.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_500);
/// gRPC codes.
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;

/// What a message came to.
#[derive(Debug)]
pub enum Heard {
    /// Nothing that concerns the containers.
    Nothing,
    /// All that the runtime has; it is to be answered by [`Session::synchronized`].
    Synchronized {
        /// Number of the call.
        call: u32,
        /// The containers.
        containers: Vec<Seen>,
    },
    /// A container is about to be created.
    Create {
        /// Number of the call.
        call: u32,
        /// The container.
        seen: Seen,
        /// Answered by then.
        until: Instant,
    },
    /// The runtime has it now.
    Created(Seen),
    /// It runs.
    Started(String),
    /// Its resources are about to change.
    Update {
        /// Number of the call.
        call: u32,
        /// The container.
        seen: Seen,
        /// CPUs and memory nodes that it is to get, where any are named.
        asked: Option<Place>,
    },
    /// They were changed.
    Changed(Seen),
    /// A container has ended or is gone.
    Gone(String),
    /// A pod is gone.
    PodGone(String),
    /// The update was made, or refused with these words.
    Updated(Option<String>),
}

/// A registration.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    listing: Listing,
    opened: Instant,
    registration: u32,
    update: Option<(u32, Instant)>,
    request_limit: Duration,
    /// When calls that are not answered came.
    received: BTreeMap<u32, Instant>,
    /// Name and version of the runtime, once it told.
    pub runtime: Option<String>,
    /// It told all it has.
    pub is_synchronized: bool,
}

impl Session {
    /// Connects and asks to be registered.
    ///
    /// # Errors
    /// There is no runtime.
    pub async fn open(socket: &Path) -> Result<Self, NriError> {
        let mut connection = Connection::open(socket).await?;
        let request =
            RegisterPluginRequest { plugin_name: PLUGIN_NAME.to_owned(), plugin_idx: PLUGIN_INDEX.to_owned() };
        let registration = connection.call("RegisterPlugin", REGISTRATION_LIMIT, &request).await?;
        Ok(Self {
            connection,
            listing: Listing::default(),
            opened: Instant::now(),
            registration,
            update: None,
            request_limit: REQUEST_LIMIT,
            received: BTreeMap::new(),
            runtime: None,
            is_synchronized: false,
        })
    }

    /// The next message. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The session is over.
    pub async fn receive(&mut self) -> Result<Message, NriError> {
        self.connection.receive().await
    }

    /// When the session is given up unless something comes.
    #[must_use]
    pub fn limit(&self) -> Option<Instant> {
        let registered = (!self.is_synchronized).then(|| self.opened + REGISTRATION_LIMIT);
        registered.into_iter().chain(self.update.map(|(_, since)| since + UPDATE_LIMIT)).min()
    }

    /// The error of a session whose limit has passed.
    #[must_use]
    pub fn silent(&self) -> NriError {
        let (step, waited) = match self.update {
            Some(_) => ("answer UpdateContainers", UPDATE_LIMIT),
            None => ("synchronize the plugin", REGISTRATION_LIMIT),
        };
        NriError::Silent { step, waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Takes a message; answers what needs no decision.
    ///
    /// # Errors
    /// The session is over.
    pub async fn take(&mut self, message: Message) -> Result<Heard, NriError> {
        if message.connection != PLUGIN_CONNECTION {
            return self.take_response(message);
        }
        let received = Instant::now();
        let (call, limit) = read_call(&message)?;
        let stream = message.stream;
        match call {
            Call::Configure(request) => self.configure(stream, request).await?,
            Call::Synchronize(part) => return self.synchronize(stream, part).await,
            Call::Create(seen) => {
                self.received.insert(stream, received);
                let until = received + ANSWER_LIMIT.min(limit.unwrap_or(self.request_limit) * 3 / 4);
                return Ok(Heard::Create { call: stream, seen, until });
            }
            Call::Update(seen, asked) => {
                self.received.insert(stream, received);
                return Ok(Heard::Update { call: stream, seen, asked });
            }
            Call::Created(seen) => return self.noted(stream, Heard::Created(seen)).await,
            Call::Started(id) => return self.noted(stream, Heard::Started(id)).await,
            Call::Changed(seen) => return self.noted(stream, Heard::Changed(seen)).await,
            Call::Stopped(id) => {
                self.connection.answer(stream, &ContainerUpdates::default()).await?;
                return Ok(Heard::Gone(id));
            }
            Call::Removed(id) => return self.noted(stream, Heard::Gone(id)).await,
            Call::PodRemoved(id) => return self.noted(stream, Heard::PodGone(id)).await,
            Call::Heard => return self.noted(stream, Heard::Nothing).await,
            Call::Shutdown => {
                self.connection.answer(stream, &Empty {}).await?;
                return Err(NriError::Shutdown);
            }
            Call::Unknown(what) => {
                self.connection.refuse(stream, UNIMPLEMENTED, format!("{what} is not served")).await?;
            }
        }
        Ok(Heard::Nothing)
    }

    /// Answers an event that asks for nothing.
    async fn noted(&mut self, stream: u32, heard: Heard) -> Result<Heard, NriError> {
        self.connection.answer(stream, &Empty {}).await?;
        Ok(heard)
    }

    fn take_response(&mut self, message: Message) -> Result<Heard, NriError> {
        if message.kind != KIND_RESPONSE {
            let Message { connection, stream, kind, .. } = message;
            return Err(NriError::Misplaced { connection, stream, kind });
        }
        let response: Response = decode("ttrpc response", message.data)?;
        let refused = response.status.filter(|status| status.code != 0).map(|status| status.message);
        if message.stream == self.registration {
            return refused.map_or(Ok(Heard::Nothing), |message| Err(NriError::Refused { message }));
        }
        match self.update.take_if(|(stream, _)| *stream == message.stream) {
            Some(_) => Ok(Heard::Updated(refused)),
            // The answer to nothing that was asked.
            None => Ok(Heard::Nothing),
        }
    }

    async fn configure(&mut self, stream: u32, request: ConfigureRequest) -> Result<(), NriError> {
        let told = u64::try_from(request.request_timeout).ok().filter(|&ms| ms > 0).map(Duration::from_millis);
        self.request_limit = told.unwrap_or(REQUEST_LIMIT);
        self.runtime = Some(format!("{} {}", request.runtime_name, request.runtime_version).trim().to_owned());
        let wanted = [
            event::CREATE_CONTAINER,
            event::POST_CREATE_CONTAINER,
            event::POST_START_CONTAINER,
            event::UPDATE_CONTAINER,
            event::POST_UPDATE_CONTAINER,
            event::STOP_CONTAINER,
            event::REMOVE_CONTAINER,
            event::REMOVE_POD_SANDBOX,
        ];
        let events = wanted.iter().fold(0, |mask, event| mask | 1 << (event - 1));
        self.connection.answer(stream, &ConfigureResponse { events }).await
    }

    async fn synchronize(&mut self, stream: u32, part: SynchronizeRequest) -> Result<Heard, NriError> {
        let Some(containers) = self.listing.take(part)? else {
            let response = SynchronizeResponse { update: Vec::new(), more: true };
            self.connection.answer(stream, &response).await?;
            return Ok(Heard::Nothing);
        };
        Ok(Heard::Synchronized { call: stream, containers })
    }

    /// Answers the last part of a synchronization. What is to be changed is asked for afterwards, because a runtime does
    /// not tell whether changes of this answer succeeded.
    ///
    /// # Errors
    /// The session is over.
    pub async fn synchronized(&mut self, call: u32) -> Result<(), NriError> {
        self.is_synchronized = true;
        self.connection.answer(call, &SynchronizeResponse::default()).await
    }

    /// Answers a call with a message; tells how long it took.
    ///
    /// # Errors
    /// The session is over.
    pub async fn answer(&mut self, call: u32, body: &impl prost::Message) -> Result<Option<Duration>, NriError> {
        self.connection.answer(call, body).await?;
        Ok(self.received.remove(&call).map(|since| since.elapsed()))
    }

    /// Answers a call with an error; tells how long it took.
    ///
    /// # Errors
    /// The session is over.
    pub async fn refuse(&mut self, call: u32, message: String) -> Result<Option<Duration>, NriError> {
        self.connection.refuse(call, FAILED_PRECONDITION, message).await?;
        Ok(self.received.remove(&call).map(|since| since.elapsed()))
    }

    /// Asks the runtime to change containers.
    ///
    /// # Errors
    /// The session is over.
    pub async fn update(&mut self, places: &[(String, Place)]) -> Result<(), NriError> {
        let stream = self.connection.call("UpdateContainers", UPDATE_LIMIT, &updates(places, false)).await?;
        self.update = Some((stream, Instant::now()));
        Ok(())
    }
}
