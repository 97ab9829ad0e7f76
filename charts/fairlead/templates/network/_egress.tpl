{{/* What every pod of the release may reach. */}}
{{- define "fairlead.apiServerEgress" -}}
# The API server's address differs from cluster to cluster and is often outside it: ports are what can be named.
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
- to:
    - namespaceSelector:
        matchLabels: { kubernetes.io/metadata.name: kube-system }
  ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- end }}
