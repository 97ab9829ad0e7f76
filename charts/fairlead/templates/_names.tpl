{{/* Labels of every object. Call: (dict "root" $ "component" "operator") */}}
{{- define "fairlead.labels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* Labels that select the pods of one component: they never change, a Deployment's selector cannot. */}}
{{- define "fairlead.selector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of pods: without version and chart, which would restart pods that did not change. */}}
{{- define "fairlead.podLabels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/part-of: fairlead
{{- end }}

{{/* Image reference: by digest where one is given. Call: (dict "root" $ "image" .Values.operator.image) */}}
{{- define "fairlead.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) | quote }}
{{- end }}
{{- end }}

{{/* User name of a ServiceAccount of the release, as policies see it. Call: (dict "root" $ "name" "fairlead-operator") */}}
{{- define "fairlead.user" -}}
system:serviceaccount:{{ .root.Release.Namespace }}:{{ .name }}
{{- end }}

{{/* ServiceAccount that the extender runs under: that of the pod it shares with kube-scheduler, or its own. */}}
{{- define "fairlead.extenderAccount" -}}
{{- if eq .Values.extender.mode "Sidecar" }}fairlead-scheduler{{ else }}fairlead-extender{{ end }}
{{- end }}
