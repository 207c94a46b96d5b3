"""A real server over a folder, filled with every fixture."""

import contextlib
import gzip
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/afterglow"
PROFILES = sorted((ROOT / "tests/fixtures/profiles").glob("*.pb.gz"))
# A field that pprof does not know: whoever sends it gets it back, so the profile is kept as it was sent.
UNKNOWN_FIELD = bytes([0xF8, 0x07, 1])
START_SECONDS_MAX = 60
ANY_TIME = ["--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"]


class Stored:
    """What lies in the folder of a server, and the server while it runs; `pushed` says how many profiles were sent."""

    def __init__(self, folder, server, pushed):
        self.folder = folder
        self.server = server
        self.pushed = pushed
        self.profiles = json.loads(self.client("search", *ANY_TIME, "--limit", "10000", "--output", "json"))["profiles"]

    def client(self, *args):
        return run(*args, "--server", self.server)

    def segments(self):
        return [str(path) for path in Path(self.folder).glob("v1/t/anonymous/l0/*.agb")]

    def blocks(self):
        return [str(path) for path in Path(self.folder).glob("v1/t/anonymous/b/*/*.agb")]


def run(*args):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def serving(role, folder, *more):
    """A tier over a folder. Maintenance is left out: it would change what a test looks at."""
    log = Path(folder) / f"{role}.log"
    any_age = {"AFTERGLOW_LIMITS_MAX_AGE": "0s", "AFTERGLOW_RETENTION_MAX_AGE": "0s"}
    environment = {**os.environ, **any_age, "AFTERGLOW_LOG_FORMAT": "json"}
    command = [PROGRAM, role, *more, "--listen", "127.0.0.1:0", "--storage", f"file://{folder}/data"]
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            yield address(process, log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def address(process, log):
    """Waits until the server says where it listens."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r'listens","address":"([^"]+)"', log.read_text())
        if match:
            return f"http://{match.group(1)}"
        time.sleep(0.05)
    raise AssertionError(f"the server does not listen:\n{log.read_text()}")


def as_sent(folder):
    """The first profile of each service and type once more, as one that columns cannot say."""
    first = {tuple(profile.name.split("-")[:2]): profile for profile in reversed(PROFILES)}
    for profile in first.values():
        path = folder / profile.name.replace(".pb.gz", "-as-sent.pb.gz")
        path.write_bytes(gzip.compress(gzip.decompress(profile.read_bytes()) + UNKNOWN_FIELD))
        yield path


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """A server that holds every fixture, some of them kept as columns and as they were sent."""
    folder = tmp_path_factory.mktemp("stored")
    profiles = [*PROFILES, *as_sent(folder)]
    with serving("ingester", folder, "--roles", "ingest") as ingester, serving("querier", folder) as querier:
        for profile in profiles:
            service, kind = profile.name.split("-")[:2]
            run("push", profile, "--service", service, "--type", kind, "--label", f"file={profile.name}", "--server", ingester)
        time.sleep(1)  # what is acknowledged is visible within a second
        yield Stored(folder / "data", querier, len(profiles))
