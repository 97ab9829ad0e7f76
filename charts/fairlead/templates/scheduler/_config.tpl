{{/* KubeSchedulerConfiguration: one profile, our extender on the pod's loopback. */}}
{{- define "fairlead.schedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  # A surge binds hundreds of pods in seconds; the default of 50 a second would be the limit.
  qps: 500
  burst: 1000
leaderElection:
  leaderElect: true
  resourceLock: leases
  resourceName: fairlead-scheduler
  resourceNamespace: {{ .Release.Namespace }}
  leaseDuration: 15s
  renewDeadline: 10s
  retryPeriod: 2s
profiles:
  - schedulerName: fairlead-scheduler
    percentageOfNodesToScore: {{ .Values.scheduler.percentageOfNodesToScore }}
extenders:
  - urlPrefix: http://127.0.0.1:9801
    filterVerb: filter
    prioritizeVerb: prioritize
    preemptVerb: preempt
    bindVerb: bind
    weight: {{ .Values.scheduler.extenderWeight }}
    enableHTTPS: false
    httpTimeout: 5s
    # Only node names travel.
    nodeCacheCapable: true
    # Without the extender no exact CPUs can be promised: pods wait until it is back.
    ignorable: false
{{- end }}
