"""Prints infra/template.yaml with the API put in, as `mycli init` uploads it (crates/deploy holds the same steps): for linters and tests."""

import hashlib
import json
import pathlib
import sys

import yaml

INFRA = pathlib.Path(__file__).resolve().parents[2] / "infra"


def merged() -> dict:
    template = yaml.safe_load((INFRA / "template.yaml").read_text())
    resources = template["Resources"]
    body = yaml.safe_load((INFRA / "openapi.yaml").read_text())
    resources["Api"]["Properties"]["Body"] = body
    # A deployment is a snapshot, so it is named after what it is a snapshot of.
    name = "Deployment" + content_hash(body)
    resources[name] = resources.pop("Deployment")
    resources["Stage"]["Properties"]["DeploymentId"] = {"Ref": name}
    return template


def content_hash(body: dict) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    json.dump(merged(), sys.stdout, indent=1)
