"""What a person sees when they start a flow from Prefect's UI: titles, choices, limits, order.

The form is made from the pydantic model that the flow takes, when its deployment is registered:
files that exist by then become choices. The command line takes any path; the form, and the server
with it, only these.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.settings import DEPLOYMENTS, PROJECT_ROOT

#: Title and description of the gate's fields, in the order of the form.
GATE_FIELDS: dict[str, tuple[str, str]] = {
    "candidate": (
        "Candidate mix",
        "The mix that asks to replace what serves production.",
    ),
    "owner": (
        "Who asks",
        "Your name or e-mail. The freeze, Slack and the evidence name you; if the policy asks for "
        "an approval, somebody else has to give it.",
    ),
    "policy": ("Policy", "The limits by which the verdict is reached."),
    "cases": (
        "Cases",
        "How many inputs each mix gets, 1 to 100,000. Empty: as many as the policy says. A few "
        "dozen show that the mix works; too few for a verdict end as HOLD.",
    ),
    "budget_usd": (
        "Budget in dollars",
        "The run stops as HOLD before it spends more. Empty: the policy's cap.",
    ),
    "baseline": (
        "Baseline mix",
        "The mix to compare with. Empty: what serves production now.",
    ),
    "inputs": (
        "Production log",
        "Path of a CSV, TSV, JSONL, Parquet or text file where the gate runs, or URL::SELECT … of "
        "a database. Empty: the sample log of the project.",
    ),
    "catalog": ("Model catalog", "The trusted models with versions, licences and prices."),
    "seed": (
        "Seed",
        "Same seed, same sample and same pictures. Empty: the policy's.",
    ),
    "resume": (
        "Resume a run",
        "Name of a run that was stopped or killed, e.g. 20261125-020000-candidate-1a2b. It goes on "
        "with its own plan: the fields above, except who asks, do not matter then.",
    ),
}


def gate_choices(product: str) -> dict[str, tuple[str, ...]]:
    """Return the files of the project that a gate of ``product`` can be about, by field."""
    mixes = tuple(
        name for name in _files("mixes/*.yaml") if _product_of(PROJECT_ROOT / name) == product
    )
    return {
        "candidate": mixes,
        "baseline": mixes,
        "policy": _files("policies/*.yaml"),
        "catalog": _files("catalog*.yaml"),
    }


def _files(pattern: str) -> tuple[str, ...]:
    """Return names from the project's root, which every machine with the project can open."""
    found = DEPLOYMENTS.glob(pattern)
    return tuple(sorted(path.relative_to(PROJECT_ROOT).as_posix() for path in found))


def _product_of(path: Path) -> str | None:
    """Return the product that a mix file is for; ``None`` when it cannot be read."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    product = value.get("product") if isinstance(value, dict) else None
    return product if isinstance(product, str) else None


def gate_form(
    schema: Mapping[str, Any], product: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the schema of the gate's parameters as its form and its server check use it.

    Args:
        schema: Prefect's OpenAPI schema of the flow's parameters.
        product: Only mixes of this product are offered.
        given: What the deployment starts the form with; a file named there is a choice as well.
    """
    offered = gate_choices(product)
    for field, names in offered.items():
        extra = (given or {}).get(field)
        if extra is not None and extra not in names:
            offered[field] = (*names, extra)
    return request_form(
        schema,
        title=f"Release gate of {product}",
        description="Judges a candidate mix against production and acts on the verdict.",
        fields=GATE_FIELDS,
        choices=offered,
        required=("owner",),
    )


def canary_form(
    schema: Mapping[str, Any], product: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the schema of a canary's parameters as its form and its server check use it.

    Args:
        schema: Prefect's OpenAPI schema of the flow's parameters.
        product: The one product that it is for; only its mixes are offered.
        given: What the product's gate starts with; a file named there is a choice as well.
    """
    files = gate_choices(product)
    offered = {"product": (product,)}
    for field in ("candidate", "policy", "catalog"):
        extra = (given or {}).get(field)
        more = () if extra is None or extra in files[field] else (extra,)
        offered[field] = (*files[field], *more)
    return request_form(
        schema,
        title=f"Canary of {product}",
        description="Lets a candidate walk into production, or tells the one under way something.",
        choices=offered,
        required=("owner",),
    )


def request_form(
    schema: Mapping[str, Any],
    *,
    title: str,
    description: str,
    fields: Mapping[str, tuple[str, str]] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
    required: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the schema of a flow whose one parameter ``request`` is a pydantic model.

    Args:
        schema: Prefect's OpenAPI schema of the flow's parameters.
        title: What the form is called.
        description: What the flow does, in a line.
        fields: Title and description by field; their order is the form's. Others follow.
        choices: The values that a field may have; a field without any stays free text.
        required: Fields that a person has to fill, which have no default then.
    """
    form: dict[str, Any] = copy.deepcopy(dict(schema))
    request = form["properties"]["request"]
    request |= {"title": title, "description": description}
    name = str(request["$ref"]).rpartition("/")[2]
    model = form["definitions"][name]
    model |= {"title": title, "description": description}
    told = dict(fields or {})
    properties: dict[str, Any] = model["properties"]
    order = [f for f in told if f in properties] + [f for f in properties if f not in told]
    must = tuple(required)
    model["properties"] = {
        field: _field(
            properties[field],
            position=position,
            told=told.get(field),
            choices=tuple((choices or {}).get(field, ())),
            required=field in must,
        )
        for position, field in enumerate(order)
    }
    model["required"] = [*model.get("required", ()), *must]
    return form


def _field(
    given: Mapping[str, Any],
    *,
    position: int,
    told: tuple[str, str] | None,
    choices: tuple[str, ...],
    required: bool,
) -> dict[str, Any]:
    """Return one field; what may be left out is an empty input instead of a choice of types."""
    field = dict(given)
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) == 1 and len(field.get("anyOf", ())) == 2:
        del field["anyOf"]
        field |= kinds[0]
        if field.get("default", 0) is None:
            del field["default"]
    if told is not None:
        field["title"], field["description"] = told
    if choices:
        field["enum"] = list(choices)
    if required:
        field.pop("default", None)
        field["minLength"] = 1
    return field | {"position": position}
