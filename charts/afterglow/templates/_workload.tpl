{{/*
A Deployment of Afterglow, or a DaemonSet. All tiers are one program with one pod's shape; they differ in the subcommand, its flags, and
their values. From (dict "root" $ "component" "ingester" "args" (list ...) "storage" true), where storage says whether the pod talks to the
bucket, and kind may be "DaemonSet".
*/}}

{{/* Settings as flags, sorted by name; a list repeats its flag, true is a flag alone, false is none. Helm reads all numbers as floats. */}}
{{- define "afterglow.flags" -}}
{{- range $name, $value := . }}
{{- if kindIs "slice" $value }}
{{- range $value }}
- {{ printf "--%s=%v" $name . | quote }}
{{- end }}
{{- else if kindIs "bool" $value }}
{{- if $value }}
- {{ printf "--%s" $name | quote }}
{{- end }}
{{- else if kindIs "float64" $value }}
- {{ printf "--%s=%d" $name (int64 $value) | quote }}
{{- else }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The address to listen on, an IPv6 one in brackets, as a port behind it needs them. Takes the root context. */}}
{{- define "afterglow.listenHost" -}}
{{- $host := .Values.listenHost -}}
{{- ternary (printf "[%s]" $host) $host (contains ":" $host | and (not (hasPrefix "[" $host))) -}}
{{- end -}}

{{/* The Secret with the tokens that servers let in; empty where everybody is let in. Takes the root context. */}}
{{- define "afterglow.tokensSecret" -}}
{{- if .Values.auth.enabled -}}
{{- required "auth.existingSecret is needed with auth.enabled: a Secret with the key tokens.toml" .Values.auth.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The token that a client of the chart's own presents, where there are tokens. From (dict "root" $ "key" "agent.token"). */}}
{{- define "afterglow.tokenEnv" -}}
{{- with include "afterglow.tokensSecret" .root }}
- name: AFTERGLOW_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.key }}, optional: true}
{{- end }}
{{- end -}}

{{/* Milliseconds of a duration as the programs take it, "1m 30.5s". A unit that is not here is as good as a day: no drain may take an hour. */}}
{{- define "afterglow.millis" -}}
{{- $units := dict "ns" 0.000001 "nsec" 0.000001 "us" 0.001 "usec" 0.001 "ms" 1.0 "msec" 1.0 -}}
{{- range list "s" "sec" "secs" "second" "seconds" }}{{ $_ := set $units . 1000.0 }}{{ end -}}
{{- range list "m" "min" "mins" "minute" "minutes" }}{{ $_ := set $units . 60000.0 }}{{ end -}}
{{- range list "h" "hr" "hrs" "hour" "hours" }}{{ $_ := set $units . 3600000.0 }}{{ end -}}
{{- $millis := 0.0 -}}
{{- range regexFindAll "[0-9.]+ *[A-Za-zµ]+" . -1 -}}
{{- $millis = addf $millis (mulf (regexFind "^[0-9.]+" . | float64) (dig (regexFind "[A-Za-zµ]+$" .) 86400000.0 $units)) -}}
{{- end -}}
{{- round $millis 0 | int64 -}}
{{- end -}}

