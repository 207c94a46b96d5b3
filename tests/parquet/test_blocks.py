"""DuckDB and pyarrow read our blocks as the Parquet files they are: a row a profile.

A real server stores real profiles in a folder; what lies there is then read by others, who know nothing of us.
"""

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/afterglow"
PROFILES = sorted((ROOT / "tests/fixtures/profiles").glob("*.pb.gz"))
START_SECONDS_MAX = 60


def client(server, *args):
    command = [PROGRAM, *args, "--server", server]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def stored():
    """The blocks of a store that holds every fixture, and what a search says of them."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = {**os.environ, "AFTERGLOW_LIMITS_MAX_AGE": "0s", "AFTERGLOW_LOG_FORMAT": "json"}
        command = [PROGRAM, "serve", "--no-self-profile", "--listen", "127.0.0.1:0", "--storage", f"file://{folder}/data"]
        with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
            try:
                server = address(process, log)
                for profile in PROFILES:
                    service, kind = profile.name.split("-")[:2]
                    client(server, "push", profile, "--service", service, "--type", kind, "--label", f"file={profile.name}")
                time.sleep(1)  # what is acknowledged is visible within a second
                window = ["--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z", "--limit", "10000"]
                found = json.loads(client(server, "search", *window, "--output", "json"))["profiles"]
            finally:
                process.terminate()
                process.wait(timeout=30)
        yield [str(path) for path in Path(folder).glob("data/v1/t/anonymous/l0/*.agb")], found


def address(process, log):
    """Waits until the server says where it listens."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r'listens","address":"([^"]+)"', log.read_text())
        if match:
            return f"http://{match.group(1)}"
        time.sleep(0.05)
    raise AssertionError(f"the server does not listen:\n{log.read_text()}")


def test_duckdb_finds_every_profile_with_its_labels(stored):
    blocks, found = stored
    assert len(found) == len(PROFILES)
    rows = duckdb.sql(f"select id, service, type, raw_bytes from read_parquet({blocks!r})").fetchall()
    assert sorted(rows) == sorted((p["id"], p["service"], p["type"], int(p["bytes"])) for p in found)


def test_duckdb_counts_by_service_and_type(stored):
    blocks, found = stored
    counts = duckdb.sql(f"select service, type, count(*) from read_parquet({blocks!r}) group by all").fetchall()
    want = {}
    for profile in found:
        key = (profile["service"], profile["type"])
        want[key] = want.get(key, 0) + 1
    assert {(service, kind): count for service, kind, count in counts} == want


def test_pyarrow_reads_every_block(stored):
    blocks, found = stored
    ids = [row for block in blocks for row in pyarrow.parquet.read_table(block).column("id").to_pylist()]
    assert sorted(ids) == sorted(profile["id"] for profile in found)
