"""Writes JSON schemas of the kinds that the chart makes into a folder, for kubeconform: `schemas.py FOLDER`.

Kubernetes publishes its API as OpenAPI inside its Go module, the Prometheus operator and the Gateway API their custom resources inside
theirs; so the ordinary Go client fetches all three, by version and checksum. Each schema is written out in full (no references) and
closed: a field that the API does not know is an error, as it is for `kubectl apply --validate=strict`.
"""

import json
import pathlib
import subprocess
import sys

import yaml

KUBERNETES = "k8s.io/kubernetes@v1.37.2"
CUSTOM = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        for kind in ("podmonitors", "prometheusrules", "servicemonitors")
    ],
    "sigs.k8s.io/gateway-api@v1.4.0": ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"],
}
KINDS = {
    ("", "v1"): ["ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"],
    ("apps", "v1"): ["DaemonSet", "Deployment"],
    ("autoscaling", "v2"): ["HorizontalPodAutoscaler"],
    ("networking.k8s.io", "v1"): ["Ingress", "NetworkPolicy"],
    ("policy", "v1"): ["PodDisruptionBudget"],
}
# Quantities and ports may be written as numbers or as text, whatever the OpenAPI's one type says.
EITHER = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
}


def module(version: str) -> pathlib.Path:
    """Returns the folder of a Go module, fetched where it is missing."""
    done = subprocess.run(["go", "mod", "download", "-json", version], check=True, capture_output=True, text=True)
    return pathlib.Path(json.loads(done.stdout)["Dir"])


def written_out(schema: dict, definitions: dict) -> dict:
    """Returns a schema of the OpenAPI with every reference replaced by what it names, and every object closed."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        if name in EITHER:
            return {"type": ["string", "number"]}
        return written_out(definitions[name], definitions)
    out = {key: value for key, value in schema.items() if key in ("type", "required", "enum", "format", "pattern")}
    if "properties" in schema:
        out["properties"] = {key: written_out(value, definitions) for key, value in schema["properties"].items()}
        out["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = written_out(schema["additionalProperties"], definitions)
    if "items" in schema:
        out["items"] = written_out(schema["items"], definitions)
    # int64 and the like say nothing to a validator of JSON, byte and date-time would be checked.
    out.pop("format", None)
    return out


def closed(schema: dict) -> dict:
    """Returns a structural schema of a custom resource with every object closed that does not keep unknown fields."""
    out = dict(schema)
    if "properties" in schema:
        out["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = closed(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        out["items"] = closed(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    return out


def write(folder: pathlib.Path, group: str, version: str, kind: str, schema: dict) -> None:
    parts = [kind.lower(), group.split(".")[0], version] if group else [kind.lower(), version]
    (folder / f"{'-'.join(parts)}.json").write_text(json.dumps(schema))


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    swagger = json.loads((module(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
    definitions = swagger["definitions"]
    wanted = {(group, version, kind) for (group, version), kinds in KINDS.items() for kind in kinds}
    for schema in definitions.values():
        for named in schema.get("x-kubernetes-group-version-kind", []):
            key = (named["group"], named["version"], named["kind"])
            if key in wanted:
                write(folder, *key, written_out(schema, definitions))
                wanted.remove(key)
    if wanted:
        sys.exit(f"{KUBERNETES} has no {sorted(wanted)}")
    for version, files in CUSTOM.items():
        root = module(version)
        for file in files:
            resource = yaml.safe_load((root / file).read_text())["spec"]
            for served in resource["versions"]:
                schema = closed(served["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                write(folder, resource["group"], served["name"], resource["names"]["kind"], schema)


if __name__ == "__main__":
    main()
