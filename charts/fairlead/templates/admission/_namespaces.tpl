{{/* Namespaces where pods are gated: those of a tenant. */}}
{{- define "fairlead.managedNamespaces" -}}
matchExpressions:
  - { key: fairlead.dev/tenant, operator: Exists }
  - { key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace | quote }}] }
{{- end }}
