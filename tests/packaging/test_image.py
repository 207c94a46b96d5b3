"""The image: the same twice, of settings that a restricted cluster takes, and complete: the program runs with nothing around it."""

import json
import os
import pathlib
import re
import subprocess
import tarfile
import urllib.request

import pytest
from packages import PROGRAM, ROOT, run, until

CRANE = ROOT / ".cache/bin/crane"


def build(folder: pathlib.Path) -> str:
    """Builds the image into a folder and returns its digest."""
    done = run("packaging/image.sh", PROGRAM, folder)
    assert done.returncode == 0, done.stderr
    return (folder / "digest").read_text().strip()


def blob(layout: pathlib.Path, digest: str) -> pathlib.Path:
    return layout / "blobs" / digest.replace(":", "/")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """The folder of an image, and its digest."""
    folder = tmp_path_factory.mktemp("image")
    return folder, build(folder)


@pytest.fixture(scope="module")
def manifest(image: tuple[pathlib.Path, str]) -> dict:
    """The manifest, out of the OCI layout."""
    return json.loads(blob(image[0] / "oci", image[1]).read_text())


@pytest.fixture(scope="module")
def tree(image: tuple[pathlib.Path, str], manifest: dict) -> pathlib.Path:
    """What a container would see as /, of layers laid one over the other."""
    tree = image[0] / "tree"
    for layer in manifest["layers"]:
        with tarfile.open(blob(image[0] / "oci", layer["digest"])) as archive:
            archive.extractall(tree, filter="fully_trusted")
    return tree


def test_the_same_program_makes_the_same_image(image: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    assert build(tmp_path) == image[1]
    assert (tmp_path / "afterglow.tar").read_bytes() == (image[0] / "afterglow.tar").read_bytes()


def test_a_cluster_into_which_it_is_loaded_finds_it_by_the_name_in_the_chart(image: tuple[pathlib.Path, str]) -> None:
    with tarfile.open(image[0] / "afterglow.tar") as archive:
        (entry,) = json.load(archive.extractfile("manifest.json"))
    (name,) = entry["RepoTags"]
    assert f'image: "{name}"' in (ROOT / "tests/chart/golden/trial.yaml").read_text()


def test_the_image_is_well_formed(image: tuple[pathlib.Path, str]) -> None:
    done = run(CRANE, "validate", "--tarball", image[0] / "afterglow.tar")
    assert done.returncode == 0 and "PASS" in done.stdout + done.stderr, done.stderr


def test_its_settings_are_those_of_the_chart(image: tuple[pathlib.Path, str], manifest: dict) -> None:
    config = json.loads(blob(image[0] / "oci", manifest["config"]["digest"]).read_text())
    assert config["config"]["User"] == "10001:10001"
    assert config["config"]["Entrypoint"] == ["/usr/bin/afterglow"]
    assert config["os"] == "linux" and config["architecture"] in ("amd64", "arm64")
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_there_is_nothing_in_it_but_the_program_and_what_it_needs(tree: pathlib.Path) -> None:
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    runnable = [file for file in files if os.access(tree / file, os.X_OK) and ".so" not in file]
    assert runnable == ["usr/bin/afterglow"]
    writable = [str(path) for path in tree.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o002]
    assert writable == [str(tree / "tmp")]
    assert "etc/ssl/certs/ca-certificates.crt" in files
    sbom = json.loads((tree / "usr/share/doc/afterglow/sbom.cdx.json").read_text())
    names = {component["name"] for component in sbom["components"]}
    assert {"tonic", "object_store", "afterglow-store"} <= names and not {"proptest", "insta"} & names


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is root's")
def test_the_program_runs_with_nothing_around_it(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As user 10001, who can write nothing there, and with no library but those of the image."""
    log = tmp_path / "log"
    args = ["/usr/bin/afterglow", "serve", "--listen=127.0.0.1:0", "--storage=memory://"]
    with log.open("w") as out:
        process = subprocess.Popen(["chroot", "--userspec=10001:10001", str(tree), *args], stdout=out, stderr=out, env={"PATH": "/usr/sbin:/usr/bin"})
    try:

        def address() -> str | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r"address=(\S+)", log.read_text())
            return found and found[1]

        url = f"http://{until('it listens', address)}"
        assert urllib.request.urlopen(f"{url}/readyz", timeout=30).status == 200
        until("it has profiled itself", lambda: b'"id"' in urllib.request.urlopen(f"{url}/api/v1/profiles", timeout=30).read())
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0, log.read_text()
