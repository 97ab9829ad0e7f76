//! `/bind`: drives one [`fairlead_placement::bind`] step by step within its deadline.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_cluster::{ClaimedDevice, PodView, PodWish, Unlocated};
use fairlead_placement::bind::{State, step};
use fairlead_placement::{BindError, BindRequest, Event, PlacementRead, PodRef, Promise, Reason, Request, Reservation};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::courier::Courier;
use crate::devices::devices_of;
use crate::duty::Duty;
use crate::metrics::ExtenderMetrics;
use crate::model::Message;
use crate::reaper::LEASE_NAME;
use crate::turns::{Place, Turns};
use crate::wire::BindingArgs;

/// A third of the deadline for one call: so a lost answer leaves time to read what became of it and to try again.
const CALLS_PER_DEADLINE: u32 = 3;
/// And never longer than that: a term of the Lease ends 5 s before another replica may begin one.
const CALL_MAX: Duration = Duration::from_secs(4);

/// Why a pod was not bound; kube-scheduler shows the text in the pod's events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindRefusal {
    /// A field is empty.
    #[error("{field} is empty: a binding names pod, namespace, UID and node")]
    Incomplete {
        /// Which.
        field: &'static str,
    },
    /// Not everything has been listed yet.
    #[error("{}", Reason::NotSynced.as_str())]
    NotSynced,
    /// Another replica binds.
    #[error(
        "fairlead: another replica of the extender binds now, the one that holds the Lease {LEASE_NAME}; try again"
    )]
    OffDuty,
    /// The time ran out before it was this bind's turn; nothing was written.
    #[error("fairlead: waited {waited_ms} ms for its turn to write to node {node}, {ahead} binds are still ahead")]
    Queued {
        /// Which node.
        node: String,
        /// Binds that came before and are not over.
        ahead: usize,
        /// The whole time of this bind.
        waited_ms: u64,
    },
    /// The bind failed.
    #[error("{}", named(.0))]
    Failed(BindError),
    /// A fault of ours.
    #[error("fairlead: the bind broke off; see the log of the extender")]
    BrokeOff,
}

/// Reasons of the closed list name us already.
fn named(error: &BindError) -> String {
    let text = error.to_string();
    if text.starts_with("fairlead: ") { text } else { format!("fairlead: {text}") }
}

impl BindRefusal {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Incomplete { .. } => "Incomplete",
            Self::NotSynced => "NotSynced",
            Self::OffDuty => "OffDuty",
            Self::Queued { .. } => "Queued",
            Self::BrokeOff => "BrokeOff",
            Self::Failed(error) => match error {
                BindError::PodGone => "PodGone",
                BindError::PodReplaced => "PodReplaced",
                BindError::PodDeleting => "PodDeleting",
                BindError::PodTerminal => "PodTerminal",
                BindError::PodGated => "PodGated",
                BindError::BoundElsewhere { .. } => "BoundElsewhere",
                BindError::Node(reason) => reason.name(),
                BindError::StillHeld { .. } => "StillHeld",
                BindError::Contended { .. } => "Contended",
                BindError::Unanswered { .. } => "Unanswered",
                BindError::Throttled => "Throttled",
                BindError::Deadline => "Deadline",
                BindError::Unreadable { .. } => "Unreadable",
                BindError::Refused { .. } => "Refused",
            },
        }
    }
}

/// What one bind holds and has found out on its way.
#[derive(Default)]
struct Attempt<'a> {
    turn: Option<Place<'a>>,
    /// Devices of the pod's claims, once they were looked up.
    devices: Option<Vec<ClaimedDevice>>,
}

/// Carries binds out.
pub struct Binder {
    courier: Courier,
    deadline: Duration,
    metrics: ExtenderMetrics,
    duty: Duty,
    turns: Turns,
}

impl Binder {
    /// Each bind gets `deadline`, everything included.
    #[must_use]
    pub fn new(courier: Courier, deadline: Duration, metrics: ExtenderMetrics, duty: Duty) -> Self {
        Self { courier, deadline, metrics, duty, turns: Turns::default() }
    }

    /// Whether binds are carried out here now, or by another replica.
    #[must_use]
    pub fn is_on_duty(&self) -> bool {
        self.duty.binds()
    }

