"""Templates of ComfyUI graphs: what stands in them, how a request fills them, what came of them.

A template is a graph in API format. A text among a node's inputs may hold places: ``{prompt}``,
``{seed}``, ``{width}``, ``{height}``, ``{image}``, and any name that the stage's params or the
catalog's options give a value. A text that is one place becomes the value itself, a number where
it is one; other texts are filled in one pass, so a prompt with braces stays as it is. Values go
into inputs alone: no prompt can add a node, a link or a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import known
from tasks.providers.base import CannotAsk

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
#: Nodes that end a graph with pictures.
SAVERS = ("SaveImage", "PreviewImage")
#: Inputs that name a file of weights, and the folder that ComfyUI looks for it in.
WEIGHTS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    "lora_name": "loras",
    "clip_name": "text_encoders",
    "model_name": "upscale_models",
    "control_net_name": "controlnet",
}
#: Places without which a graph would not do what it is asked.
NEEDED = {
    "generate": ("prompt", "seed"),
    "edit": ("prompt", "seed", "image"),
    "upscale": ("image",),
}

Graph = Mapping[str, Mapping[str, Any]]


def checked(value: object, operation: str, where: str) -> Graph:
    """Return a template after a look at its shape and its places.

    Raises:
        CannotAsk: It is no graph in API format, or lacks a place that the operation needs.
    """
    nodes = value if isinstance(value, Mapping) else {}
    if "nodes" in nodes and "links" in nodes:
        raise CannotAsk(f"{where}: a workflow as the editor saves it; export it as API format")
    for name, node in nodes.items():
        kind = node.get("class_type") if isinstance(node, Mapping) else None
        if not isinstance(kind, str) or not isinstance(node.get("inputs"), Mapping):
            raise CannotAsk(f"{where}: node {name!r} needs class_type and inputs")
    if not nodes:
        raise CannotAsk(f"{where}: needs a graph in API format, an object of nodes by their ids")
    there = {place for text in texts(nodes) for place in _PLACE.findall(text)}
    for place in NEEDED[operation]:
        if place not in there:
            raise CannotAsk(
                f"{where}: no input holds {{{place}}}, so what is asked would not reach the graph "
                f"{known(sorted(there))}"
            )
    return nodes


def texts(graph: Graph) -> Iterator[str]:
    """Yield the texts among the inputs of a graph."""
    for node in graph.values():
        yield from (value for value in node["inputs"].values() if isinstance(value, str))


def output_node(graph: Graph, named: object, where: str) -> str:
    """Return the id of the node whose picture counts.

    Raises:
        CannotAsk: The named one is not there, or none is named and several could be it.
    """
    if named is not None:
        if named not in graph:
            raise CannotAsk(f"{where}: output {named!r} is no node of the graph {known(graph)}")
        return str(named)
    savers = [name for name, node in graph.items() if node["class_type"] in SAVERS]
    if len(savers) != 1:
        raise CannotAsk(
            f"{where}: {len(savers)} nodes save pictures; name the one that counts in "
            "options.output of the catalog"
        )
    return savers[0]


def filled(graph: Graph, values: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Return a new graph with values in the places of its inputs.

    Raises:
        CannotAsk: A place has no value.
    """

    def value_of(name: str) -> Any:
        if name not in values:
            raise CannotAsk(f"{where}: nothing fills the place {{{name}}} {known(values)}")
        return values[name]

    def fill(value: Any) -> Any:
        if not isinstance(value, str):
            return value  # numbers, flags and links to other nodes
        whole = _PLACE.fullmatch(value)
        if whole is not None:
            return value_of(whole[1])
        return _PLACE.sub(lambda found: str(value_of(found[1])), value)

    return {
        name: {**node, "inputs": {field: fill(given) for field, given in node["inputs"].items()}}
        for name, node in graph.items()
    }


def changed(sent: Graph, ran: object) -> str:
    """Return where the graph that ran departs from the one that was sent, "" where nowhere.

    Custom nodes may rewrite a graph before it is queued. Numbers and texts that read alike are
    alike: ComfyUI converts them.
    """
    nodes = ran if isinstance(ran, Mapping) else {}
    for name, node in sent.items():
        other = nodes.get(name)
        if not isinstance(other, Mapping) or other.get("class_type") != node["class_type"]:
            return f"node {name!r} ({node['class_type']}) did not run as it was sent"
        inputs = other.get("inputs")
        for field, asked in node["inputs"].items():
            used = inputs.get(field) if isinstance(inputs, Mapping) else None
            if asked != used and not _alike(asked, used):
                return (
                    f"{field} of node {name!r} ({node['class_type']}): {asked!r:.60} was asked "
                    f"for, {used!r:.60} was used"
                )
    return ""


def _alike(asked: object, used: object) -> bool:
    if isinstance(asked, list | dict) or isinstance(used, list | dict):
        return False
    try:
        return float(str(asked)) == float(str(used))
    except ValueError:
        return str(asked) == str(used)


def weights(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """Yield class, input and file name of each file of weights that a graph loads."""
    for node in graph.values():
        for field, value in node["inputs"].items():
            if field in WEIGHTS and isinstance(value, str) and not _PLACE.search(value):
                yield node["class_type"], field, value
