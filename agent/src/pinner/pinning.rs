//! Who pins on this node: one sentence, from everything that decides it.
use std::time::Duration;

use fairlead_crds::node_topology::{Pinning, PinningMode};

use super::kubelet::KubeletPolicies;

/// A runtime that restarts is back within seconds: until then nothing is said.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// An agent that starts finds out within this time; until then what its predecessor said stays.
pub const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// Bounds of the kind's schema.
const MESSAGE_CHARS_MAX: usize = 1024;
const RUNTIME_CHARS_MAX: usize = 128;

/// Reasons of the mode.
pub mod reason {
    /// Own: the agent pins.
    pub const RUNTIME_READY: &str = "RuntimeReady";
    /// There is no socket.
    pub const RUNTIME_NOT_FOUND: &str = "RuntimeNotFound";
    /// There is a socket, and nobody who registers the agent.
    pub const RUNTIME_NOT_READY: &str = "RuntimeNotReady";
    /// It was there, and has been away for long.
    pub const RUNTIME_LOST: &str = "RuntimeLost";
    /// The kubelet writes cpusets itself.
    pub const KUBELET_STATIC_POLICY: &str = "KubeletStaticPolicy";
    /// It cannot be read what the kubelet does.
    pub const KUBELET_UNKNOWN: &str = "KubeletUnknown";
    /// Another agent holds the lock.
    pub const SECOND_AGENT: &str = "SecondAgent";
    /// The lock cannot be taken.
    pub const CHECKPOINT_UNUSABLE: &str = "CheckpointUnusable";
    /// Another plugin writes cpusets.
    pub const OTHER_CPUSET_WRITER: &str = "OtherCpusetWriter";
}

/// The lock of the checkpoint folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// Not tried.
    Untried,
    /// Ours.
    Held,
    /// Another agent's; with words.
    Taken(String),
    /// It cannot be taken; with words.
    Unusable(String),
}

/// Everything that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The kubelet's policies; none: not read yet.
    pub kubelet: Option<KubeletPolicies>,
    /// The lock.
    pub lock: Lock,
    /// The socket.
    pub socket: String,
    /// There is one.
    pub socket_found: bool,
    /// The runtime told all it has.
    pub synchronized: bool,
    /// For how long it has been away, or has not come; none while it is there.
    pub away: Option<Duration>,
    /// It was there once since the agent began.
    pub was_there: bool,
    /// Name and version of the runtime.
    pub runtime: Option<String>,
    /// Why the last connection ended.
    pub last_error: Option<String>,
    /// Who else writes cpusets.
    pub rival: Option<String>,
}

