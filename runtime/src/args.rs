//! The flags that every binary has, as clap groups to flatten into its own; each flag also has a FAIRLEAD_ variable.

use std::net::SocketAddr;
use std::path::PathBuf;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line for people.
    Text,
}

/// Logging; see [`crate::init_logs`].
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Format of the log lines on stderr
    #[arg(long, env = "FAIRLEAD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// What is logged: a level, or a filter such as "info,fairlead_runtime=debug"
    #[arg(long, env = "FAIRLEAD_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// The admin port; see [`crate::Admin`].
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// Address of /livez, /readyz, /metrics and /debug/dump; port 0 takes a free one
    #[arg(long, env = "FAIRLEAD_ADMIN_ADDRESS", default_value = "0.0.0.0:9800")]
    pub admin_address: SocketAddr,
}

/// The way to the API server; see [`crate::client`].
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientArgs {
    /// Kubeconfig file; without it KUBECONFIG, ~/.kube/config, then the pod's own ServiceAccount
    #[arg(long, env = "FAIRLEAD_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Everything {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        client: ClientArgs,
    }

    #[test]
    fn defaults_are_those_of_the_chart() {
        let args = Everything::parse_from(["x"]);
        assert_eq!(args.log.log_format, LogFormat::Json);
        assert_eq!(args.log.log_level, "info");
        assert_eq!(args.admin.admin_address.to_string(), "0.0.0.0:9800");
        assert_eq!(args.client.kubeconfig, None);
    }

    #[test]
    fn flags_are_read() {
        let args = Everything::parse_from([
            "x",
            "--log-format=text",
            "--log-level=debug",
            "--admin-address=[::1]:1",
            "--kubeconfig=/a/b",
        ]);
        assert_eq!(args.log.log_format, LogFormat::Text);
        assert_eq!(args.log.log_level, "debug");
        assert_eq!(args.admin.admin_address.to_string(), "[::1]:1");
        assert_eq!(args.client.kubeconfig, Some(PathBuf::from("/a/b")));
    }

    #[test]
    fn a_bad_address_is_refused_by_name() {
        let message = Everything::try_parse_from(["x", "--admin-address=nowhere"]).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("--admin-address"), "{message}");
    }
}
