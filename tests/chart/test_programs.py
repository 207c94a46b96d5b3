"""The chart against the real programs, without a cluster: what a pod would be started with is started here.

The programs accept the flags of every rendered container. And the trial, which is what the chart installs with no values, really works:
the demo bucket, an ingester, a querier and an agent run with the commands and environment that their pods have, only with loopback
addresses in place of Services; then the containers of `helm test` do their round trip. All metrics that alerts and dashboard use are
looked for in what these processes and their /metrics say.
"""

import base64
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest
import yaml
from charts import BIN, MIXIN, ROOT, containers, pods
from test_render import DRAINS, REFUSED

PROGRAM = ROOT / "target/debug/afterglow"
IMAGE = "afterglow-profiler/afterglow:"
PATIENCE_SECONDS = 60
# What a Secret of tokens holds.
TOKENS = f'[[token]]\nname = "agents"\nsha256 = "{"0" * 64}"\nroles = ["write"]\ntenants = ["anonymous"]\n'


def value_of(variable: dict) -> str:
    """Returns what a variable of a container has in a pod, or something like it."""
    of_the_node = {"status.hostIP": "192.0.2.1", "spec.nodeName": "node-1"}
    field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
    return of_the_node[field] if field else variable.get("value", "from-a-secret")


def of_afterglow(specs: dict[str, dict]) -> list[tuple[str, dict]]:
    """Returns the containers that run Afterglow, with the names of their pods."""
    return [(name, c) for name, spec in specs.items() for c in containers(spec) if IMAGE in c["image"]]


def config_of(objects: list[dict], name: str) -> str:
    """Returns the agent's file out of its ConfigMap."""
    (found,) = [parsed for parsed in objects if parsed["kind"] == "ConfigMap" and parsed["metadata"]["name"] == name]
    return found["data"]["agent.toml"]


def certificates(folder: pathlib.Path) -> None:
    """Makes what the Secrets of TLS hold, as they are mounted."""
    for name in ("afterglow", "afterglow-client"):
        (folder / name).mkdir()
        pair = ["-keyout", folder / name / "tls.key", "-out", folder / name / "tls.crt"]
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"]
        subprocess.run(["openssl", "req", "-x509", *options, *pair], check=True, capture_output=True)
    (folder / "afterglow/ca.crt").write_bytes((folder / "afterglow/tls.crt").read_bytes())


