"""Where the chart, its value sets and the tools lie, and how a set is rendered.

Every set of values/ stands on the file of its name beside the chart (values-ha.yaml for ha), where there is one. What it renders to is
kept in golden/, so that a change of a template shows what it does to every kind of installation; AFTERGLOW_RENEW=1 writes them anew.
"""

import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/chart"
CHART = ROOT / "charts/afterglow"
MIXIN = CHART / "mixin"
BIN = ROOT / ".cache/bin"
SETS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))


def run(tool: str, *args: object, **options: object) -> subprocess.CompletedProcess:
    """Runs one of the tools of .cache/bin and returns what it said, whatever its exit code."""
    return subprocess.run([BIN / tool, *map(str, args)], capture_output=True, text=True, timeout=120, **options)


def value_files(name: str) -> list[object]:
    """Returns the arguments that give helm a set of values."""
    base = CHART / f"values-{name}.yaml"
    files = [base] if base.exists() else []
    return [arg for file in [*files, HERE / f"values/{name}.yaml"] for arg in ("-f", file)]


def render(name: str, *more: str) -> str:
    """Returns what a set of values renders to, as text; `more` are arguments for helm."""
    done = run("helm", "template", "glow", CHART, "--namespace", "profiles", *value_files(name), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[dict]:
    """Returns the objects of a rendered chart."""
    return [parsed for parsed in yaml.safe_load_all(text) if parsed]


def pods(rendered: list[dict]) -> dict[str, dict]:
    """Returns the spec of every pod that the objects make, by the object's name."""
    specs = {}
    for parsed in rendered:
        if parsed["kind"] in ("Deployment", "DaemonSet"):
            specs[parsed["metadata"]["name"]] = parsed["spec"]["template"]["spec"]
        elif parsed["kind"] == "Pod":
            specs[parsed["metadata"]["name"]] = parsed["spec"]
    return specs


def containers(spec: dict) -> list[dict]:
    """Returns all containers of a pod, those that run first included."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def renews() -> bool:
    """Says whether golden files are to be written rather than compared."""
    return bool(os.environ.get("AFTERGLOW_RENEW"))