{{/* Refuses a grace that ends before a server has drained, when Kubernetes would kill it with what it has in hand, and a delay with which no
server starts: it is part of the timeout, and has to be below 85 % of it (Options::problems of the service crate). From (dict "name" "ingester"
"values" .Values.ingester). */}}
{{- define "afterglow.checkGrace" -}}
{{- $name := .name -}}
{{- $timeout := .values.settings | dig "drain-timeout" "10s" | toString -}}
{{- $delay := .values.settings | dig "drain-delay" "5s" | toString -}}
{{- range $setting, $value := dict "drain-timeout" $timeout "drain-delay" $delay -}}
{{- if regexMatch "^[0-9.e+]+$" $value | and (ne $value "0") -}}
{{- fail (printf "%s.settings.%s is %s, which has no unit: %ss" $name $setting $value $value) -}}
{{- end -}}
{{- end -}}
{{- $timeoutMillis := include "afterglow.millis" $timeout | int64 -}}
{{- $delayMillis := include "afterglow.millis" $delay | int64 -}}
{{- if le (int64 .values.terminationGracePeriodSeconds | mul 1000) $timeoutMillis -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d; it has to be above drain-timeout (%s)" $name (int .values.terminationGracePeriodSeconds) $timeout) -}}
{{- end -}}
{{- if gt $delayMillis 0 | and (ge (mul $delayMillis 100) (mul $timeoutMillis 85)) -}}
{{- fail (printf "%s.settings: drain-delay (%s) is part of drain-timeout (%s), and has to be below 85 %% of it" $name $delay $timeout) -}}
{{- end -}}
{{- end -}}

{{/* Where queriers find each other, as query.siblings has it; empty where they do not. Takes the root context. */}}
{{- define "afterglow.siblings" -}}
{{- $given := get .Values.querier.settings "query.siblings" -}}
{{- if not .Values.querier.siblings.enabled -}}
{{- $given -}}
{{- else if $given -}}
{{- fail "querier.siblings.enabled says where siblings are, and so does querier.settings.query.siblings: say it once" -}}
{{- else -}}
{{- /* The name stands for the addresses of pods, whose port is not that of the Service. */ -}}
{{- printf "dns+%s-headless:4200" (include "afterglow.componentName" (dict "root" . "component" "querier")) -}}
{{- end -}}
{{- end -}}

{{/* Whether pods push profiles of themselves: the agent scrapes them where it runs. Takes the root context. */}}
{{- define "afterglow.profilesItself" -}}
{{- if and .Values.selfProfile.enabled (not .Values.agent.enabled) -}}true{{- end -}}
{{- end -}}

{{/* Flags about that; ingesters push to themselves, and the others to them. From (dict "root" $ "component" "querier"). */}}
{{- define "afterglow.selfProfileFlags" -}}
{{- if and (include "afterglow.profilesItself" .root) (eq .component "ingester") }}
- "--self-profile.server=here"
{{- else if include "afterglow.profilesItself" .root }}
{{- $ingester := include "afterglow.componentName" (dict "root" .root "component" "ingester") }}
- {{ printf "--self-profile.server=%s://%s:%v" (include "afterglow.scheme" .root) $ingester .root.Values.ingester.service.port | quote }}
{{- if include "afterglow.tlsSecret" .root }}
- "--self-profile.ca-file=/etc/ssl/afterglow/ca.crt"
{{- if include "afterglow.tlsClientSecret" .root }}
- "--self-profile.cert-file=/etc/ssl/afterglow-client/tls.crt"
- "--self-profile.key-file=/etc/ssl/afterglow-client/tls.key"
{{- end }}
{{- else if .root.Values.auth.enabled }}
- "--self-profile.token-in-clear"
{{- end }}
{{- end }}
{{- end -}}

{{/* The flags of a pod that go by other values than its settings, after those of its tier. From (dict "of" . "siblings" "dns+..."
"tokensFile" "..."), where of is what afterglow.workload is given, and tokensFile is empty without tokens. */}}
{{- define "afterglow.ownFlags" -}}
{{- $root := .of.root -}}
{{- if .of.storage }}
- {{ printf "--storage=%s" (include "afterglow.storageUrl" $root) | quote }}
{{- if .tokensFile }}
- {{ printf "--auth.tokens-file=%s" .tokensFile | quote }}
{{- else if not (include "afterglow.tlsClientSecret" $root) }}
- "--insecure"
{{- end }}
{{- if and .siblings (not (hasKey (index $root.Values .of.component).settings "query.siblings")) }}
- {{ printf "--query.siblings=%s" .siblings | quote }}
{{- end }}
{{- with include "afterglow.tlsServerFlags" (dict "root" $root "siblings" .siblings) | trim }}
{{ . }}
{{- end }}
{{- with include "afterglow.selfProfileFlags" (dict "root" $root "component" .of.component) | trim }}
{{ . }}
{{- end }}
{{- else }}
{{- if .tokensFile }}
- {{ printf "--auth.tokens-file=%s" .tokensFile | quote }}
{{- else }}
- "--insecure"
{{- end }}
{{- with include "afterglow.tlsClientFlags" $root | trim }}
{{ . }}
{{- end }}
{{- /* The agent pushes profiles of itself unless it is told not to. */}}
{{- if not $root.Values.selfProfile.enabled }}
- "--no-self-profile"
{{- end }}
{{- end }}
- {{ printf "--listen=%s:%d" (include "afterglow.listenHost" $root) (int .of.port) | quote }}
- {{ printf "--log-format=%s" $root.Values.logFormat | quote }}
- {{ printf "--log-level=%s" $root.Values.logLevel | quote }}
{{- end -}}

{{/* Refuses settings that are the chart's to say, and those that repeat a flag which it gives the pod, for the program takes each once. All of
them are told at once, each with the value to use. From (dict "name" "querier" "settings" map "flags" (list "--storage=..." ...)). */}}
{{- define "afterglow.checkSettings" -}}
{{- $its := dict
      "storage" "storage.url"
      "listen" "listenHost"
      "roles" "maintainer.enabled"
      "config" (ternary "agent.config" (printf "%s.settings for each setting" .name) (eq .name "agent"))
      "server" "tls.enabled and ingester.service.port"
      "token" "auth.existingSecret"
      "token-file" "auth.existingSecret"
      "auth.tokens-file" "auth.enabled and auth.existingSecret"
      "insecure" "auth.enabled"
      "tls.cert-file" "tls.enabled and tls.existingSecret"
      "tls.key-file" "tls.enabled and tls.existingSecret"
      "tls.ca-file" "tls.enabled and tls.existingSecret"
      "tls.client-ca-file" "tls.clientAuth.enabled"
      "log-format" "logFormat"
      "log-level" "logLevel" -}}
{{- $selfProfile := "selfProfile.enabled, whose false leaves it to settings" -}}
{{- $here := dict
      "query.siblings-ca-file" "tls.existingSecret"
      "query.siblings-cert-file" "tls.clientAuth.existingSecret"
      "query.siblings-key-file" "tls.clientAuth.existingSecret"
      "query.disk-cache-dir" "querier.diskCache.volume"
      "query.disk-cache-bytes" "querier.diskCache.size"
      "self-profile.server" $selfProfile
      "self-profile.ca-file" $selfProfile
      "self-profile.cert-file" $selfProfile
      "self-profile.key-file" $selfProfile
      "self-profile.token-in-clear" $selfProfile
      "no-self-profile" "selfProfile.enabled"
      "token-in-clear" "auth.enabled and tls.enabled" -}}
{{- range .flags -}}
{{- $flag := regexFind "^--[^=]+" . | trimPrefix "--" -}}
{{- if not (hasKey $its $flag) }}{{ $_ := set $its $flag (dig $flag "another value" $here) }}{{ end -}}
{{- end -}}
{{- $problems := list -}}
{{- range $setting := keys .settings | sortAlpha -}}
{{- if hasKey $its $setting -}}
{{- $problems = append $problems (printf "%s.settings has %s, which the chart sets by itself: use %s" $.name $setting (get $its $setting)) -}}
{{- end -}}
{{- end -}}
{{- with $problems }}{{ join "; " . | fail }}{{ end -}}
{{- end -}}

{{- define "afterglow.workload" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .component -}}
{{- $isDemo := and .storage (eq (include "afterglow.isDemo" $root) "true") -}}
{{- $kind := default "Deployment" .kind -}}
{{- $siblings := "" -}}
{{- if eq .component "querier" }}{{ $siblings = include "afterglow.siblings" $root }}{{ end -}}
{{- $tokens := include "afterglow.tokensSecret" $root -}}
{{- /* The agent's file is mounted as /etc/afterglow, in which nothing can be mounted. */ -}}
{{- $tokensFolder := ternary "/etc/afterglow/auth" "/etc/afterglow-auth" .storage -}}
{{- $mounts := default list .volumeMounts -}}
{{- $volumes := default list .volumes -}}
{{- if $tokens -}}
{{- $items := list (dict "key" "tokens.toml" "path" "tokens.toml") -}}
{{- $mounts = append $mounts (dict "name" "tokens" "mountPath" $tokensFolder "readOnly" true) -}}
{{- $volumes = append $volumes (dict "name" "tokens" "secret" (dict "secretName" $tokens "defaultMode" 288 "items" $items)) -}}
{{- end -}}
{{- $pushesItself := and .storage (ne .component "ingester") (include "afterglow.profilesItself" $root) -}}
{{- if .storage -}}
{{- /* Where the sampler of CPU time keeps its samples. */ -}}
{{- $mounts = append $mounts (dict "name" "tmp" "mountPath" "/tmp") -}}
{{- $volumes = append $volumes (dict "name" "tmp" "emptyDir" (dict)) -}}
{{- end -}}
{{- $tls := dict "root" $root "isServer" .storage "isClient" (or (not .storage) $siblings $pushesItself) -}}
{{- $mounts = concat $mounts (include "afterglow.tlsVolumeMounts" $tls | fromYamlArray) -}}
{{- $volumes = concat $volumes (include "afterglow.tlsVolumes" $tls | fromYamlArray) -}}
{{- $scheme := ternary "HTTPS" "HTTP" (and .storage $root.Values.tls.enabled) -}}
{{- $podLabels := list (dict "name" "podLabels" "labels" $root.Values.podLabels) (dict "name" (printf "%s.podLabels" .component) "labels" $values.podLabels) -}}
{{- $strategy := default $values.updateStrategy .strategy | default dict -}}
{{- /* What is written by default stays beside what is given, and Kubernetes refuses it with Recreate. */ -}}
{{- if eq (dig "type" "" $strategy) "Recreate" }}{{ $strategy = pick $strategy "type" }}{{ end -}}
{{- $tokensFile := ternary (printf "%s/tokens.toml" $tokensFolder) "" (ne $tokens "") -}}
{{- $own := include "afterglow.ownFlags" (dict "of" . "siblings" $siblings "tokensFile" $tokensFile) | trim -}}
{{- include "afterglow.checkSettings" (dict "name" .component "settings" $values.settings "flags" (fromYamlArray $own | concat .args)) -}}
{{- if .storage }}{{ include "afterglow.checkGrace" (dict "name" .component "values" $values) }}{{ end -}}
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ include "afterglow.componentName" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "afterglow.labels" . | nindent 4 }}
  {{- with include "afterglow.annotations" (dict "root" $root "annotations" list) }}
  {{- . | nindent 2 }}
  {{- end }}
