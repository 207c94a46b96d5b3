"""What the tests of the chart share: each set of values, and what all of them render to."""

import os

import pytest
from charts import SETS, objects, render

# A Kubernetes takes minutes to build: `make chart-e2e` asks for it.
collect_ignore = [] if os.environ.get("AFTERGLOW_TEST_CLUSTER") else ["test_cluster.py"]


@pytest.fixture(params=SETS)
def values(request: pytest.FixtureRequest) -> str:
    """Each set of values, by its name."""
    return request.param


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[dict]]:
    """The objects of every set of values."""
    return {name: objects(render(name)) for name in SETS}
