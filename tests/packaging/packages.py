"""Where the packages, the tools and the program lie."""

import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/afterglow"
PATIENCE_SECONDS = 120


def run(*args: object, **options: object) -> subprocess.CompletedProcess:
    """Runs a command from the root of the project, and returns what it said, whatever its exit code."""
    return subprocess.run([str(arg) for arg in args], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, **options)


def until(what: str, condition):
    """Waits until a condition returns something, and returns that."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s until {what}")


def build_deb(folder: pathlib.Path) -> pathlib.Path:
    """Builds the package into a folder."""
    done = run("packaging/deb.sh", PROGRAM, folder)
    assert done.returncode == 0, done.stderr
    (package,) = folder.glob("*.deb")
    return package
