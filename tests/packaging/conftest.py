"""What the tests of packages share: the Debian package, built once, and what it holds."""

import pathlib

import pytest
from packages import build_deb, run


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The package, built."""
    return build_deb(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def unpacked(deb: pathlib.Path) -> pathlib.Path:
    """What the package would put under /."""
    tree = deb.parent / "tree"
    done = run("dpkg-deb", "--extract", deb, tree)
    assert done.returncode == 0, done.stderr
    return tree
