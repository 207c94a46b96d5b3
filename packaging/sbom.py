"""Writes what the program is made of, as a CycloneDX 1.6 list: `sbom.py > sbom.cdx.json`.

The crates are those that cargo would build into `afterglow` for this machine, by its own resolution: dependencies of tests and of build
scripts are left out, as nothing of them is in the program. Sorted and without a time, so the same lock file gives the same text.
"""

import json
import subprocess
import sys


def metadata() -> dict:
    """Returns what cargo knows of the workspace, for this machine alone."""
    host = next(line.split()[1] for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if line.startswith("host:"))
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", host]
    return json.loads(subprocess.check_output(command, text=True))


def linked(nodes: dict[str, dict], root: str) -> set[str]:
    """Returns the ids of all packages that are linked into a package."""
    found, left = set(), [root]
    while left:
        package = left.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    return found


def component(package: dict, kind: str = "library") -> dict:
    """Returns a package in CycloneDX's words."""
    out = {"type": kind, "name": package["name"], "version": package["version"]}
    out["bom-ref"] = out["purl"] = f"pkg:cargo/{package['name']}@{package['version']}"
    if package.get("license"):
        out["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return out


def main() -> None:
    known = metadata()
    packages = {package["id"]: package for package in known["packages"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    root = next(id for id, package in packages.items() if package["name"] == "afterglow")
    inside = linked(nodes, root)
    order = sorted(inside, key=lambda id: (packages[id]["name"], packages[id]["version"]))
    ref = {id: component(packages[id])["bom-ref"] for id in inside}
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"component": component(packages[root], "application")},
        "components": [component(packages[id]) for id in order if id != root],
        "dependencies": [
            {"ref": ref[id], "dependsOn": sorted(ref[d["pkg"]] for d in nodes[id]["deps"] if d["pkg"] in inside)} for id in order
        ],
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
