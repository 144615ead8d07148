"""The shipped catalog with its providers on loopback, and logs that ask for what they draw."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.settings import DEPLOYMENTS

HOSTED = str(DEPLOYMENTS / "mixes" / "hosted.yaml")
#: What an endpoint ends with beyond the host, by protocol.
_BELOW = {"openai": "/v1", "gemini": "/v1beta"}


def catalog(
    path: Path,
    servers: Mapping[str, str],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    attempts: int = 3,
) -> str:
    """Write the shipped catalog with the addresses of fakes; return the file.

    Args:
        path: The file.
        servers: Addresses by protocol.
        changes: Fields of entries to change, by name.
        attempts: Attempts of a request to a fake.
    """
    read = yaml.safe_load((DEPLOYMENTS / "catalog.yaml").read_text(encoding="utf-8"))
    for model in read["models"]:
        protocol = model["protocol"]
        if protocol in servers:
            model["endpoint"] = servers[protocol] + _BELOW.get(protocol, "")
            model["limits"] |= {"attempts": attempts, "per_minute": 6000, "timeout_s": 30}
            if protocol == "openai":
                # On another host than OpenAI's, a compatible server would be taken for granted.
                model["options"]["dialect"] = "openai"
        model.update((changes or {}).get(model["name"], {}))
    path.write_text(yaml.safe_dump(read, sort_keys=False), encoding="utf-8")
    return str(path)


def log(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write a production log; return the file."""
    names = ("prompt", "subtask", "width", "height", "upload", "expected_text")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def policy(path: Path, cases: int, **more: Any) -> str:
    """Write a policy that judges a small log whole; return the file."""
    value = {
        "schema_version": 1,
        "name": "small",
        "failure": {"limit": 0.1, "promote_below": 0.25},
        "slices": {"limit": 0.5, "critical": []},
        "limits": [],
        "sampling": {
            "cases": cases,
            "stress": 0,
            "adversarial": 0,
            "shard_size": cases,
            "stop_early": False,
        },
    }
    path.write_text(yaml.safe_dump(value | more), encoding="utf-8")
    return str(path)