spec:
  {{- if not (or (eq $kind "DaemonSet") (dig "autoscaling" "enabled" false $values)) }}
  replicas: {{ .replicas | default $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  {{ ternary "updateStrategy" "strategy" (eq $kind "DaemonSet") }}:
    {{- toYaml $strategy | nindent 4 }}
  selector:
    matchLabels:
      {{- include "afterglow.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "afterglow.labelsAnd" (dict "root" $root "component" .component "more" $podLabels) | nindent 8 }}
      {{- with mergeOverwrite (dict) $root.Values.commonAnnotations $root.Values.podAnnotations $values.podAnnotations (default dict .podAnnotations) }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      serviceAccountName: {{ include "afterglow.serviceAccountName" $root }}
      automountServiceAccountToken: false
      # Variables like AFTERGLOW_..._PORT of the Services beside would only be in the way.
      enableServiceLinks: false
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- toYaml $root.Values.podSecurityContext | nindent 8 }}
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      {{- if or $isDemo $values.initContainers }}
      initContainers:
        {{- if $isDemo }}
        {{- include "afterglow.waitForDemo" $root | nindent 8 }}
        {{- end }}
        {{- with $values.initContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "afterglow.image" (dict "image" $root.Values.image "tag" $root.Chart.AppVersion) | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            {{- toYaml .args | nindent 12 }}
            {{- $own | nindent 12 }}
            {{- with include "afterglow.flags" $values.settings | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- $env := "" }}
          {{- if .storage }}{{ $env = include "afterglow.storageEnv" $root | trim }}{{ end }}
          {{- if or $env .env $root.Values.otlpEndpoint $values.extraEnv (and $pushesItself $tokens) }}
          env:
            {{- with $env }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- if and $pushesItself $tokens }}
            - name: AFTERGLOW_SELF_PROFILE_TOKEN
              valueFrom:
                secretKeyRef: {name: {{ $tokens }}, key: agent.token, optional: true}
            {{- end }}
            {{- with $root.Values.otlpEndpoint }}
            - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
            {{- end }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          {{- $secret := "" }}
          {{- if .storage }}{{ $secret = include "afterglow.storageSecret" $root }}{{ end }}
          {{- if or $secret $values.extraEnvFrom }}
          envFrom:
            {{- with $secret }}
            - secretRef: {name: {{ . }}}
            {{- end }}
            {{- with $values.extraEnvFrom }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ .port }}, protocol: TCP}
          # The storage is probed before the port opens: a start takes seconds where the storage is slow.
          startupProbe:
            httpGet: {path: /healthz, port: http{{ if eq $scheme "HTTPS" }}, scheme: HTTPS{{ end }}}
            periodSeconds: 1
            timeoutSeconds: 5
            failureThreshold: 60
          # Whoever answers is alive. A storage that is gone makes a pod not ready, and never restarts it.
          livenessProbe:
            httpGet: {path: /healthz, port: http{{ if eq $scheme "HTTPS" }}, scheme: HTTPS{{ end }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: http{{ if eq $scheme "HTTPS" }}, scheme: HTTPS{{ end }}}
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 2
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- toYaml $root.Values.containerSecurityContext | nindent 12 }}
          {{- if or $mounts $values.extraVolumeMounts }}
          volumeMounts:
            {{- concat $mounts $values.extraVolumeMounts | toYaml | nindent 12 }}
          {{- end }}
        {{- with $values.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or $volumes $values.extraVolumes }}
      volumes:
        {{- concat $volumes $values.extraVolumes | toYaml | nindent 8 }}
      {{- end }}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range . }}
        - maxSkew: {{ .maxSkew }}
          topologyKey: {{ .topologyKey }}
          whenUnsatisfiable: {{ .whenUnsatisfiable }}
          labelSelector:
            matchLabels:
              {{- include "afterglow.selectorLabels" $ | nindent 14 }}
        {{- end }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{/* A Service and a headless one: the first for whoever just wants to reach the tier, the second for gRPC clients that balance
over its pods themselves (dns:///NAME-headless:PORT), since a connection through the first stays with one pod. The name of the second stands for
the addresses of pods, so its port is theirs, whatever that of the first is.
From (dict "root" $ "component" "ingester" "port" 4100 "only" ""), where only may be "headless". */}}
{{- define "afterglow.services" -}}
{{- $service := default dict (index .root.Values .component "service") -}}
{{- $kinds := ternary (list "headless") (list "" "headless") (eq (default "" .only) "headless") -}}
{{- range $i, $kind := $kinds }}
{{- if $i }}
---
{{- end }}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "afterglow.componentName" $ }}{{ with $kind }}-{{ . }}{{ end }}
  namespace: {{ $.root.Release.Namespace }}
  labels:
    {{- include "afterglow.labels" $ | nindent 4 }}
    {{- if $kind }}
    afterglow.dev/headless: "true"
    {{- end }}
  {{- with include "afterglow.annotations" (dict "root" $.root "annotations" (list (default dict $service.annotations))) }}
  {{- . | nindent 2 }}
  {{- end }}
