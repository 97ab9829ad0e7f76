//! Log lines to stderr, JSON for machines or text for people.

use crate::args::{LogArgs, LogFormat};
use tracing_subscriber::EnvFilter;

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// `--log-level` is no level and no filter.
    #[error("--log-level {given:?} is neither a level (error, warn, info, debug, trace) nor a filter")]
    Filter {
        /// The text that was given.
        given: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber exists already in this process.
    #[error("failed to install the log subscriber: one is installed already")]
    Installed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The client reports every failed request as an error of its own, also where ours is expected and says more. A filter that
/// names this target brings it back.
const QUIET: &str = "kube_client::client::builder=off";

/// Installs the process's log subscriber. Call it once, first thing in `main`.
///
/// # Errors
/// A filter that does not parse, or a second call.
pub fn init_logs(args: &LogArgs) -> Result<(), LogsError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", args.log_level))
        .map_err(|source| LogsError::Filter { given: args.log_level.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match args.log_format {
        // Flattened, so that a fact is a top-level key for whoever searches the lines.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Text => lines.try_init(),
    }
    .map_err(LogsError::Installed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn the_clients_own_error_lines_are_off_unless_asked_for() {
        for (level, shown) in [("debug", false), ("info,kube_client::client::builder=error", true)] {
            let filter = EnvFilter::try_new(format!("{QUIET},{level}")).unwrap();
            let subscriber = tracing_subscriber::registry().with(filter);
            tracing::subscriber::with_default(subscriber, || {
                assert_eq!(tracing::enabled!(target: "kube_client::client::builder", tracing::Level::ERROR), shown);
                assert!(tracing::enabled!(target: "fairlead_runtime", tracing::Level::INFO));
            });
        }
    }

    #[test]
    fn a_filter_that_does_not_parse_names_the_flag() {
        let args = LogArgs { log_format: LogFormat::Text, log_level: "fairlead=loud".into() };
        let error = init_logs(&args).unwrap_err();
        assert!(matches!(error, LogsError::Filter { .. }));
        assert!(error.to_string().contains("--log-level"));
    }
}