    /// Binds a pod; asked again for the same pod and node it succeeds again. `permit` is kept until the bind is over, also
    /// where nobody waits for the answer any more.
    ///
    /// # Errors
    /// A pod that is not bound to that node by us, with the reason.
    pub async fn bind(self: Arc<Self>, args: BindingArgs, permit: OwnedSemaphorePermit) -> Result<(), BindRefusal> {
        let (told, answer) = oneshot::channel();
        // In a task of its own: a scheduler that hangs up must not break a bind off between two writes.
        let task = tokio::spawn(async move {
            self.run(args, told).await;
            drop(permit);
        });
        if let Ok(answer) = answer.await {
            return answer;
        }
        if let Err(error) = task.await {
            tracing::error!(error = %error, "A bind broke off");
        }
        Err(BindRefusal::BrokeOff)
    }

    async fn run(&self, args: BindingArgs, told: oneshot::Sender<Result<(), BindRefusal>>) {
        let begun = Instant::now();
        let answer = match request(&args) {
            Ok(request) => Box::pin(self.drive(request)).await,
            Err(refusal) => Err(refusal),
        };
        let BindingArgs { pod_name: pod, pod_namespace: namespace, pod_uid, node } = args;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &answer {
            Ok(()) => {
                self.metrics.bound("Bound");
                tracing::debug!(namespace, pod, node, took_ms, "Bound");
            }
            Err(refusal) => {
                self.metrics.bound(refusal.outcome());
                tracing::info!(namespace, pod, node, took_ms, error = %refusal, "Not bound");
            }
        }
        let failed = answer.is_err();
        // Who asked may have hung up. The model's queue may be full: the scheduler does not wait for that.
        drop(told.send(answer));
        if failed {
            self.courier.tell(Message::Forget { pod_uid }).await;
        }
    }

    async fn drive(&self, request: BindRequest) -> Result<(), BindRefusal> {
        let snapshot = self.courier.snapshot();
        if !snapshot.synced {
            return Err(BindRefusal::NotSynced);
        }
        if !self.is_on_duty() {
            return Err(BindRefusal::OffDuty);
        }
        let pod = snapshot.pods.get(&request.pod.uid);
        let pod = pod.map(|pod| snapshot.facts_of_view(pod));
        drop(snapshot);
        let (asking, node) = (request.pod.clone(), request.node.clone());
        let begun = Instant::now();
        let end = begun + self.deadline;
        let start = Event::Start { request, pod, now_ms: now_ms() };
        let (mut state, mut requests) = step(&State::default(), &start);
        let mut attempt = Attempt::default();
        loop {
            // One request is under way at a time; a step that asks for nothing more has answered.
            let Some(next) = requests.pop() else { return Err(BindRefusal::BrokeOff) };
            if let Request::Answer(answer) = next {
                return self.ended(&state, answer.map_err(BindRefusal::Failed));
            }
            if matches!(next, Request::Reserve { .. } | Request::Bind { .. }) && !self.is_on_duty() {
                return self.ended(&state, Err(BindRefusal::OffDuty));
            }
            let event = tokio::select! {
                biased;
                event = self.carry(&next, &asking, &mut attempt) => event,
                () = tokio::time::sleep_until(end) => Some(Event::DeadlineNear),
            };
            let Some(mut event) = event else { return Err(BindRefusal::BrokeOff) };
            let ahead = attempt.turn.as_ref().map_or(0, Place::ahead);
            if event == Event::DeadlineNear && ahead > 0 {
                let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                return self.ended(&state, Err(BindRefusal::Queued { node, ahead, waited_ms }));
            }
            self.look_around(&asking.uid, &node, &attempt, &mut event);
            (state, requests) = step(&state, &event);
        }
    }

    /// However it ended, the writes that were lost to others on the way count.
    fn ended(&self, state: &State, how: Result<(), BindRefusal>) -> Result<(), BindRefusal> {
        self.metrics.conflicts.inc_by(u64::from(state.conflicts()));
        how
    }

