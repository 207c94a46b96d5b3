{{/*
TLS between clients and pods: what servers are given, and what the chart's own clients are. Each template takes the root context unless it
says otherwise, and is empty where tls.enabled is false.
*/}}

{{/* The Secret with the servers' certificate. */}}
{{- define "afterglow.tlsSecret" -}}
{{- if .Values.tls.enabled -}}
{{- required "tls.existingSecret is needed with tls.enabled: a Secret with the keys tls.crt, tls.key and ca.crt" .Values.tls.existingSecret -}}
{{- else if .Values.tls.clientAuth.enabled -}}
{{- fail "tls.clientAuth.enabled needs tls.enabled" -}}
{{- end -}}
{{- end -}}

{{/* The Secret with what the chart's own clients present; empty where they are not asked. */}}
{{- define "afterglow.tlsClientSecret" -}}
{{- if and .Values.tls.enabled .Values.tls.clientAuth.enabled -}}
{{- required "tls.clientAuth.existingSecret is needed with tls.clientAuth.enabled: a Secret with the keys tls.crt and tls.key" .Values.tls.clientAuth.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "afterglow.scheme" -}}
{{- ternary "https" "http" .Values.tls.enabled -}}
{{- end -}}

{{/* Flags of a server; siblings are asked over TLS where there are any. From (dict "root" $ "siblings" "dns+..."). */}}
{{- define "afterglow.tlsServerFlags" -}}
{{- if include "afterglow.tlsSecret" .root }}
- "--tls.cert-file=/etc/ssl/afterglow/tls.crt"
- "--tls.key-file=/etc/ssl/afterglow/tls.key"
{{- if include "afterglow.tlsClientSecret" .root }}
- "--tls.client-ca-file=/etc/ssl/afterglow/ca.crt"
{{- end }}
{{- if .siblings }}
- "--query.siblings-ca-file=/etc/ssl/afterglow/ca.crt"
{{- if include "afterglow.tlsClientSecret" .root }}
- "--query.siblings-cert-file=/etc/ssl/afterglow-client/tls.crt"
- "--query.siblings-key-file=/etc/ssl/afterglow-client/tls.key"
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Flags of a client of the chart's own. A token goes in the clear where everything does. */}}
{{- define "afterglow.tlsClientFlags" -}}
{{- if include "afterglow.tlsSecret" . }}
- "--tls.ca-file=/etc/ssl/afterglow/ca.crt"
{{- if include "afterglow.tlsClientSecret" . }}
- "--tls.cert-file=/etc/ssl/afterglow-client/tls.crt"
- "--tls.key-file=/etc/ssl/afterglow-client/tls.key"
{{- end }}
{{- else if .Values.auth.enabled }}
- "--token-in-clear"
{{- end }}
{{- end -}}

{{/* Volumes: of the servers' Secret a client sees the authority alone, and a server presents itself to nobody but siblings.
From (dict "root" $ "isServer" true "isClient" false). */}}
{{- define "afterglow.tlsVolumes" -}}
{{- with include "afterglow.tlsSecret" .root }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 288
    {{- if not $.isServer }}
    items: [{key: ca.crt, path: ca.crt}]
    {{- end }}
{{- end }}
{{- if .isClient }}
{{- with include "afterglow.tlsClientSecret" .root }}
- name: tls-client
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}
{{- end -}}

{{- define "afterglow.tlsVolumeMounts" -}}
{{- if include "afterglow.tlsSecret" .root }}
- {name: tls, mountPath: /etc/ssl/afterglow, readOnly: true}
{{- end }}
{{- if and .isClient (include "afterglow.tlsClientSecret" .root) }}
- {name: tls-client, mountPath: /etc/ssl/afterglow-client, readOnly: true}
{{- end }}
{{- end -}}

{{/* What a job of the agent needs to scrape the chart's own pods, TOML: TLS, and a token where they ask for one. */}}
{{- define "afterglow.scrapeOwn" -}}
{{- $lines := list -}}
{{- if include "afterglow.tlsSecret" . -}}
{{- $files := "ca_file = \"/etc/ssl/afterglow/ca.crt\"" -}}
{{- if include "afterglow.tlsClientSecret" . -}}
{{- $files = printf "%s, cert_file = \"/etc/ssl/afterglow-client/tls.crt\", key_file = \"/etc/ssl/afterglow-client/tls.key\"" $files -}}
{{- end -}}
{{- $lines = list "scheme = \"https\"" (printf "tls_config = { %s }" $files) -}}
{{- end -}}
{{- if .Values.auth.enabled -}}
{{- $inClear := ternary "" ", token_in_clear = true" .Values.tls.enabled -}}
{{- $lines = append $lines (printf "authorization = { credentials_file = \"/etc/afterglow-scrape/scrape.token\"%s }" $inClear) -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}

{{/* How Prometheus scrapes: the agent's port is plain. */}}
{{- define "afterglow.monitorTls" -}}
{{- with include "afterglow.tlsSecret" . }}
scheme: https
tlsConfig:
  ca: {secret: {name: {{ . }}, key: ca.crt}}
  serverName: {{ include "afterglow.fullname" $ }}-querier
relabelings:
  - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
    regex: agent
    targetLabel: __scheme__
    replacement: http
{{- end }}
{{- end -}}