def test_the_programs_take_every_flag(values: str, rendered: dict, tmp_path: pathlib.Path) -> None:
    tried = 0
    certificates(tmp_path)
    for name, container in of_afterglow(pods(rendered[values])):
        args = list(container["args"])
        if args[0] not in ("ingester", "querier", "agent"):
            continue
        if args[0] == "agent":
            file = tmp_path / "agent.toml"
            config = config_of(rendered[values], name).replace("/etc/ssl/", f"{tmp_path}/")
            file.write_text(config.replace("/etc/afterglow-scrape/", f"{tmp_path}/"))
            (tmp_path / "scrape.token").write_text("agw_1\n")
            args = [arg.replace("/etc/afterglow/agent.toml", str(file)) for arg in args]
        tokens = tmp_path / "tokens.toml"
        tokens.write_text(TOKENS)
        args = [re.sub("/etc/afterglow[/-]auth/tokens.toml", str(tokens), arg).replace("/etc/ssl/", f"{tmp_path}/") for arg in args]
        env = {variable["name"]: value_of(variable) for variable in container.get("env", [])}
        done = subprocess.run([PROGRAM, *args, "--check-config"], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        tried += 1
    assert tried >= 2


def test_a_flag_that_is_not_there_is_noticed() -> None:
    args = [PROGRAM, "ingester", "--storage=s3://profiles", "--limits.max-bodies=1", "--check-config"]
    assert subprocess.run(args, capture_output=True, timeout=PATIENCE_SECONDS).returncode == 2


def test_what_a_maintainer_keeps_is_named_as_the_format_says() -> None:
    """By the source, for a maintainer writes it after its first round alone, which may take longer than this waits."""
    (digits,) = re.findall(r"<prefix>/v1/retention/<(\d+) hexadecimal digits> ", (ROOT / "docs/format.md").read_text())
    assert f'retentions().join(format!("{{digest:0{digits}x}}"))' in (ROOT / "store/src/paths.rs").read_text()


def test_the_runbook_knows_the_code_with_which_a_mistaken_pod_ends() -> None:
    runbook = (ROOT / "docs/operations.md").read_text().split("### AfterglowIngesterAbsent\n")[1].split("\n### ")[0]
    for mistake in ("--flush-intervall=1s", "--flush-interval=soon", "--listen=0.0.0.0:4100", "--flush-interval=0s"):
        args = [PROGRAM, "ingester", "--storage=s3://profiles", "--insecure", "--listen=[::]:4100", mistake, "--check-config"]
        code = subprocess.run(args, capture_output=True, timeout=PATIENCE_SECONDS).returncode
        assert code == (78 if mistake == "--flush-interval=0s" else 2), mistake
        assert f"with code {code} " in " ".join(runbook.split()), mistake


def test_the_program_takes_and_refuses_the_delays_that_the_chart_does() -> None:
    """The chart has the program's arithmetic once more, so that a wrong setting ends `helm upgrade` and not every new pod."""
    refused = [dict(part.split(".settings.drain-")[1].split("=") for part in setting.split(",") if "drain-" in part) for setting, why in REFUSED.items() if "is part of" in why]
    assert len(refused) == 5
    for code, drains in ((0, DRAINS), (78, refused)):
        for drain in drains:
            args = [PROGRAM, "ingester", "--storage=s3://profiles", "--insecure", *(f"--drain-{name}={value}" for name, value in drain.items()), "--check-config"]
            done = subprocess.run(args, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
            assert done.returncode == code, f"{drain}: {done.stderr}"


class Processes:
    """What the trial's pods would run, on loopback."""

    def __init__(self, objects: list[dict], agent: tuple[dict, str], folder: pathlib.Path) -> None:
        self.specs = pods(objects)
        self.objects = objects
        self.folder = folder
        self.running: list[subprocess.Popen] = []
        self.addresses: dict[str, str] = {}
        self.agent_container, self.agent_config = agent

    def here(self, text: str) -> str:
        """Replaces the names of Services and the folders of pods by what stands for them here."""
        for name, address in self.addresses.items():
            text = re.sub(rf"\b(glow-afterglow|glow)-{name}:\d+", address, text)
        return re.sub(r"--listen=\S+:\d+", "--listen=127.0.0.1:0", text)

    def start(self, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen:
        log = self.folder / f"{name}.log"
        env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent", **env}
        process = subprocess.Popen(command, env=env, stdout=log.open("w"), stderr=subprocess.STDOUT)
        self.running.append(process)
        return process

    def start_bucket(self) -> None:
        """Starts the demo bucket with its pod's command, on a free port, with its folder below ours."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (container,) = self.specs["glow-afterglow-demo-bucket"]["containers"]
        command = [part.replace("/store", f"{self.folder}/store").replace("--port :7070", f"--port 127.0.0.1:{port}") for part in container["command"]]
        keys = self.keys()
        self.start("demo-bucket", command, {"ROOT_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": keys["AWS_SECRET_ACCESS_KEY"]})
        self.addresses["demo-bucket"] = f"127.0.0.1:{port}"
        path = container["readinessProbe"]["httpGet"]["path"]
        until(f"the bucket answers {path}", lambda: get(f"http://127.0.0.1:{port}{path}") is not None)

    def keys(self) -> dict[str, str]:
        (secret,) = [parsed for parsed in self.objects if parsed["kind"] == "Secret"]
        return secret["stringData"]

    def start_server(self, name: str, container: dict) -> None:
        """Starts a server with its container's arguments and environment, and waits until its own probes say that it is ready."""
        env = {variable["name"]: self.here(variable.get("value", "from-a-secret")) for variable in container.get("env", [])}
        process = self.start(name, [str(PROGRAM), *map(self.here, container["args"])], {**env, **self.keys(), "AFTERGLOW_TOKEN": "t"})
        log = self.folder / f"{name}.log"

        def address() -> str | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r'"address":"([^"]+)"|address=(\S+)', log.read_text())
            return found and (found[1] or found[2])

        self.addresses[name] = until(f"{name} listens", address)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container[probe]["httpGet"]["path"]
            until(f"{name} answers {path}", lambda: get(f"http://{self.addresses[name]}{path}") is not None)

    def start_agent(self) -> None:
        file = self.folder / "agent.toml"
        config = self.here(self.agent_config).replace("/etc/afterglow-scrape/", f"{self.folder}/")
        file.write_text(config.replace("[[scrape_configs]]", '[[scrape_configs]]\nscrape_interval = "2s"'))
        (self.folder / "scrape.token").write_text("agw_1\n")
        (self.folder / "tokens.toml").write_text(TOKENS)
        here = {"/etc/afterglow/agent.toml": file, "/etc/afterglow-auth/tokens.toml": self.folder / "tokens.toml"}
        args = list(self.agent_container["args"])
        for there, path in here.items():
            args = [arg.replace(there, str(path)) for arg in args]
        self.start_server("agent", {**self.agent_container, "args": args, "env": []})

    def test_container(self, name: str) -> subprocess.CompletedProcess:
        """Runs one of the two containers of `helm test`."""
        (container,) = [c for c in containers(self.specs["glow-afterglow-test"]) if c["name"] == name]
        (profile,) = [p for p in self.objects if p["kind"] == "ConfigMap" and p["metadata"]["name"] == "glow-afterglow-test"]
        (self.folder / "test.pb").write_bytes(base64.b64decode(profile["binaryData"]["test.pb"]))
        args = [self.here(arg).replace("/test/test.pb", str(self.folder / "test.pb")) for arg in container["args"]]
        return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=PATIENCE_SECONDS)

    def stop(self) -> list[int]:
        """Asks all to end, as Kubernetes would, and returns their exit codes in the order in which they were started."""
        for process in reversed(self.running):
            process.terminate()
        return [process.wait(timeout=PATIENCE_SECONDS) for process in self.running]


def get(url: str) -> str | None:
    """Returns what a URL answers with 200, or nothing."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def until(what: str, condition):
    """Waits until a condition returns something, and returns that."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s until {what}")


