"""Reading what ComfyUI says about a job: its queue, its history and the files it saved; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from tasks.providers.comfy_graph import Graph
from tasks.providers.usage import amount


def is_name(value: object) -> bool:
    """Return whether a value is the plain name of a file."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 255
        and value.isprintable()
        and not set(value) & set("/\\")
        and ".." not in value
    )


def view(image: object) -> str | None:
    """Return the address of a saved picture, ``None`` when its name could lead elsewhere."""
    if not isinstance(image, Mapping):
        return None
    name, folder = image.get("filename"), image.get("subfolder", "")
    kind = image.get("type", "output")
    parts = folder.replace("\\", "/").split("/") if isinstance(folder, str) else [".."]
    if not is_name(name) or kind not in ("output", "temp"):
        return None
    if folder and not all(is_name(part) for part in parts):
        return None
    return "/view?" + urlencode({"filename": name, "subfolder": folder, "type": kind})


def queued(value: Mapping[str, Any], number: str) -> bool:
    """Return whether a queue holds a job, waiting or running."""
    for name in ("queue_running", "queue_pending"):
        for item in value.get(name) or []:
            if isinstance(item, list) and len(item) > 1 and item[1] == number:
                return True
    return False


def messages(status: object) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the messages of a history's status: a word and its details."""
    said = status.get("messages") if isinstance(status, Mapping) else None
    return [
        (each[0], each[1])
        for each in (said if isinstance(said, list) else [])
        if isinstance(each, list)
        and len(each) == 2
        and isinstance(each[0], str)
        and isinstance(each[1], Mapping)
    ]


def busy(said: Sequence[tuple[str, Mapping[str, Any]]]) -> float | None:
    """Return the seconds from the start to the end of a job by the server's clock."""
    times = [details.get("timestamp") for _, details in said]
    known = [t for t in times if isinstance(t, int | float) and not isinstance(t, bool)]
    return amount((max(known) - min(known)) / 1000) if len(known) > 1 else None


def fault(said: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return which node failed, and how."""
    for word, details in said:
        if word == "execution_error":
            return (
                f"node {details.get('node_id')!r} ({details.get('node_type')}) failed: "
                f"{details.get('exception_type')}: {details.get('exception_message')}"
            )
        if word == "execution_interrupted":
            return f"the job was interrupted at node {details.get('node_id')!r}"
    return "the job failed; the server does not say why"


def all_cached(said: Sequence[tuple[str, Mapping[str, Any]]], sent: Graph) -> bool:
    """Return whether nothing of a graph was run anew."""
    nodes = next((d.get("nodes") for word, d in said if word == "execution_cached"), None)
    return isinstance(nodes, list) and set(sent) <= {str(n) for n in nodes}


def node_errors(value: object) -> dict[str, Any]:
    """Return what is wrong with a graph by the ids of its nodes, empty for nothing."""
    faults = value.get("node_errors") if isinstance(value, dict) else None
    return faults if isinstance(faults, dict) else {}
