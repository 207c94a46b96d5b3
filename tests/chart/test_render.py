"""What the chart renders to: golden files, the schemas of Kubernetes, an operator's review, and what every pod must keep to."""

import json
import pathlib
import shutil
import tomllib

import pytest
import yaml
from charts import CHART, HERE, ROOT, SETS, containers, objects, pods, render, renews, run, value_files

SCHEMAS = ROOT / ".cache/schemas/{{.ResourceKind}}{{.KindSuffix}}.json"
# With a tag that never moves, Always would only mean that no pod starts while the registry is away, and that an image which was loaded
# into a test cluster by hand is not found.
NOT_OURS = "container-image-pull-policy"


def test_seven_sets_of_values_are_tried() -> None:
    assert SETS == ["everything", "gateway", "ha", "ingress", "nodes", "small", "trial"]


def test_lint_has_nothing_to_say(values: str) -> None:
    done = run("helm", "lint", "--strict", CHART, *value_files(values))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout, done.stdout


def test_renders_as_before(values: str) -> None:
    golden = HERE / f"golden/{values}.yaml"
    text = render(values)
    if renews():
        golden.write_text(text)
    assert text == golden.read_text(), f"{golden} differs; AFTERGLOW_RENEW=1 renews it, and the diff is read"


def test_kubernetes_knows_every_field(values: str) -> None:
    done = run("kubeconform", "-strict", "-summary", "-schema-location", SCHEMAS, HERE / f"golden/{values}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout, done.stdout


def test_kubernetes_refuses_a_field_that_is_not_there(tmp_path) -> None:
    text = (HERE / "golden/trial.yaml").read_text().replace("terminationGracePeriodSeconds:", "terminationGrace:")
    (tmp_path / "wrong.yaml").write_text(text)
    done = run("kubeconform", "-strict", "-schema-location", SCHEMAS, tmp_path / "wrong.yaml")
    assert done.returncode == 1 and "terminationGrace" in done.stdout, done.stdout


def test_an_operator_finds_nothing_critical(values: str) -> None:
    done = run("kube-score", "score", "--output-format", "ci", "--ignore-test", NOT_OURS, HERE / f"golden/{values}.yaml")
    critical = [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]
    assert "[OK]" in done.stdout, done.stdout + done.stderr
    assert critical == []


def test_nothing_keeps_a_volume_and_nothing_may_ask_the_api(values: str, rendered: dict) -> None:
    kinds = {parsed["kind"] for parsed in rendered[values]}
    assert "Deployment" in kinds
    assert ("DaemonSet" in kinds) == (values == "nodes")
    assert not kinds & {"StatefulSet", "PersistentVolumeClaim", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}


def test_every_pod_keeps_to_the_restricted_standard(values: str, rendered: dict) -> None:
    for name, spec in pods(rendered[values]).items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 10001, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, container
            assert context["readOnlyRootFilesystem"] is True, container
            assert context["capabilities"] == {"drop": ["ALL"]}, container
            for resource in ("cpu", "memory", "ephemeral-storage"):
                assert resource in container["resources"]["requests"], container
                assert resource in container["resources"]["limits"], container


def test_a_pod_has_time_to_drain(values: str, rendered: dict) -> None:
    for name, spec in pods(rendered[values]).items():
        if "terminationGracePeriodSeconds" in spec:
            # drain-timeout is 10 s, as docs/configuration.md has it.
            assert spec["terminationGracePeriodSeconds"] > 10, name


def test_a_secret_is_made_for_the_trial_alone(values: str, rendered: dict) -> None:
    secrets = [parsed["metadata"]["name"] for parsed in rendered[values] if parsed["kind"] == "Secret"]
    assert secrets == (["glow-afterglow-demo-bucket"] if values == "trial" else [])


def test_a_policy_stands_before_every_pod(values: str, rendered: dict) -> None:
    policies = [parsed["spec"]["podSelector"]["matchLabels"] for parsed in rendered[values] if parsed["kind"] == "NetworkPolicy"]
    for parsed in rendered[values]:
        labels = parsed["metadata"]["labels"] if parsed["kind"] == "Pod" else None
        if parsed["kind"] in ("Deployment", "DaemonSet"):
            labels = parsed["spec"]["template"]["metadata"]["labels"]
        if labels is not None:
            assert any(policy.items() <= labels.items() for policy in policies), parsed["metadata"]["name"]


@pytest.mark.parametrize("endpoint, port", [("", None), ("http://[fd00::1]:9000", 9000)])
@pytest.mark.parametrize("has_metadata", [True, False])
def test_without_ports_of_the_storage_no_other_is_open(endpoint: str, port: int | None, has_metadata: bool, tmp_path: pathlib.Path) -> None:
    """A rule of a NetworkPolicy that names neither peers nor ports allows everything."""
    policy = f"{{storagePorts: [], metadataService: {json.dumps(has_metadata)}}}"
    text = f"storage: {{url: s3://profiles, endpoint: '{endpoint}'}}\nmaintainer: {{enabled: true}}\nnetworkPolicy: {policy}\n"
    found = {parsed["metadata"]["name"]: parsed["spec"]["egress"] for parsed in with_values(tmp_path, text) if parsed["kind"] == "NetworkPolicy"}
    for name in ("ingester", "querier", "maintainer"):
        rules = found[f"glow-afterglow-{name}"]
        assert all(rule.get("ports") for rule in rules), rules
        assert [rule["ports"][0]["port"] for rule in rules if "to" not in rule] == [53, *([port] if port else [])]
        assert any("ipBlock" in str(rule) for rule in rules) == has_metadata


@pytest.mark.parametrize("host, shown", [("0.0.0.0", "0.0.0.0"), ("::", "[::]"), ("[::]", "[::]"), ("fd00::1", "[fd00::1]")])
def test_an_address_of_ipv6_is_listened_on_in_brackets(host: str, shown: str) -> None:
    specs = pods(objects(render("ha", "--set", f"listenHost={host}")))
    found = {name: [arg for arg in spec["containers"][0].get("args", []) if arg.startswith("--listen=")] for name, spec in specs.items()}
    ports = {"ingester": 4100, "querier": 4200, "maintainer": 4100, "agent": 4300}
    assert {name: args for name, args in found.items() if args} == {f"glow-afterglow-{name}": [f"--listen={shown}:{port}"] for name, port in ports.items()}


def test_writes_and_reads_share_one_host_behind_a_gateway(rendered: dict) -> None:
    (route,) = [parsed for parsed in rendered["gateway"] if parsed["kind"] == "HTTPRoute"]
    to = {}
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            to[match.get("method"), match["path"]["value"]] = rule["backendRefs"][0]["name"]
    assert to == {
        (None, "/afterglow.v1.IngestService"): "glow-afterglow-ingester",
        ("POST", "/api/v1/profiles"): "glow-afterglow-ingester",
        (None, "/ingest"): "glow-afterglow-ingester",
        (None, "/"): "glow-afterglow-querier",
    }


def test_the_maintainer_takes_over_from_the_ingesters(rendered: dict) -> None:
    specs = pods(rendered["ha"])
    assert "--roles=ingest" in specs["glow-afterglow-ingester"]["containers"][0]["args"]
    assert "--roles=maintain" in specs["glow-afterglow-maintainer"]["containers"][0]["args"]
    assert "--roles=ingest,maintain" in pods(rendered["small"])["glow-afterglow-ingester"]["containers"][0]["args"]


def test_ingesters_take_nothing_that_the_maintainer_would_delete(rendered: dict) -> None:
    specs = pods(rendered["everything"])
    ingester, maintainer = (specs[f"glow-{name}"]["containers"][0] for name in ("ingester", "maintainer"))
    kept = [arg for arg in maintainer["args"] if arg.startswith("--retention.")]
    assert len(kept) == 3 and [arg for arg in ingester["args"] if arg.startswith("--retention.")] == kept


def test_pods_push_profiles_of_themselves_unless_the_agent_scrapes_them(rendered: dict) -> None:
    def flags(spec: dict) -> list[str]:
        return [arg for arg in spec["containers"][0]["args"] if "self-profile" in arg]

    assert flags(pods(rendered["everything"])["glow-querier"]) == []
    # It pushes them itself, and where nobody is to, it is told.
    assert flags(pods(rendered["ha"])["glow-afterglow-agent"]) == []
    assert flags(pods(objects(render("ha", "--set", "selfProfile.enabled=false")))["glow-afterglow-agent"]) == ["--no-self-profile"]
    assert flags(pods(rendered["small"])["glow-afterglow-ingester"]) == ["--self-profile.server=here"]
    assert flags(pods(rendered["small"])["glow-afterglow-querier"]) == ["--self-profile.server=http://glow-afterglow-ingester:4100"]
    without = "agent.enabled=false,grafana.datasource.enabled=false,auth.enabled=true,auth.existingSecret=tokens"
    specs = pods(objects(render("ha", "--set", without)))
    for name in ("maintainer", "querier"):
        spec = specs[f"glow-afterglow-{name}"]
        assert "--self-profile.server=https://glow-afterglow-ingester:4100" in flags(spec)
        assert {f"--self-profile.{file}" for file in ("ca-file", "cert-file", "key-file")} <= {flag.split("=")[0] for flag in flags(spec)}
        (container,) = spec["containers"]
        (token,) = [variable for variable in container["env"] if variable["name"] == "AFTERGLOW_SELF_PROFILE_TOKEN"]
        assert token["valueFrom"]["secretKeyRef"]["key"] == "agent.token"
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/etc/ssl/afterglow", "/etc/ssl/afterglow-client", "/tmp"} <= mounts


def with_values(folder: pathlib.Path, text: str) -> list[dict]:
    """Returns the objects of a trial with some values, once Kubernetes knows every field of them."""
    (folder / "values.yaml").write_text(text)
    rendered = render("trial", "-f", folder / "values.yaml")
    (folder / "rendered.yaml").write_text(rendered)
    done = run("kubeconform", "-strict", "-schema-location", SCHEMAS, folder / "rendered.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return objects(rendered)


CLAIM = "{ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 11Gi}}}}}}"


@pytest.mark.parametrize(
    "volume, limits",
    [(CLAIM, "64Mi"), (CLAIM.replace("{eph", "{emptyDir: null, eph"), "64Mi"), ("{}", "11Gi"), ("{emptyDir: null}", "11Gi"), ("{emptyDir: {sizeLimit: 11Gi}}", "11Gi")],
)
def test_the_cache_on_disk_is_on_one_volume(volume: str, limits: str, tmp_path: pathlib.Path) -> None:
    text = f"querier: {{diskCache: {{enabled: true, volume: {volume}}}, resources: {{limits: {{ephemeral-storage: {limits}}}}}}}"
    found = pods(with_values(tmp_path, text))["glow-afterglow-querier"]["volumes"]
    given = {kind: source for kind, source in yaml.safe_load(volume).items() if source is not None}
    assert [v for v in found if v["name"] == "disk-cache"] == [{"name": "disk-cache", **(given or {"emptyDir": {}})}]


def test_a_tier_may_be_replaced_all_at_once(tmp_path: pathlib.Path) -> None:
    text = "maintainer: {enabled: true, updateStrategy: {type: Recreate}}\nquerier: {updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}}\n"
    found = {parsed["metadata"]["name"]: parsed["spec"]["strategy"] for parsed in with_values(tmp_path, text) if parsed["kind"] == "Deployment"}
    assert found["glow-afterglow-maintainer"] == {"type": "Recreate"}
    assert found["glow-afterglow-querier"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


LABELS = """
commonLabels: {app.kubernetes.io/part-of: "12", app.kubernetes.io/version: "7", team: platform, release: one}
podLabels: {team: profiles, app.kubernetes.io/part-of: pods}
querier: {podLabels: {team: queries}}
maintainer: {enabled: true}
agent: {enabled: true}
monitoring: {podMonitor: {enabled: true, labels: {release: two}}}
"""


def test_labels_of_users_go_on_everything_and_no_selector_loses_its_pods(tmp_path: pathlib.Path) -> None:
    rendered = with_values(tmp_path, LABELS)
    labels = {(parsed["kind"], parsed["metadata"]["name"].removeprefix("glow-afterglow-")): parsed["metadata"]["labels"] for parsed in rendered}
    assert {found["app.kubernetes.io/version"] for found in labels.values()} == {"7"}
    assert {key for key, found in labels.items() if found["app.kubernetes.io/part-of"] != "12"} == {("Pod", "test")}
    # What is said of fewer goes over what is said of more.
    assert labels["PodMonitor", "glow-afterglow"]["release"] == "two" and labels["Service", "querier"]["release"] == "one"
    made = [parsed for parsed in rendered if parsed["kind"] in ("Deployment", "DaemonSet")]
    pod_labels = {parsed["metadata"]["labels"]["app.kubernetes.io/component"]: parsed["spec"]["template"]["metadata"]["labels"] for parsed in made}
    assert {name: found["team"] for name, found in pod_labels.items() if name != "demo-bucket"} == {
        "ingester": "profiles",
        "querier": "queries",
        "maintainer": "profiles",
        "agent": "profiles",
    }
    assert pod_labels["ingester"]["app.kubernetes.io/part-of"] == "pods"
    for parsed in made:
        assert parsed["spec"]["selector"]["matchLabels"].items() <= parsed["spec"]["template"]["metadata"]["labels"].items(), parsed["metadata"]["name"]
    for parsed in rendered:
        if parsed["kind"] in ("Service", "PodDisruptionBudget"):
            selector = parsed["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert len([found for found in pod_labels.values() if selector.items() <= found.items()]) == 1, parsed["metadata"]["name"]


def test_there_is_never_a_second_agent(rendered: dict) -> None:
    (agent,) = [parsed for parsed in rendered["everything"] if parsed["metadata"]["name"] == "glow-agent" and parsed["kind"] == "Deployment"]
    assert agent["spec"]["replicas"] == 1
    assert agent["spec"]["strategy"] == {"type": "Recreate"}


def test_each_node_has_one_agent_which_knows_its_node(rendered: dict) -> None:
    (agent,) = [parsed for parsed in rendered["nodes"] if parsed["kind"] == "DaemonSet"]
    assert agent["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}
    assert "replicas" not in agent["spec"] and "strategy" not in agent["spec"]
    spec = agent["spec"]["template"]["spec"]
    fields = {v["name"]: v["valueFrom"]["fieldRef"]["fieldPath"] for v in spec["containers"][0]["env"] if "fieldRef" in v["valueFrom"]}
    assert fields == {"NODE_IP": "status.hostIP", "NODE_NAME": "spec.nodeName"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert not [parsed for parsed in rendered["nodes"] if parsed["kind"] == "Deployment" and parsed["metadata"]["name"].endswith("-agent")]


def test_the_agent_lets_in_who_the_others_let_in(rendered: dict) -> None:
    for values, name, guard in (("everything", "glow-agent", "--auth.tokens-file=/etc/afterglow-auth/tokens.toml"), ("ha", "glow-afterglow-agent", "--insecure")):
        (container,) = pods(rendered[values])[name]["containers"]
        assert [arg for arg in container["args"] if arg.startswith(("--auth", "--insecure"))] == [guard]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        # Nothing can be mounted within a ConfigMap.
        assert not any(other.startswith(f"{mount}/") for mount in mounts for other in mounts), mounts


def test_the_agent_may_scrape_pods_that_ask_for_a_token(rendered: dict) -> None:
    spec = pods(rendered["everything"])["glow-agent"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "scrape"]
    # Who scrapes others alone needs no such token.
    assert volume["secret"]["secretName"] == "tokens" and volume["secret"]["optional"]
    (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "scrape"]
    for values, is_in_clear in (("everything", True), ("ha", None)):
        (config,) = [parsed["data"]["agent.toml"] for parsed in rendered[values] if "agent.toml" in parsed.get("data", {})]
        jobs = tomllib.loads(config)["scrape_configs"]
        found = [job.get("authorization") for job in jobs]
        file = f"{mount['mountPath']}/scrape.token"
        assert found == [is_in_clear and {"credentials_file": file, "token_in_clear": True}] * 2, values


def test_queriers_find_and_reach_each_other(rendered: dict) -> None:
    for values in ("nodes", "ha"):
        (container,) = pods(rendered[values])["glow-afterglow-querier"]["containers"]
        assert "--query.siblings=dns+glow-afterglow-querier-headless:4200" in container["args"]
        assert "glow-afterglow-querier-headless" in [parsed["metadata"]["name"] for parsed in rendered[values] if parsed["kind"] == "Service"]
        (policy,) = [parsed["spec"] for parsed in rendered[values] if parsed["kind"] == "NetworkPolicy" and parsed["metadata"]["name"].endswith("-querier")]
        to = [{"podSelector": policy["podSelector"]}]
        assert {"to": to, "ports": [{"port": 4200, "protocol": "TCP"}]} in policy["egress"]
        token = [v for v in container["env"] if v["name"] == "AFTERGLOW_QUERY_SIBLINGS_TOKEN"] if "env" in container else []
        assert [v["valueFrom"]["secretKeyRef"]["key"] for v in token] == (["siblings.token"] if values == "nodes" else [])
    for values in ("everything", "gateway", "ingress", "small", "trial"):
        assert not [c for spec in pods(rendered[values]).values() for c in containers(spec) if "siblings" in str(c)], values


def test_who_finds_pods_by_name_finds_the_port_that_they_listen_on(tmp_path) -> None:
    """A headless Service is the addresses of pods, and maps no port."""
    moved = ("--set", "ingester.service.port=80,querier.service.port=443,querier.siblings.enabled=true")
    rendered = objects(render("ha", *moved))
    listens = {name.removeprefix("glow-afterglow-"): spec["containers"][0]["ports"][0]["containerPort"] for name, spec in pods(rendered).items() if "ports" in spec["containers"][0]}
    services = {parsed["metadata"]["name"].removeprefix("glow-afterglow-"): parsed["spec"]["ports"][0]["port"] for parsed in rendered if parsed["kind"] == "Service"}
    assert set(listens) == {"ingester", "querier", "maintainer", "agent"}
    assert services == {"ingester": 80, "querier": 443} | {f"{name}-headless": port for name, port in listens.items()}
    (container,) = pods(rendered)["glow-afterglow-querier"]["containers"]
    assert f"--query.siblings=dns+glow-afterglow-querier-headless:{listens['querier']}" in container["args"]
    (agent,) = pods(rendered)["glow-afterglow-agent"]["containers"]
    assert "--server=https://glow-afterglow-ingester:80" in agent["args"]
    assert "dns:///glow-afterglow-ingester-headless.default:4100" in notes(tmp_path, *moved)


def test_tls_goes_from_end_to_end(rendered: dict) -> None:
    specs = pods(rendered["ha"])
    for component in ("ingester", "querier", "maintainer"):
        (container,) = specs[f"glow-afterglow-{component}"]["containers"]
        assert "--tls.client-ca-file=/etc/ssl/afterglow/ca.crt" in container["args"]
        # A certificate says who may: nothing has to be declared insecure.
        assert "--insecure" not in container["args"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["scheme"] == "HTTPS", (component, probe)
    clients = [specs["glow-afterglow-agent"]["containers"][0], *containers(specs["glow-afterglow-test"])]
    for container in clients:
        assert any(arg.startswith("--server=https://") for arg in container["args"]), container
        assert "--tls.cert-file=/etc/ssl/afterglow-client/tls.crt" in container["args"]
    for name, spec in specs.items():
        secrets = {volume["secret"]["secretName"]: volume["secret"] for volume in spec.get("volumes", []) if "secret" in volume}
        is_server = "ingester" in name or "querier" in name or "maintainer" in name
        # Nobody but a server gets at its key.
        assert is_server or [item["key"] for item in secrets["glow-tls"]["items"]] == ["ca.crt"], name
        assert ("glow-client-tls" in secrets) == (name.split("-")[-1] in ("querier", "agent", "test")), name
    services = [parsed for parsed in rendered["ha"] if parsed["kind"] == "Service" and "agent" not in parsed["metadata"]["name"]]
    assert {port.get("appProtocol") for parsed in services for port in parsed["spec"]["ports"]} == {"https", None}
    (monitor,) = [parsed for parsed in rendered["ha"] if parsed["kind"] == "PodMonitor"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https" and endpoint["relabelings"][0]["regex"] == "agent"


def test_without_tls_nothing_speaks_of_it(rendered: dict) -> None:
    for values in ("everything", "gateway", "ingress", "nodes", "small", "trial"):
        assert not [c for spec in pods(rendered[values]).values() for c in containers(spec) if "tls" in str(c.get("args"))], values
    # The chart's own clients say that their tokens go in the clear, as everything does.
    assert "--token-in-clear" in pods(rendered["everything"])["glow-agent"]["containers"][0]["args"]


def data_source(rendered: list[dict]) -> dict:
    (given,) = [parsed for parsed in rendered if parsed["metadata"]["name"].endswith("-datasource")]
    assert given["metadata"]["labels"]["grafana_datasource"] == "1"
    (text,) = given["data"].values()
    (source,) = yaml.safe_load(text)["datasources"]
    return {"namespace": given["metadata"]["namespace"], **source}


def test_grafana_asks_the_querier(rendered: dict) -> None:
    for values, scheme in (("everything", "http"), ("ha", "https")):
        source = data_source(rendered[values])
        assert source["type"] == "grafana-pyroscope-datasource" and source["access"] == "proxy"
        services = [parsed for parsed in rendered[values] if parsed["kind"] == "Service"]
        (service,) = [parsed for parsed in services if parsed["metadata"]["name"].endswith("-querier")]
        (port,) = service["spec"]["ports"]
        host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
        assert source["url"] == f"{scheme}://{host}:{port['port']}"
    source = data_source(rendered["everything"])
    assert source["namespace"] == "observability"
    # Headers come in pairs of a name and a value.
    assert source["jsonData"] == {"httpHeaderName1": "Authorization", "httpHeaderName2": "X-Scope-OrgID", "minStep": "1m"}
    assert source["secureJsonData"] == {"httpHeaderValue1": "Bearer $__env{AFTERGLOW_TOKEN}", "httpHeaderValue2": "team-a"}
    source = data_source(rendered["ha"])
    assert source["namespace"] == "profiles"
    assert source["jsonData"] == {"tlsAuth": True, "tlsAuthWithCACert": True}
    assert set(source["secureJsonData"]) == {"tlsCACert", "tlsClientCert", "tlsClientKey"}
    source = data_source(objects(render("small", "--set", "grafana.datasource.enabled=true,grafana.datasource.url=https://profiles.example.com")))
    assert source["url"] == "https://profiles.example.com"
    assert "jsonData" not in source and "secureJsonData" not in source
    for values in ("gateway", "ingress", "nodes", "small", "trial"):
        assert not [parsed for parsed in rendered[values] if parsed["metadata"]["name"].endswith("-datasource")], values


REFUSED = {
    "commonLabels.app\\.kubernetes\\.io/name=x": "commonLabels has app.kubernetes.io/name, which the chart sets by itself, and nameOverride says what it is",
    "commonLabels.app\\.kubernetes\\.io/instance=x": "commonLabels has app.kubernetes.io/instance, which the chart sets by itself",
    "commonLabels.app\\.kubernetes\\.io/managed-by=x": "commonLabels has app.kubernetes.io/managed-by",
    "commonLabels.afterglow\\.dev/headless=x": "commonLabels has afterglow.dev/headless",
    "podLabels.app\\.kubernetes\\.io/component=x": "podLabels has app.kubernetes.io/component",
    "querier.podLabels.app\\.kubernetes\\.io/name=x": "querier.podLabels has app.kubernetes.io/name",
    "monitoring.podMonitor.enabled=true,monitoring.podMonitor.labels.helm\\.sh/chart=x": "monitoring.podMonitor.labels has helm.sh/chart",
    "grafana.datasource.enabled=true,grafana.datasource.labels.app\\.kubernetes\\.io/name=x": "grafana.datasource.labels has app.kubernetes.io/name",
    "tls.enabled=true": "tls.existingSecret is needed",
    "tls.clientAuth.enabled=true": "tls.clientAuth.enabled needs tls.enabled",
    "tls.enabled=true,tls.existingSecret=a,tls.clientAuth.enabled=true": "tls.clientAuth.existingSecret is needed",
    "nameOverride=My_Profiler": "does not match pattern",
    "fullnameOverride=-profiler": "does not match pattern",
    "ingester.terminationGracePeriodSeconds=10": "ingester.terminationGracePeriodSeconds is 10; it has to be above drain-timeout (10s)",
    "ingester.settings.drain-timeout=20": "ingester.settings.drain-timeout is 20, which has no unit: 20s",
    "querier.settings.drain-timeout=30.5s": "querier.terminationGracePeriodSeconds is 30; it has to be above drain-timeout (30.5s)",
    "querier.settings.drain-timeout=1m": "querier.terminationGracePeriodSeconds is 30; it has to be above drain-timeout (1m)",
    "querier.settings.drain-timeout=1minute": "querier.terminationGracePeriodSeconds is 30; it has to be above drain-timeout (1minute)",
    "ingester.settings.drain-delay=3": "ingester.settings.drain-delay is 3, which has no unit: 3s",
    "ingester.settings.drain-delay=20s": "ingester.settings: drain-delay (20s) is part of drain-timeout (10s), and has to be below 85 % of it",
    "querier.settings.drain-delay=8.5s": "querier.settings: drain-delay (8.5s) is part of drain-timeout (10s)",
    "querier.settings.drain-timeout=4s": "querier.settings: drain-delay (5s) is part of drain-timeout (4s)",
    "querier.settings.drain-timeout=0": "querier.settings: drain-delay (5s) is part of drain-timeout (0)",
    "maintainer.enabled=true,maintainer.settings.drain-delay=1m": "maintainer.settings: drain-delay (1m) is part of drain-timeout (10s)",
    "unknown=1": "additional properties 'unknown' not allowed",
    "ingester.replica=3": "additional properties 'replica' not allowed",
    "ingester.replicas=many": "got string, want integer",
    "ingester.settings.storage=s3://x": "ingester.settings has storage, which the chart sets by itself: use storage.url",
    "ingester.settings.roles=ingest,querier.settings.a=b": "ingester.settings has roles, which the chart sets by itself: use maintainer.enabled",
    "querier.settings.config=/etc/a.toml": "querier.settings has config, which the chart sets by itself: use querier.settings for each setting",
    "agent.enabled=true,agent.settings.config=/etc/a.toml": "agent.settings has config, which the chart sets by itself: use agent.config",
    "agent.enabled=true,agent.settings.token=agw_1": "agent.settings has token, which the chart sets by itself: use auth.existingSecret",
    "querier.settings.tls\\.cert-file=/a,querier.settings.tls\\.key-file=/b": "use tls.enabled and tls.existingSecret; querier.settings has tls.key-file",
    "agent.enabled=true,selfProfile.enabled=false,agent.settings.no-self-profile=true": "agent.settings has no-self-profile, which the chart sets by itself: use selfProfile.enabled",
    "tls.enabled=true,tls.existingSecret=a,querier.settings.self-profile\\.ca-file=/a": "querier.settings has self-profile.ca-file, which the chart sets by itself: use selfProfile.enabled",
    "maintainer.enabled=true,maintainer.settings.self-profile\\.server=http://a": "maintainer.settings has self-profile.server, which the chart sets by itself: use selfProfile.enabled, whose",
    "ingester.settings.Flush=1s": "invalid propertyName",
    "storage.url=file:///data": "does not match pattern",
    "storage.url=s3://id:secret@bucket": "does not match pattern",
    "storage.endpoint=minio:9000": "does not match pattern",
    "image.pullPolicy=Sometimes": "value must be one of",
    "image.digest=sha256:abc": "does not match pattern",
    "logFormat=xml": "value must be one of",
    "agent.kind=StatefulSet": "value must be one of",
    "agent.enabled=true,agent.kind=DaemonSet": "the agent of each node would scrape the same",
    "querier.siblings.enabled=true,querier.settings.query\\.siblings=a:1": "say it once",
    "agent.replicas=2": "additional properties 'replicas' not allowed",
    "querier.autoscaling.minReplicas=0": "minimum",
    "ingester.autoscaling.enabled=true,ingester.autoscaling.minReplicas=11": "ingester.autoscaling.minReplicas is 11, more than maxReplicas, which is 10",
    "querier.diskCache.enabled=true": "counts against querier.resources.limits.ephemeral-storage",
    "querier.diskCache.enabled=true,querier.diskCache.volume.emptyDir.sizeLimit=1Gi,querier.diskCache.volume.ephemeral.a=b": "of one kind, and is emptyDir and ephemeral",
    "ingester.diskCache.enabled=true": "additional properties 'diskCache' not allowed",
    "networkPolicy.storagePorts={70000}": "maximum",
    "demoBucket.enabled=false": "storage.url is needed",
    "ingress.enabled=true": "ingress.host is needed",
    "ingress.enabled=true,ingress.host=a.example,ingress.pushHost=a.example": "ingress.pushHost is a.example, as ingress.host is",
    "httpRoute.enabled=true": "httpRoute.parentRefs is needed",
    "monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true": "would count everything twice",
    "grafana.datasource.token=agw_0123456789": "does not match pattern",
    "grafana.datasource.url=https://id:secret@profiles": "does not match pattern",
    "grafana.datasource.enabled=true,auth.enabled=true,auth.existingSecret=a": "grafana.datasource.token is needed with auth.enabled",
    "grafana.datasource.enabled=true,tls.enabled=true,tls.existingSecret=a,tls.clientAuth.enabled=true,tls.clientAuth.existingSecret=b": "grafana.datasource.tls.cert is needed",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_is_wrong_is_refused(setting: str) -> None:
    done = run("helm", "template", "glow", CHART, "--set", setting)
    assert done.returncode != 0, f"{setting} was taken"
    assert REFUSED[setting] in done.stderr, done.stderr


def own_flags() -> list[tuple[str, str, list[str]]]:
    """Returns a set of values, a tier, and the flags of its pod that go by other values than settings; each flag once."""
    found, seen = [], set()
    for values in SETS:
        whole = {}
        for file in value_files(values)[1::2]:
            for tier, given in yaml.safe_load(pathlib.Path(file).read_text()).items():
                whole[tier] = {**whole.get(tier, {}), **given} if isinstance(given, dict) else given
        for spec in pods(objects(render(values))).values():
            (container,) = [c for c in spec["containers"] if c["name"] != "beside"]
            tier, given = container["name"], whole.get(container["name"], {})
            theirs = {*given.get("settings", {}), *(arg.removeprefix("--").split("=")[0] for arg in given.get("extraArgs", []))}
            if tier == "ingester":
                # A maintainer's, unless the ingester's settings say otherwise.
                theirs |= {"retention.max-age", "retention.rule"}
            flags = {arg.removeprefix("--").split("=")[0] for arg in container.get("args", []) if arg.startswith("--")} - theirs
            # Refused by a message of its own.
            new = sorted(flags - {"query.siblings"} - {flag for of, flag in seen if of == tier})
            if new and tier in ("ingester", "querier", "maintainer", "agent"):
                seen |= {(tier, flag) for flag in new}
                found.append((values, tier, new))
    return found


def test_no_setting_repeats_a_flag_that_the_chart_gives(tmp_path: pathlib.Path) -> None:
    """A program takes a flag once, so that every new pod would end with code 2."""
    given = own_flags()
    flags = {(tier, flag) for _, tier, its in given for flag in its}
    assert {("querier", "query.disk-cache-bytes"), ("querier", "query.siblings-key-file"), ("ingester", "self-profile.server"), ("agent", "tls.ca-file")} <= flags
    assert {tier: len([of for of, _ in flags if of == tier]) for tier, _ in flags}["maintainer"] >= 9
    for values, tier, its in given:
        (tmp_path / "again.yaml").write_text(json.dumps({tier: {"settings": dict.fromkeys(its, "x")}}))
        done = run("helm", "template", "glow", CHART, *value_files(values), "-f", tmp_path / "again.yaml")
        assert done.returncode != 0, (values, tier, its)
        for flag in its:
            assert f"{tier}.settings has {flag}, which the chart sets by itself: use " in done.stderr, (values, flag, done.stderr)
        assert "another value" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "settings, flag",
    [
        ("selfProfile.enabled=false,querier.settings.self-profile\\.server=http://a:4100", "--self-profile.server=http://a:4100"),
        ("querier.settings.query\\.disk-cache-dir=/cache,querier.settings.query\\.disk-cache-bytes=1GiB", "--query.disk-cache-bytes=1GiB"),
        ("querier.settings.query\\.siblings=a:4200,querier.settings.query\\.siblings-ca-file=/a.crt", "--query.siblings-ca-file=/a.crt"),
    ],
)
def test_what_the_chart_does_not_set_may_be_a_setting(settings: str, flag: str) -> None:
    args = pods(objects(render("trial", "--set", settings)))["glow-afterglow-querier"]["containers"][0]["args"]
    assert [arg for arg in args if arg.split("=")[0] == flag.split("=")[0]] == [flag]


# What the programs take is in test_programs.py.
DRAINS = [
    {"timeout": "0", "delay": "0"},
    {"timeout": "29s"},
    {"timeout": "28.5s"},
    {"timeout": "29000ms"},
    {"timeout": "10 s"},
    {"timeout": "0.4min"},
    {"timeout": "20seconds", "delay": "16s 999ms"},
    {"delay": "8499ms"},
    {"delay": "0s"},
]


@pytest.mark.parametrize("drain", DRAINS, ids=str)
def test_a_drain_within_the_grace_is_taken(drain: dict[str, str]) -> None:
    settings = ",".join(f"ingester.settings.drain-{name}={value}" for name, value in drain.items())
    done = run("helm", "template", "glow", CHART, "--set", settings)
    assert done.returncode == 0, done.stderr


def named(schema: dict, whole: dict, prefix: str = "") -> set[str]:
    """Returns the path of every value that the schema names, down to maps whose keys are the user's."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    paths = set()
    for key, value in schema.get("properties", {}).items():
        paths |= {f"{prefix}{key}"} | named(value, whole, f"{prefix}{key}.")
    return paths


def written(default: dict, prefix: str = "") -> set[str]:
    """Returns the path of every value of values.yaml."""
    paths = set()
    for key, value in default.items():
        paths.add(f"{prefix}{key}")
        if isinstance(value, dict):
            paths |= written(value, f"{prefix}{key}.")
    return paths


def test_every_value_is_written_down_with_its_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = named(schema, schema) - {"global"}
    assert known - written(yaml.safe_load((CHART / "values.yaml").read_text())) == set()


def notes(folder, *args: str) -> str:
    """Returns NOTES.txt as `helm install` would print it, which helm does not without a cluster."""
    chart = folder / "afterglow"
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    text = (CHART / "templates/NOTES.txt").read_text()
    (chart / "templates/notes.yaml").write_text('{{ define "notes" }}' + text + '{{ end }}\nnotes: {{ include "notes" . | toJson }}\n')
    done = run("helm", "template", "glow", chart, "--show-only", "templates/notes.yaml", *args)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["notes"]


def test_the_notes_warn_of_a_trial_and_only_of_a_trial(tmp_path) -> None:
    trial = notes(tmp_path)
    assert "THIS IS A TRIAL" in trial and "port-forward svc/glow-afterglow-ingester 4100:4100" in trial
    real = notes(tmp_path, "--set", "storage.url=s3://profiles")
    assert "THIS IS A TRIAL" not in real and "over s3://profiles" in real


def test_the_notes_say_whose_token_is_missed_before_it_is(tmp_path) -> None:
    """Whether a Secret has a key is not to be seen from here, and a pod without it runs on."""
    with_tokens = ("--set", "storage.url=s3://profiles", "--set", "auth.enabled=true", "--set", "auth.existingSecret=tokens")
    own = "Profiles that queriers push of themselves (selfProfile.enabled) are taken only where its key agent.token"
    assert own in notes(tmp_path, *with_tokens)
    assert "maintainers and queriers push of themselves" in notes(tmp_path, *with_tokens, "--set", "maintainer.enabled=true")
    agent = notes(tmp_path, *with_tokens, "--set", "agent.enabled=true")
    assert "The agent's profiles are taken only where its key agent.token" in agent and "of themselves" not in agent
    assert "agent.token" not in notes(tmp_path, *with_tokens, "--set", "selfProfile.enabled=false")
    assert "agent.token" not in notes(tmp_path)


def test_names_stay_within_63_characters() -> None:
    done = run("helm", "template", "a" * 53, CHART, "--set", "maintainer.enabled=true", "--set", "agent.enabled=true")
    assert done.returncode == 0, done.stderr
    assert max(len(parsed["metadata"]["name"]) for parsed in objects(done.stdout)) <= 63


def test_the_chart_is_of_the_version_of_the_program() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == cargo["workspace"]["package"]["version"]