spec:
  {{- if $kind }}
  clusterIP: None
  {{- else }}
  type: {{ $service.type }}
  {{- end }}
  selector:
    {{- include "afterglow.selectorLabels" $ | nindent 4 }}
  ports:
    - name: http
      port: {{ ternary $.port $service.port (eq $kind "headless") }}
      targetPort: http
      protocol: TCP
      {{- with $service.appProtocol }}
      appProtocol: {{ ternary "https" . (and $.root.Values.tls.enabled (eq . "kubernetes.io/h2c")) }}
      {{- end }}
{{ end }}
{{- end -}}

{{- define "afterglow.disruptionBudget" -}}
{{- $values := index .root.Values .component -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "afterglow.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "afterglow.labels" . | nindent 4 }}
  {{- with include "afterglow.annotations" (dict "root" .root "annotations" list) }}
  {{- . | nindent 2 }}
  {{- end }}
spec:
  maxUnavailable: {{ $values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready serves nobody: it must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "afterglow.selectorLabels" . | nindent 6 }}
{{- end -}}

{{- define "afterglow.autoscaler" -}}
{{- $values := index .root.Values .component -}}
{{- $scaling := $values.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is %d, more than maxReplicas, which is %d" .component (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "afterglow.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "afterglow.labels" . | nindent 4 }}
  {{- with include "afterglow.annotations" (dict "root" .root "annotations" list) }}
  {{- . | nindent 2 }}
  {{- end }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "afterglow.componentName" . }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $scaling.targetCPU }}}
    {{- if $scaling.targetMemory }}
    - type: Resource
      resource:
        name: memory
        target: {type: Utilization, averageUtilization: {{ $scaling.targetMemory }}}
    {{- end }}
  {{- with $scaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
