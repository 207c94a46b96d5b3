"""The Debian package and its units: what is in it, that the units are what systemd takes and shut in, and that the program can live so."""

import gzip
import pathlib
import re
import shutil
import subprocess
import urllib.request

import pytest
from packages import PROGRAM, ROOT, build_deb, run, until

UNITS = ["afterglow", "afterglow-agent", "afterglow-ingester", "afterglow-querier"]
# Of 10, where 10 is a service as it comes: what systemd itself calls OK ends at 2.
EXPOSURE_MAX = 15


def unit(tree: pathlib.Path, name: str) -> pathlib.Path:
    return tree / f"usr/lib/systemd/system/{name}.service"


def settings(file: pathlib.Path) -> dict[str, list[str]]:
    """Returns the settings of a unit; one may stand several times."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_the_package_has_what_it_should_and_hides_what_is_secret(deb: pathlib.Path) -> None:
    listing = run("dpkg-deb", "--contents", deb).stdout
    modes = {line.split()[-1].removeprefix("."): line.split()[:2] for line in listing.splitlines()}
    assert modes["/usr/bin/afterglow"] == ["-rwxr-xr-x", "root/root"]
    for name in UNITS:
        assert modes[f"/usr/lib/systemd/system/{name}.service"] == ["-rw-r--r--", "root/root"]
    settings_files = [path for path in modes if path.startswith("/etc/afterglow/") and not path.endswith("/")]
    assert len(settings_files) == 5
    assert {path: modes[path][0] for path in settings_files} == dict.fromkeys(settings_files, "-rw-------")
    assert run("dpkg-deb", "--info", deb, "conffiles").stdout.split() == sorted(settings_files)
    control = run("dpkg-deb", "--field", deb).stdout
    assert re.search(r"^Depends: libc6 \(>= 2\.\d+\), libgcc-s1, ca-certificates$", control, re.MULTILINE), control


def test_the_same_program_makes_the_same_package(deb: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert build_deb(tmp_path).read_bytes() == deb.read_bytes()


def test_the_program_of_the_package_runs(unpacked: pathlib.Path) -> None:
    done = run(unpacked / "usr/bin/afterglow", "--version")
    assert done.returncode == 0 and done.stdout.startswith("afterglow ")


@pytest.mark.parametrize("name", UNITS)
def test_shells_complete_each_program(name: str, unpacked: pathlib.Path) -> None:
    # Of the program itself a command, of a tier a flag; zsh and fish have no dashes before it.
    word = {"afterglow": "regressions", "afterglow-agent": "token-file", "afterglow-ingester": "flush-interval", "afterglow-querier": "tenant.max-queries"}[name]
    for path in (f"bash-completion/completions/{name}", f"zsh/vendor-completions/_{name}", f"fish/vendor_completions.d/{name}.fish"):
        text = (unpacked / "usr/share" / path).read_text()
        assert word in text and name in text, path
        shell = path.split("-")[0].split("/")[0]
        if shutil.which(shell):
            done = run(shell, "-n", unpacked / "usr/share" / path)
            assert (done.returncode, done.stderr) == (0, ""), path


def test_each_command_has_a_manual_page(unpacked: pathlib.Path) -> None:
    pages = {path.name: gzip.decompress(path.read_bytes()).decode() for path in (unpacked / "usr/share/man/man1").iterdir()}
    commands = re.findall(r"^  ([a-z]+)  ", run(PROGRAM, "--help").stdout, re.MULTILINE)
    assert len(commands) > 20 and "push" in commands
    assert {f"afterglow-{command}.1.gz" for command in commands if command != "help"} | {"afterglow.1.gz"} <= pages.keys()
    push = pages["afterglow-push.1.gz"]
    for part in (".SH NAME", "Pushes pprof files", "tls.ca\\-file"):
        assert part in push, push
    # groff says what is wrong with a page; where it is missing, so is man.
    if shutil.which("groff"):
        for name, text in pages.items():
            done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-z"], input=text, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), name


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str, unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # systemd looks whether the program is there, which it is not before the package is installed.
    text = unit(unpacked, name).read_text().replace("/usr/bin/afterglow", str(PROGRAM))
    (tmp_path / f"{name}.service").write_text(text)
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / f"{name}.service")
    assert done.returncode == 0, done.stderr
    assert name not in done.stderr, done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_shut_in(name: str, unpacked: pathlib.Path) -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", unit(unpacked, name))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_program_takes_what_the_unit_and_its_settings_say(name: str, unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    parsed = settings(unit(unpacked, name))
    env = dict(entry.split("=", 1) for entry in parsed.get("Environment", []))
    for file in parsed.get("EnvironmentFile", []):
        lines = (unpacked / file.removeprefix("-").removeprefix("/")).read_text().splitlines()
        env |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    if "AFTERGLOW_AUTH_TOKENS_FILE" in env:
        # The administrator makes it, with the very program.
        made = run(unpacked / "usr/bin/afterglow", "token", "--name=agents", "--role=write")
        assert made.returncode == 0, made.stderr
        tokens = tmp_path / "tokens.toml"
        tokens.write_text(made.stdout)
        env["AFTERGLOW_AUTH_TOKENS_FILE"] = str(tokens)
    (command,) = parsed["ExecStart"]
    for credential in parsed.get("LoadCredential", []):
        key, source = credential.split(":")
        command = command.replace(f"${{CREDENTIALS_DIRECTORY}}/{key}", f"{unpacked}{source}")
    args = command.split()
    assert args[0] == "/usr/bin/afterglow"
    done = run(unpacked / "usr/bin/afterglow", *args[1:], "--check-config", env=env)
    assert done.returncode == 0, done.stderr


def documented(language: str) -> str:
    """Returns the one block of packaging/README.md that is in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "packaging/README.md").read_text(), re.MULTILINE | re.DOTALL)
    return block


