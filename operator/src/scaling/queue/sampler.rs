//! One task a source: looks at the queue at a steady pace, keeps its connection, and comes back with pauses after errors.
use super::redis::RedisQueue;
use super::secret::{Account, password};
use super::{Sample, SourceError, SourceState};
use crate::clock::Clock;
use crate::metrics::OperatorMetrics;
use crate::scaling::allow::{Address, AllowList};
use fairlead_crds::worker_pool::{QueueSource, QueueSourceType, RedisStream};
use fairlead_runtime::Backoff;
use fairlead_runtime::seed;
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pauses after errors: short enough that a queue that is back is soon seen.
const PAUSE_FLOOR: Duration = Duration::from_millis(250);
const PAUSE_CEILING: Duration = Duration::from_secs(5);

/// What all samplers share.
#[derive(Clone)]
pub struct Sampling {
    /// For Secrets.
    pub client: Client,
    /// What may be dialled.
    pub allow: Arc<AllowList>,
    /// Named in the command that grants a Secret.
    pub account: Account,
    /// Time between two looks.
    pub period: Duration,
    /// Decides the jitter of pauses.
    pub seed: u64,
    /// Where to count.
    pub metrics: OperatorMetrics,
    /// Time; the pools' is the same.
    pub clock: Clock,
}

/// Starts looking at a source of a pool in `namespace`, until `stop`.
#[must_use]
pub fn start(
    sampling: &Sampling,
    namespace: &str,
    source: &QueueSource,
    stop: CancellationToken,
) -> watch::Receiver<SourceState> {
    let (sender, receiver) = watch::channel(SourceState::default());
    let sampler =
        Sampler { sampling: sampling.clone(), namespace: namespace.to_owned(), source: source.clone(), queue: None };
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sampler.run(sender) => {}
        }
    });
    receiver
}

struct Sampler {
    sampling: Sampling,
    namespace: String,
    source: QueueSource,
    queue: Option<RedisQueue>,
}

impl Sampler {
    async fn run(mut self, state: watch::Sender<SourceState>) {
        let mut backoff =
            Backoff::between(PAUSE_FLOOR, PAUSE_CEILING, seed::derive(self.sampling.seed, &self.namespace));
        loop {
            let outcome = self.look().await;
            let pause = match &outcome {
                Ok(_) => {
                    backoff.reset();
                    self.sampling.period
                }
                Err(error) => {
                    self.queue = None;
                    self.sampling.metrics.queue_failed(error.reason().as_str());
                    let known = state.borrow().error.as_deref() == Some(error);
                    if !known {
                        tracing::warn!(namespace = self.namespace, reason = error.reason().as_str(), %error, "A queue is unknown");
                    }
                    backoff.next_delay()
                }
            };
            state.send_modify(|state| state.take(outcome));
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&mut self) -> Result<Sample, SourceError> {
        let (QueueSourceType::RedisStream, Some(stream)) = (self.source.type_, self.source.redis_stream.as_ref())
        else {
            // The schema refuses it: a type without its member.
            let address = Address { host: "-".to_owned(), port: 0 };
            return Err(SourceError::BadAnswer { address, what: "type RedisStream needs redisStream".to_owned() });
        };
        let queue = match &mut self.queue {
            Some(queue) => queue,
            None => self.queue.insert(open(&self.sampling, &self.namespace, stream).await?),
        };
        queue.sample(self.sampling.clock.ms()).await
    }
}

async fn open(sampling: &Sampling, namespace: &str, stream: &RedisStream) -> Result<RedisQueue, SourceError> {
    let address: Address = stream.address.parse().map_err(|source| SourceError::Address { source })?;
    if !sampling.allow.admits(&address) {
        return Err(SourceError::NotAllowed { address });
    }
    let password = match &stream.password_secret_ref {
        Some(wanted) => Some(password(&sampling.client, namespace, wanted, &sampling.account).await?),
        None => None,
    };
    RedisQueue::open(&address, stream, password.as_deref()).await
}