impl Situation {
    /// Whether the agent may speak to the runtime at all.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        self.lock == Lock::Held
            && self.kubelet.as_ref().is_some_and(|kubelet| kubelet.known() && kubelet.writer().is_none())
    }

    /// Another agent has the node, in a sentence.
    #[must_use]
    pub fn second_agent(&self) -> Option<&str> {
        match &self.lock {
            Lock::Taken(why) => Some(why),
            _ => None,
        }
    }

    /// Who pins; none while it is too early to tell.
    #[must_use]
    pub fn pinning(&self) -> Option<Pinning> {
        let (mode, reason, message) = self.verdict()?;
        let short = |text: String, chars: usize| text.chars().take(chars).collect::<String>();
        Some(Pinning {
            mode,
            reason: reason.to_owned(),
            message: short(message, MESSAGE_CHARS_MAX),
            cpu_manager_policy: self.kubelet.as_ref().and_then(|kubelet| kubelet.cpu.clone()),
            memory_manager_policy: self.kubelet.as_ref().and_then(|kubelet| kubelet.memory.clone()),
            runtime: self.runtime.clone().map(|runtime| short(runtime, RUNTIME_CHARS_MAX)),
        })
    }

    fn verdict(&self) -> Option<(PinningMode, &'static str, String)> {
        let observe = |reason, message: String| Some((PinningMode::Observe, reason, message));
        let kubelet = self.kubelet.as_ref()?;
        if let Some((manager, policy)) = kubelet.writer() {
            let message =
                format!("the kubelet's {manager} has policy {policy:?} and writes cpusets itself: set it to none");
            return observe(reason::KUBELET_STATIC_POLICY, message);
        }
        let patience = if self.was_there { PATIENCE } else { FIRST_PATIENCE };
        let early = self.away.is_some_and(|away| away < patience);
        if !self.socket_found && !early {
            let away = if self.was_there { reason::RUNTIME_LOST } else { reason::RUNTIME_NOT_FOUND };
            return observe(away, format!("there is no {}: is NRI on in the container runtime?", self.socket));
        }
        if !kubelet.known() {
            let message = format!("it cannot be read what the kubelet does: {}", kubelet.problems.join("; "));
            return observe(reason::KUBELET_UNKNOWN, message);
        }
        match &self.lock {
            Lock::Untried => return None,
            Lock::Taken(message) => return observe(reason::SECOND_AGENT, message.clone()),
            Lock::Unusable(message) => return observe(reason::CHECKPOINT_UNUSABLE, message.clone()),
            Lock::Held => {}
        }
        if let Some(rival) = &self.rival {
            return observe(reason::OTHER_CPUSET_WRITER, rival.clone());
        }
        if self.synchronized || (early && self.was_there) {
            let message = "the agent pins through the container runtime".to_owned();
            return Some((PinningMode::Own, reason::RUNTIME_READY, message));
        }
        if early {
            return None;
        }
        let away = if self.was_there { reason::RUNTIME_LOST } else { reason::RUNTIME_NOT_READY };
        let why = self.last_error.clone().unwrap_or_else(|| "it has not answered yet".to_owned());
        observe(away, format!("the container runtime at {} is not there: {why}", self.socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Situation {
        let kubelet =
            KubeletPolicies { cpu: Some("none".into()), memory: None, replaced: false, problems: vec!["x".into()] };
        Situation {
            kubelet: Some(kubelet),
            lock: Lock::Held,
            socket: "/run/nri.sock".into(),
            socket_found: true,
            synchronized: true,
            away: None,
            was_there: true,
            runtime: Some("containerd v2.4.2".into()),
            last_error: None,
            rival: None,
        }
    }

    fn of(change: impl FnOnce(&mut Situation)) -> Option<(PinningMode, String)> {
        let mut situation = ready();
        change(&mut situation);
        situation.pinning().map(|pinning| (pinning.mode, pinning.reason))
    }

    fn observe(reason: &str) -> Option<(PinningMode, String)> {
        Some((PinningMode::Observe, reason.to_owned()))
    }

    #[test]
    fn it_owns_the_node_once_the_runtime_told_what_it_has() {
        let own = Some((PinningMode::Own, "RuntimeReady".to_owned()));
        assert_eq!(of(|_| {}), own);
        let away = |seconds| {
            move |s: &mut Situation| {
                (s.synchronized, s.away) = (false, Some(Duration::from_secs(seconds)));
            }
        };
        // A restart of the runtime is no news; a long absence is.
        assert_eq!(of(away(29)), own);
        assert_eq!(
            of(|s| {
                away(29)(s);
                s.socket_found = false;
            }),
            own
        );
        assert_eq!(of(away(30)), observe("RuntimeLost"));
        assert_eq!(
            of(|s| {
                away(30)(s);
                s.socket_found = false;
            }),
            observe("RuntimeLost")
        );
    }

    #[test]
    fn an_agent_that_starts_says_nothing_at_first() {
        let starts = |seconds, socket_found| {
            move |s: &mut Situation| {
                (s.synchronized, s.was_there, s.socket_found) = (false, false, socket_found);
                s.away = Some(Duration::from_secs(seconds));
            }
        };
        for socket_found in [true, false] {
            assert_eq!(of(starts(9, socket_found)), None);
        }
        assert_eq!(of(starts(10, true)), observe("RuntimeNotReady"));
        assert_eq!(of(starts(10, false)), observe("RuntimeNotFound"));
        assert_eq!(of(|s| s.kubelet = None), None);
    }

    #[test]
    fn it_is_never_the_second_writer() {
        let stat = |s: &mut Situation| s.kubelet.as_mut().unwrap().cpu = Some("static".into());
        assert_eq!(of(stat), observe("KubeletStaticPolicy"));
        assert_eq!(of(|s| s.kubelet.as_mut().unwrap().memory = Some("Static".into())), observe("KubeletStaticPolicy"));
        assert_eq!(of(|s| s.kubelet.as_mut().unwrap().cpu = None), observe("KubeletUnknown"));
        assert_eq!(of(|s| s.kubelet.as_mut().unwrap().replaced = true), observe("KubeletUnknown"));
        assert_eq!(of(|s| s.lock = Lock::Taken("x".into())), observe("SecondAgent"));
        assert_eq!(of(|s| s.lock = Lock::Unusable("x".into())), observe("CheckpointUnusable"));
        assert_eq!(of(|s| s.rival = Some("x".into())), observe("OtherCpusetWriter"));
        let mut situation = ready();
        assert!(situation.may_connect());
        stat(&mut situation);
        assert!(!situation.may_connect());
    }
}