def test_the_agent_gets_a_token_for_targets_as_documented(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The unit with the documented addition, systemd's part played here: it copies what root alone reads to where the service's user may."""
    etc, copies, there = tmp_path / "etc", tmp_path / "copies", "/run/credentials/afterglow-agent.service"
    for folder in (etc, copies, tmp_path / "afterglow-agent.service.d"):
        folder.mkdir()
    made = run(PROGRAM, "token", "--name=agent", "--role=admin", "--output", etc / "scrape.token")
    assert made.returncode == 0 and (etc / "scrape.token").stat().st_mode & 0o077 == 0, made.stderr
    config = (unpacked / "etc/afterglow/agent.toml").read_text() + documented("toml")
    assert there in config
    (etc / "agent.toml").write_text(config.replace(there, str(copies)))
    text = unit(unpacked, "afterglow-agent").read_text().replace("/usr/bin/afterglow", str(PROGRAM))
    (tmp_path / "afterglow-agent.service").write_text(text)
    (tmp_path / "afterglow-agent.service.d/override.conf").write_text(documented("ini"))
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / "afterglow-agent.service")
    assert done.returncode == 0 and "afterglow-agent" not in done.stderr, done.stderr
    own, added = (settings(tmp_path / f"afterglow-agent.service{file}")["LoadCredential"] for file in ("", ".d/override.conf"))
    for credentials, code in ((own, 78), (added, 0)):
        for credential in credentials:
            key, source = credential.split(":")
            shutil.copy(etc / pathlib.Path(source).relative_to("/etc/afterglow"), copies / key)
        done = run(PROGRAM, "agent", f"--config={copies}/agent.toml", "--check-config", env={})
        assert done.returncode == code and ("credentials_file" in done.stderr) == (code == 78), done.stderr


def test_folders_that_units_may_write_to_are_documented(unpacked: pathlib.Path) -> None:
    parents = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log", "RuntimeDirectory": "/run"}
    written = set()
    for name in UNITS:
        parsed = settings(unit(unpacked, name))
        assert parsed["ProtectSystem"] == ["strict"] and "ReadWritePaths" not in parsed, name
        written |= {f"{parent}/{folder}" for key, parent in parents.items() for folder in parsed.get(key, [])}
    said = re.search(r"may write nothing but (.*?)\. The files", (ROOT / "packaging/README.md").read_text(), re.DOTALL)
    assert said and set(re.findall(r"`(/var/[^`]+)`", said[1])) == written


def test_a_unit_has_time_to_drain(unpacked: pathlib.Path) -> None:
    for name in UNITS:
        # drain-delay 5 s, then drain-timeout 10 s.
        assert int(settings(unit(unpacked, name))["TimeoutStopSec"][0]) > 15


def calls_allowed(parsed: dict[str, list[str]]) -> set[str]:
    """Returns the system calls that a unit's filters let through, by systemd's own lists."""

    def members(name: str) -> set[str]:
        found = set()
        for line in run("systemd-analyze", "syscall-filter", "--no-pager", name).stdout.splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                found |= members(word)
            elif word and not word.startswith("#"):
                found.add(word)
        return found

    # Who allows anything allows what every process needs.
    allowed = members("@default")
    for entry in parsed["SystemCallFilter"]:
        names = [members(name) for name in entry.removeprefix("~").split()]
        allowed = allowed - set().union(*names) if entry.startswith("~") else allowed.union(*names)
    return allowed


def test_the_filter_of_system_calls_leaves_what_the_program_needs(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The program runs under strace: it keeps a profile in a folder, gives it back, profiles itself, and ends."""
    allowed = calls_allowed(settings(unit(unpacked, "afterglow")))
    assert "openat" in allowed and "setrlimit" not in allowed and "mount" not in allowed
    trace, log = tmp_path / "trace", tmp_path / "log"
    args = ["serve", "--listen=127.0.0.1:0", f"--storage=file://{tmp_path}/data", "--self-profile-period=1s"]
    command = ["strace", "-f", "-qq", "-o", trace, PROGRAM, *args]
    with log.open("w") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out)
    try:
        address = until("it listens", lambda: (m := re.search(r"address=(\S+)", log.read_text())) and m[1])
        until("it has profiled itself", lambda: b'"id"' in urllib.request.urlopen(f"http://{address}/api/v1/profiles?type=cpu", timeout=60).read())
        for path in ("/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/metrics"):
            assert urllib.request.urlopen(f"http://{address}{path}", timeout=60).status == 200
    finally:
        # strace passes nothing on: its child is asked itself.
        run("pkill", "-TERM", "-P", process.pid)
        assert process.wait(timeout=60) == 0, log.read_text()
    used = set(re.findall(r"^\d+ +([a-z][a-z0-9_]*)\(", trace.read_text(), re.MULTILINE)) - {"execve"}
    assert {"openat", "fsync", "accept4"} <= used
    assert used - allowed == set()
