{{/*
What things are called and labelled. Each template takes the root context; those of a component take
(dict "root" $ "component" "ingester").
*/}}

{{- define "afterglow.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for the longest suffix, -demo-bucket-headless, within the 63 of a DNS label. */}}
{{- define "afterglow.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "afterglow.componentName" -}}
{{- printf "%s-%s" (include "afterglow.fullname" .root) .component -}}
{{- end -}}

{{/* Labels of every object; a component adds its own. commonLabels may say what it is part of, and its version. */}}
{{- define "afterglow.labels" -}}
{{- $common := default dict .root.Values.commonLabels -}}
{{- include "afterglow.checkLabels" (dict "name" "commonLabels" "labels" $common) -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ get $common "app.kubernetes.io/version" | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ dict "app.kubernetes.io/part-of" (get $common "app.kubernetes.io/part-of" | default "afterglow") | toYaml }}
{{ include "afterglow.selectorLabels" . }}
{{- with omit $common "app.kubernetes.io/version" "app.kubernetes.io/part-of" }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same and those for some objects alone, which go over commonLabels, later ones over earlier. From (dict "root" $ "component" "ingester"
"more" (list (dict "name" "podLabels" "labels" map))), where name says which value it is. */}}
{{- define "afterglow.labelsAnd" -}}
{{- $all := include "afterglow.labels" . | fromYaml -}}
{{- range .more -}}
{{- $labels := default dict .labels -}}
{{- include "afterglow.checkLabels" (dict "name" .name "labels" $labels) -}}
{{- $all = mergeOverwrite $all (deepCopy $labels) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Refuses labels that the chart keeps for itself: selectors find pods and Services by them, and Helm its objects. From (dict "name"
"commonLabels" "labels" map). */}}
{{- define "afterglow.checkLabels" -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/managed-by" "helm.sh/chart" "afterglow.dev/headless" -}}
{{- range $key := $own -}}
{{- if hasKey $.labels $key -}}
{{- $hint := ternary ", and nameOverride says what it is" "" (eq $key "app.kubernetes.io/name") -}}
{{- fail (printf "%s has %s, which the chart sets by itself%s" $.name $key $hint) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What never changes in the life of a release, for a Deployment's selector cannot. */}}
{{- define "afterglow.selectorLabels" -}}
app.kubernetes.io/name: {{ include "afterglow.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "afterglow.serviceAccountName" -}}
{{- $fallback := ternary (include "afterglow.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $fallback .Values.serviceAccount.name -}}
{{- end -}}

{{/* An image's reference, from (dict "image" .Values.image "tag" "default tag"). */}}
{{- define "afterglow.image" -}}
{{- $repository := .image.repository -}}
{{- if .image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .image.registry) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .tag .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* annotations: of an object, from (dict "root" $ "annotations" (list map map)); later maps go over earlier ones. Nothing when empty. */}}
{{- define "afterglow.annotations" -}}
{{- $all := deepCopy .root.Values.commonAnnotations -}}
{{- range .annotations -}}
{{- $all = mergeOverwrite $all (deepCopy .) -}}
{{- end -}}
{{- with $all -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
