{{- define "is-db-bootstrap.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "is-db-bootstrap.job" -}}
{{- include "is-db-bootstrap.name" . }}
{{- /* The digest is for `helm template` and Argo CD, where the revision is always 1. */}}
{{- with .Values }}
{{- if not .job.hook }}-{{ $.Release.Revision }}-{{ list $.Chart.Version $.Chart.AppVersion .image .imagePullSecrets .settings .secretName .timeout .resources .job | toJson | sha256sum | trunc 8 }}{{ end }}
{{- end }}
{{- end }}

{{/* The settings and the account of the Job: a hook's are its own, because those of the release do not exist before it, or are replaced. */}}
{{- define "is-db-bootstrap.jobSettings" -}}
{{- include "is-db-bootstrap.name" . }}{{ if .Values.job.hook }}-hook{{ end }}
{{- end }}

{{- define "is-db-bootstrap.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "is-db-bootstrap.data" -}}
{{- range $name, $value := .Values.settings }}
{{- if $value }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "is-db-bootstrap.closed" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The container; `mode` is init, job or verify. A chart of your own may include it below its initContainers. */}}
{{- define "is-db-bootstrap.container" -}}
name: bootstrap
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [--mode, {{ .mode }}, --timeout, {{ .Values.timeout | quote }}]
envFrom:
  - configMapRef: {name: {{ .settings }}}
volumeMounts:
  - {name: stores, mountPath: /run/secrets/stores, readOnly: true}
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext: {{- include "is-db-bootstrap.closed" . | nindent 2 }}
{{- end }}

{{/* What all pods have, besides their containers. */}}
{{- define "is-db-bootstrap.pod" -}}
serviceAccountName: {{ .settings }}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
# What runs at SIGTERM gets 5 s, is then cancelled on its server, and gets 5 s more to come back.
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: stores
    secret: {secretName: {{ .Values.secretName }}, optional: true, defaultMode: 0440}
{{- end }}

{{/* A later try may mend 4 (unavailable), 7 (locked) and a signal; with the others a person is needed. */}}
{{- define "is-db-bootstrap.failurePolicy" -}}
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
    - action: FailJob
      onExitCodes: {containerName: bootstrap, operator: In, values: [1, 2, 3, 5, 6, 8]}
{{- end }}
