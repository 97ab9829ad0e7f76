//! The block to be put into a KubeSchedulerConfiguration.
use crate::args::SchedulerConfigArgs;

/// Where the Service of the chart is reached.
pub(super) fn url_prefix(args: &SchedulerConfigArgs) -> String {
    args.url_prefix.clone().unwrap_or_else(|| format!("https://{}:9801", server_name(args)))
}

/// The name in the certificate that the chart asks for.
fn server_name(args: &SchedulerConfigArgs) -> String {
    format!("fairlead-extender.{}.svc", args.namespace)
}

/// YAML, with the reason for what is not a matter of taste.
pub(super) fn block(args: &SchedulerConfigArgs) -> String {
    let (url, name, weight) = (url_prefix(args), server_name(args), args.weight);
    let folder = args.tls_folder.trim_end_matches('/');
    format!(
        "\
# For the KubeSchedulerConfiguration of a kube-scheduler beside the cluster's own: the extender's own pods must not wait
# for a scheduler that waits for the extender, and any extender ends batching for all profiles of its scheduler.
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
  # The name that pods of managed namespaces are given.
  - schedulerName: fairlead-scheduler
extenders:
  - urlPrefix: {url}
    filterVerb: filter
    prioritizeVerb: prioritize
    preemptVerb: preempt
    # Cores are reserved at bind; no other extender may bind.
    bindVerb: bind
    weight: {weight}
    # Longer than the 4 s that the extender gives a bind.
    httpTimeout: 5s
    # Only node names travel.
    nodeCacheCapable: true
    # Without the extender no cores can be promised: pods wait until it is back.
    ignorable: false
    enableHTTPS: true
    tlsConfig:
      # The name in the certificate, whatever address urlPrefix has.
      serverName: {name}
      # Without an authority kube-scheduler would not verify the extender, and not say so.
      caFile: {folder}/ca.crt
      # Without them the extender refuses the connection.
      certFile: {folder}/tls.crt
      keyFile: {folder}/tls.key
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler_config::check::faults;

    fn args() -> SchedulerConfigArgs {
        SchedulerConfigArgs {
            namespace: "fairlead-system".to_owned(),
            url_prefix: None,
            tls_folder: "/etc/kubernetes/fairlead/".to_owned(),
            weight: 10,
            check: None,
        }
    }

    #[test]
    fn what_is_printed_passes_the_check() {
        for url_prefix in [None, Some("https://10.0.0.7:9801".to_owned()), Some("https://[fd00::7]:9801/".to_owned())] {
            let args = SchedulerConfigArgs { url_prefix, ..args() };
            let config = serde_saphyr::from_str(&block(&args)).unwrap();
            assert_eq!(faults(&config, &super::url_prefix(&args)), []);
        }
        assert!(block(&args()).contains("caFile: /etc/kubernetes/fairlead/ca.crt"));
    }
}
