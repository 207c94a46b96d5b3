"""What `afterglow export` writes answers in SQL what our own table answers."""

import gzip
import json
import subprocess
import time

import duckdb
import pytest

from conftest import ANY_TIME, PROGRAM, run, serving


@pytest.fixture(scope="module")
def exported(stored, tmp_path_factory):
    """The tables of everything that is stored."""
    folder = tmp_path_factory.mktemp("export") / "tables"
    stored.client("export", *ANY_TIME, "-o", folder)
    return {name: f"read_parquet('{folder}/{name}.parquet')" for name in ("samples", "stacks")}


def selections(stored):
    return sorted({(p["service"], p["type"], t["type"]) for p in stored.profiles for t in p["totals"]})


def top(stored, service, kind, sample_type):
    """Our own table of functions: self and total by name."""
    selection = [f'{{service="{service}"}}', "--type", kind, *ANY_TIME]
    text = stored.client("top", *selection, "--sample-type", sample_type, "--limit", "0", "--output", "json")
    rows = json.loads(text)["top"].get("functions", [])
    # A number that is 0 is not said.
    return {row["name"]: (int(row.get("self", 0)), int(row.get("total", 0))) for row in rows}


def test_top_functions_by_self_and_total_are_those_of_our_own_table(stored, exported):
    asked = 0
    for service, kind, sample_type in selections(stored):
        where = f"service = '{service}' and type = '{kind}' and sample_type = '{sample_type}'"
        own = duckdb.sql(
            f"select function, sum(value) from {exported['samples']} join {exported['stacks']} using (stack)"
            f" where depth = 0 and {where} group by function"
        ).fetchall()
        total = duckdb.sql(
            f"select function, sum(value) from {exported['samples']}"
            f" join (select distinct stack, function from {exported['stacks']}) using (stack) where {where} group by function"
        ).fetchall()
        own = {function: int(value) for function, value in own}
        got = {function: (own.get(function, 0), int(value)) for function, value in total}
        got = {function: values for function, values in got.items() if values != (0, 0)}
        assert got == top(stored, service, kind, sample_type), (service, kind, sample_type)
        asked += len(got)
    assert asked > 100


def test_every_profile_is_there_with_its_labels_and_totals(stored, exported):
    rows = duckdb.sql(
        f"select profile, labels['file'], sample_type, sum(value) from {exported['samples']} group by all"
    ).fetchall()
    want = {}
    for profile in stored.profiles:
        for total in profile["totals"]:
            if int(total.get("value", 0)) != 0:
                want[(profile["id"], profile["labels"]["file"], total["type"])] = int(total["value"])
    assert {(profile, file, kind): int(value) for profile, file, kind, value in rows if value} == want


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """A field of a protobuf: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def twice_labelled():
    """A profile of one sample that has the key k twice."""
    strings = ["", "cpu", "nanoseconds", "main", "k", "one", "two"]
    labels = b"".join(field(3, field(1, 4) + field(2, value)) for value in (5, 6))
    out = field(1, field(1, 1) + field(2, 2)) + field(2, field(1, b"\x01") + field(2, b"\x07") + labels)
    out += field(4, field(1, 1) + field(4, field(1, 1))) + field(5, field(1, 1) + field(2, 3))
    out += b"".join(field(6, text.encode()) for text in strings)
    return out + field(9, time.time_ns()) + field(10, 10**9)


def export(server, folder, *more):
    """What the command says, and how it ends."""
    command = [PROGRAM, "export", *ANY_TIME, "-o", folder, "--server", server, *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_sample_label_that_comes_twice_is_two_keys(tmp_path):
    with serving("ingester", tmp_path, "--roles", "ingest") as ingester, serving("querier", tmp_path) as querier:
        profile = tmp_path / "twice.pb.gz"
        profile.write_bytes(gzip.compress(twice_labelled()))
        run("push", profile, "--service", "twice", "--type", "cpu", "--server", ingester)
        time.sleep(1)  # what is acknowledged is visible within a second
        assert export(querier, tmp_path / "tables").returncode == 0
    rows = duckdb.sql(f"select sample_labels, value from read_parquet('{tmp_path}/tables/samples.parquet')").fetchall()
    assert rows == [({"k": "one", "k#2": "two"}, 7)]


def test_profiles_taken_under_raised_limits_are_exported(tmp_path):
    raised = ("--limits.max-string", "200KiB")
    with serving("ingester", tmp_path, "--roles", "ingest", *raised) as ingester, serving("querier", tmp_path) as querier:
        profile = tmp_path / "long.pb.gz"
        profile.write_bytes(gzip.compress(twice_labelled().replace(field(6, b"main"), field(6, b"m" * 100_000))))
        run("push", profile, "--service", "long", "--type", "cpu", "--server", ingester)
        time.sleep(1)  # what is acknowledged is visible within a second
        done = export(querier, tmp_path / "tables")
        assert done.returncode == 0, done.stderr


def test_what_a_limit_leaves_out_is_said(stored, tmp_path):
    done = export(stored.server, tmp_path, "--limit", "3")
    assert done.returncode == 0
    assert "warning: there are more: raise --limit 3 or narrow the window" in done.stderr
    assert "warning" not in export(stored.server, tmp_path, "--limit", str(stored.pushed)).stderr


def test_an_export_that_fails_leaves_the_earlier_one(stored, tmp_path):
    assert export(stored.server, tmp_path, "--limit", "3").returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert export("http://127.0.0.1:1", tmp_path).returncode != 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
