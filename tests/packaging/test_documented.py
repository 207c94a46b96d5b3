"""The commands in README and docs that start a server: whoever pastes one gets a server, not an error about its settings."""

import pathlib
import re
import shlex
import subprocess

import pytest
from packages import PROGRAM, ROOT, run

SERVERS = ("ingester", "querier", "serve")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "packaging/README.md"]


def blocks(document: pathlib.Path) -> list[list[list[str]]]:
    """Returns the words of each command of each block of shell, without what follows a redirection."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        # A program of one tier is a command of the whole one.
        commands = [shlex.split(re.sub(r"^afterglow-(?=ingester|querier)", "afterglow ", line), comments=True) for line in lines if line.startswith("afterglow")]
        found.append([[word for word in words if word != "&"] for words in commands])
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_servers_start_as_they_are_documented(document: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("server", "ca"):
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"]
        done = run("openssl", "req", "-x509", *options, "-keyout", tmp_path / f"{name}-key.pem", "-out", tmp_path / f"{name}.pem")
        assert done.returncode == 0, done.stderr
    made = run(PROGRAM, "token", "--name=agents", "--role=write")
    # What a block makes by itself is made by its own command.
    (tmp_path / "tokens.toml").write_text(made.stdout)
    for block in blocks(document):
        for words in block:
            if words[1] == "token" and words[-2:] == [">>", "tokens.toml"]:
                done = subprocess.run([PROGRAM, *words[1:-2]], cwd=tmp_path, capture_output=True, text=True)
                assert done.returncode == 0, f"{words}: {done.stderr}"
                (tmp_path / "tokens.toml").write_text(done.stdout)
            elif words[1] in SERVERS:
                done = subprocess.run([PROGRAM, *words[1:], "--check-config"], cwd=tmp_path, capture_output=True, text=True)
                assert done.returncode == 0, f"{document.name}: {shlex.join(words)}: {done.stderr}"


def test_the_commands_of_the_tiers_are_found() -> None:
    found = {path.name: [words[1] for block in blocks(path) for words in block if words[1] in SERVERS] for path in DOCUMENTS[:-1]}
    assert found["README.md"] == ["ingester", "querier"]
    assert found["operations.md"] == ["querier", "querier"]
    assert len(found["security.md"]) >= 4
