"""What `afterglow export` writes answers in SQL what our own table answers."""

import json

import duckdb
import pytest

from conftest import ANY_TIME


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
