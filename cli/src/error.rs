//! What can go wrong, told so that the reader knows what to do next.
use std::error::Error;

/// Why a command failed; one variant per operation.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig; check --kubeconfig, --context and the variable KUBECONFIG")]
    Kubeconfig {
        /// What kube says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Rights are missing.
    #[error("you lack the right to {}; an administrator can grant it{hint}", .rights.join(", and to "))]
    Forbidden {
        /// Each as `verb resource[ NAME] in scope`.
        rights: Vec<String>,
        /// Which role of the chart holds them, if one does.
        hint: &'static str,
    },
    /// A kind of ours is not served.
    #[error("the API server does not know {resource}: install the chart fairlead-crds first")]
    KindMissing {
        /// Plural and group.
        resource: String,
    },
    /// The object is not there.
    #[error("{what} does not exist")]
    NotFound {
        /// Kind, namespace and name.
        what: String,
    },
    /// A call failed.
    #[error("cannot {action}")]
    Call {
        /// Verb and object.
        action: String,
        /// What the API server or the connection says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A call took too long.
    #[error("cannot {action}: the API server did not answer within {seconds} s")]
    Silent {
        /// Verb and object.
        action: String,
        /// The deadline.
        seconds: u64,
    },
    /// The drain ran out of time.
    #[error(
        "not drained within {seconds} s, after {deleted} pods given back and {ungated} gates removed; \
         run it again, it goes on from here"
    )]
    DrainTimeout {
        /// The limit.
        seconds: u64,
        /// Pods that were given back to their controllers.
        deleted: usize,
        /// Gates that were removed.
        ungated: usize,
        /// What the API server refused last, or why the last pass failed; `None` if it only took too long.
        source: Option<Box<CliError>>,
    },
    /// A KubeSchedulerConfiguration was not found good.
    #[error(transparent)]
    SchedulerConfig(#[from] crate::scheduler_config::ConfigError),
    /// The input of a simulation cannot be used.
    #[error(transparent)]
    Simulate(#[from] crate::SimulateError),
    /// The result cannot be written.
    #[error("cannot write the result")]
    Output {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// An answer of the API server that is an error: its own words, without the struct around them.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) message: String,
}

/// The message and its causes, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let message = inner.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_are_all_named() {
        let error = CliError::Forbidden {
            rights: vec!["list pods in all namespaces".into(), "get jobs.batch in all namespaces".into()],
            hint: "",
        };
        assert_eq!(
            chain(&error),
            "you lack the right to list pods in all namespaces, and to get jobs.batch in all namespaces; \
             an administrator can grant it"
        );
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = CliError::Output { source: std::io::Error::other("disk full") };
        assert_eq!(chain(&error), "cannot write the result: disk full");
    }
}
