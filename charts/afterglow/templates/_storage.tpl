{{/*
Where profiles lie: the storage that the values name, or else the demo bucket. Each template takes the root context.
*/}}

{{/* "true" when the demo bucket stands in for a storage; fails when there is neither. */}}
{{- define "afterglow.isDemo" -}}
{{- if not .Values.storage.url -}}
{{- if not .Values.demoBucket.enabled -}}
{{- fail "storage.url is needed, such as s3://profiles; or demoBucket.enabled=true for a trial that keeps nothing" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- define "afterglow.demoEndpoint" -}}
{{- printf "http://%s:7070" (include "afterglow.componentName" (dict "root" . "component" "demo-bucket")) -}}
{{- end -}}

{{- define "afterglow.storageUrl" -}}
{{- ternary "s3://afterglow" .Values.storage.url (eq (include "afterglow.isDemo" .) "true") -}}
{{- end -}}

{{/* The environment that the storage's client reads; a list, possibly empty. */}}
{{- define "afterglow.storageEnv" -}}
{{- if eq (include "afterglow.isDemo" .) "true" }}
- {name: AWS_ENDPOINT_URL, value: {{ include "afterglow.demoEndpoint" . | quote }}}
- {name: AWS_REGION, value: us-east-1}
{{- else }}
{{- with .Values.storage.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.storage.region }}
- {name: AWS_REGION, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secret with the storage's credentials; empty for workload identity. */}}
{{- define "afterglow.storageSecret" -}}
{{- if eq (include "afterglow.isDemo" .) "true" -}}
{{- include "afterglow.componentName" (dict "root" . "component" "demo-bucket") -}}
{{- else -}}
{{- .Values.storage.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The port of a URL, from its text; 443 or 80 by its scheme where it names none. */}}
{{- define "afterglow.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "443" "80" (eq $url.scheme "https")) $port -}}
{{- end -}}
