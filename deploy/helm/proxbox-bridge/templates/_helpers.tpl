{{/* The name of the objects: at most 52 characters, so that "-backend" and the number of the pod fit into 63. */}}
{{- define "proxbox-bridge.fullname" -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "proxbox-bridge.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "proxbox-bridge.labels" -}}
{{ include "proxbox-bridge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of the Secret with the token. */}}
{{- define "proxbox-bridge.secret" -}}
{{- default (include "proxbox-bridge.fullname" .) .Values.secret.existing }}
{{- end }}

{{/* A table as TOML: its keys, then its tables. Helm's toToml writes integers with a fraction. A scalar is written as in JSON. */}}
{{- define "proxbox-bridge.toml" -}}
{{- $path := .path }}
{{- $tables := dict }}
{{- range $key, $value := .table }}
{{- if or (kindIs "map" $value) (and (kindIs "slice" $value) (kindIs "map" (first $value))) }}
{{- $_ := set $tables (printf "%s%s" $path $key) $value }}
{{- else if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $name, $value := $tables }}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "proxbox-bridge.toml" (dict "path" (printf "%s." $name) "table" $value) }}
{{- else }}
{{- range $value }}

[[{{ $name }}]]
{{- include "proxbox-bridge.toml" (dict "path" (printf "%s." $name) "table" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