    /// From the reading of a NodePlacement to the writing of it, or to the Binding of a pod in the shared pool, binds to
    /// one node take turns: within this process nobody then loses a write to another, nor fills the pool behind its back.
    async fn carry<'a>(&'a self, request: &Request, asking: &PodRef, attempt: &mut Attempt<'a>) -> Option<Event> {
        match request {
            Request::ReadPlacement { node, .. } if attempt.turn.is_none() => {
                if attempt.devices.is_none() {
                    attempt.devices = Some(self.devices(asking, node).await);
                }
                attempt.turn = self.turns.stand(node);
                if let Some(place) = &mut attempt.turn {
                    place.first().await;
                }
            }
            Request::ReadPlacement { .. } | Request::Release { .. } => {}
            Request::Reserve { node, reservation, shared_milli, .. } => {
                self.assume(node, &reservation.pod, *shared_milli, Some(reservation)).await;
            }
            Request::Bind { node, pod, placement: None, shared_milli, .. } => {
                self.assume(node, pod, *shared_milli, None).await;
                attempt.turn = None;
            }
            _ => attempt.turn = None,
        }
        self.courier.carry(request, CALL_MAX.min(self.deadline / CALLS_PER_DEADLINE)).await
    }

    /// Adds what lies around the pod on its node by that very reading, and where the devices of its claims are.
    fn look_around(&self, pod_uid: &str, node: &str, attempt: &Attempt<'_>, event: &mut Event) {
        if let Event::Placement(PlacementRead::Found(facts)) = event {
            let snapshot = self.courier.snapshot();
            let wish = snapshot.pods.get(pod_uid).map(|pod| snapshot.wish_of_view(pod));
            let devices = || attempt.devices.clone().unwrap_or_default();
            let around = |wish| snapshot.around_in(node, facts, &PodWish { devices: devices(), ..wish });
            let around = wish.map(around).unwrap_or_default();
            facts.around = around;
        }
    }

    /// The devices of the pod's claims, if it can be near them. Whatever is not known of them is told, and the pod is bound
    /// all the same: nearness is a wish.
    async fn devices(&self, pod: &PodRef, node: &str) -> Vec<ClaimedDevice> {
        let snapshot = self.courier.snapshot();
        let can_be_near = |view: &Arc<PodView>| view.claims_devices && snapshot.wish_of_view(view).wants_devices_near();
        if !snapshot.pods.get(&pod.uid).is_some_and(can_be_near) {
            return Vec::new();
        }
        let PodRef { namespace, name, .. } = pod;
        // On the heap, or every bind would carry the room for it.
        let read = Box::pin(devices_of(self.courier.client(), pod, node, self.deadline / CALLS_PER_DEADLINE));
        let devices = match read.await {
            Ok(devices) => devices,
            Err(error) => {
                self.metrics.device_looked_up("Unread");
                tracing::warn!(namespace, pod = name, node, error = %error.chain(), "CPUs are chosen without its claims");
                return Vec::new();
            }
        };
        for (view, device) in
            snapshot.node_named(node).iter().flat_map(|view| devices.iter().map(move |one| (view, one)))
        {
            let known = device.cpus_on(view);
            self.metrics.device_looked_up(known.as_ref().map_or_else(Unlocated::name, |_| "Near"));
            if let (Err(reason), ClaimedDevice { claim, device, .. }) = (known, device) {
                tracing::debug!(namespace, pod = name, node, claim, device, %reason, "CPUs are chosen without a device");
            }
        }
        devices
    }

    async fn assume(&self, node: &str, pod: &PodRef, shared_milli: u64, reservation: Option<&Reservation>) {
        // What is reserved the next bind sees in the answer to the write; what is not, in a snapshot only.
        let (published, seen) = oneshot::channel();
        let waits = reservation.is_none() && shared_milli > 0;
        let promise = Promise { pod_uid: pod.uid.clone(), shared_milli, reservation: reservation.cloned() };
        let message = Message::Assume {
            node: node.to_owned(),
            promise: Box::new(promise),
            published: waits.then_some(published),
        };
        self.courier.tell(message).await;
        if waits {
            drop(seen.await);
        }
    }
}

fn request(args: &BindingArgs) -> Result<BindRequest, BindRefusal> {
    let fields = [
        ("PodName", &args.pod_name),
        ("PodNamespace", &args.pod_namespace),
        ("PodUID", &args.pod_uid),
        ("Node", &args.node),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, value)| value.is_empty()) {
        return Err(BindRefusal::Incomplete { field });
    }
    let pod = PodRef { namespace: args.pod_namespace.clone(), name: args.pod_name.clone(), uid: args.pod_uid.clone() };
    Ok(BindRequest { pod, node: args.node.clone() })
}

/// Now, ms since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