@pytest.fixture(scope="module")
def trial(rendered: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """The trial, running; with the agent, which a trial has not, of the set that has one."""
    objects = rendered["trial"]
    (agent,) = pods(rendered["everything"])["glow-agent"]["containers"]
    processes = Processes(objects, (agent, config_of(rendered["everything"], "glow-agent")), tmp_path_factory.mktemp("trial"))
    try:
        processes.start_bucket()
        for name in ("ingester", "querier"):
            (container,) = processes.specs[f"glow-afterglow-{name}"]["containers"]
            processes.start_server(name, container)
        yield processes
    finally:
        processes.stop()


def test_a_trial_takes_a_profile_and_gives_it_back(trial: Processes) -> None:
    early = trial.test_container("merge")
    assert early.returncode == 1 and "no profiles match" in early.stderr, early
    pushed = trial.test_container("push")
    assert pushed.returncode == 0, pushed.stderr
    # Visible within a second, which a kubelet takes to start the next container.
    merged = until("the profile is found", lambda: (m := trial.test_container("merge")).returncode == 0 and m)
    assert "helm_test" in merged.stdout, merged.stdout


def test_the_metrics_that_alerts_and_dashboard_use_are_there(trial: Processes) -> None:
    trial.start_agent()
    agent = f"http://{trial.addresses['agent']}/metrics"
    until("the agent's profiles are acknowledged", lambda: re.search(r"profiles_acked_total [1-9]", get(agent) or ""))
    text = "\n".join(get(f"http://{address}/metrics") for name, address in trial.addresses.items() if name != "demo-bucket")
    there = set(re.findall(r"^([a-z_]+)", text, re.MULTILINE))
    used = set()
    for file in ("alerts.yaml", "dashboard.json"):
        used |= set(re.findall(r"\b(?:afterglow|process)_[a-z_]+\b", (MIXIN / file).read_text()))
    assert len(used) > 40, used
    assert used - there == set()


def test_an_ingester_is_known_from_a_maintainer_before_anybody_sends(trial: Processes) -> None:
    """By the selector of AfterglowIngesterAbsent: both are the program afterglow-ingester."""
    rules = [rule for group in yaml.safe_load((MIXIN / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    (expression,) = [rule["expr"] for rule in rules if rule["alert"] == "AfterglowIngesterAbsent"]
    (name,) = set(re.findall(r"afterglow_server_\w+", expression))
    (selector,) = set(re.findall(name + r"\{([^}]+)\}", expression))
    labels = re.findall(r'\w+="[^"]+"', selector)
    assert len(labels) == 2, selector
    (container,) = trial.specs["glow-afterglow-ingester"]["containers"]
    args = [arg for arg in container["args"] if not arg.startswith(("--roles=", "--self-profile."))]
    there = {}
    for role in ("ingest", "maintain", "ingest,maintain"):
        trial.start_server(role, {**container, "args": [*args, f"--roles={role}", "--no-self-profile", "--drain-delay=0s"]})
        lines = (get(f"http://{trial.addresses.pop(role)}/metrics") or "").splitlines()
        assert any('program="afterglow-ingester"' in line for line in lines if line.startswith("afterglow_build_info")), lines
        there[role] = [line for line in lines if line.startswith(name + "{") and all(label in line for label in labels)]
        process = trial.running.pop()
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)
    assert {role: len(lines) for role, lines in there.items()} == {"ingest": 1, "maintain": 0, "ingest,maintain": 1}, there


def test_labels_that_alerts_select_by_have_values_that_programs_give() -> None:
    """The words in the alerts' selectors are those of the source, so that a renamed outcome does not silence an alert."""
    source = "\n".join(
        path.read_text()
        for folder in ("service", "store", "ingester", "querier", "agent")
        for path in (ROOT / folder / "src").rglob("*.rs")
    )
    selected = set()
    for rule in re.findall(r'\b(?:outcome|operation|program|route|code|reason)(?:=|!=|=~|!~)"([^"]+)"', (MIXIN / "alerts.yaml").read_text()):
        selected |= set(re.sub(r"\((.*)\)\?", "", rule).split("|"))
    assert {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "durable", "denied", "partial", "ok"} <= selected
    assert [word for word in sorted(selected) if f'"{word}"' not in source and word != "afterglow"] == []


def test_processes_end_in_peace(trial: Processes) -> None:
    """On SIGTERM, as Kubernetes sends it; the bucket, which is first, ends as it likes."""
    began = time.monotonic()
    codes = trial.stop()[1:]
    trial.running.clear()
    assert codes == [0] * len(codes)
    grace = trial.specs["glow-afterglow-ingester"]["terminationGracePeriodSeconds"]
    assert time.monotonic() - began < grace
