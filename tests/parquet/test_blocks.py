"""DuckDB and pyarrow read our blocks as the Parquet files they are, at every level: a row a profile.

A real server stores real profiles in a folder; what lies there is then read by others, who know nothing of us.
"""

import shutil

import duckdb
import pyarrow.parquet
import pytest

from conftest import Stored, run


@pytest.fixture(scope="module", params=["segments", "compacted"])
def blocks(request, stored, tmp_path_factory):
    """Files of profiles, as an ingester leaves them or as compaction does."""
    if request.param == "segments":
        return stored.segments()
    folder = tmp_path_factory.mktemp("compacted") / "data"
    shutil.copytree(stored.folder, folder)
    run("maintain", "--once", "--grace", "0s", "--retention.max-age", "0s", "--storage", f"file://{folder}")
    compacted = Stored(folder, stored.server, stored.pushed)
    assert not compacted.segments()
    return compacted.blocks()


def test_duckdb_finds_every_profile_with_its_labels(blocks, stored):
    assert len(stored.profiles) == stored.pushed
    rows = duckdb.sql(f"select id, service, type, raw_bytes, labels['file'] from read_parquet({blocks!r})").fetchall()
    want = [(p["id"], p["service"], p["type"], int(p["bytes"]), p["labels"]["file"]) for p in stored.profiles]
    assert sorted(rows) == sorted(want)


def test_duckdb_counts_by_service_and_type(blocks, stored):
    counts = duckdb.sql(f"select service, type, count(*) from read_parquet({blocks!r}) group by all").fetchall()
    want = {}
    for profile in stored.profiles:
        key = (profile["service"], profile["type"])
        want[key] = want.get(key, 0) + 1
    assert {(service, kind): count for service, kind, count in counts} == want


def test_profiles_kept_as_they_were_sent_are_rows_like_those_kept_as_columns(blocks):
    pairs = duckdb.sql(
        f"with rows as (select *, labels['file'] as file from read_parquet({blocks!r}))"
        " select a.samples = b.samples and a.totals = b.totals and a.raw_bytes + 3 = b.raw_bytes"
        " from rows a join rows b on replace(a.file, '.pb.gz', '-as-sent.pb.gz') = b.file"
    ).fetchall()
    assert len(pairs) > 3 and all(alike for (alike,) in pairs)


@pytest.mark.parametrize("by", ["service", "labels['file']"])
def test_duckdb_adds_up_totals(blocks, stored, by):
    totals = duckdb.sql(
        f"select {by}, total.type, total.unit, sum(total.value)"
        f" from (select service, labels, unnest(totals) as total from read_parquet({blocks!r})) group by all"
    ).fetchall()
    want = {}
    for profile in stored.profiles:
        name = profile["service"] if by == "service" else profile["labels"]["file"]
        for total in profile["totals"]:
            key = (name, total["type"], total.get("unit", ""))
            want[key] = want.get(key, 0) + int(total.get("value", 0))
    assert {(name, kind, unit): int(value) for name, kind, unit, value in totals} == want


def test_pyarrow_reads_every_block(blocks, stored):
    ids = [row for block in blocks for row in pyarrow.parquet.read_table(block).column("id").to_pylist()]
    assert sorted(ids) == sorted(profile["id"] for profile in stored.profiles)
