"""The report's back pages: mixes, models, coverage, and how to do the run again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.evidence.present import NONE
from tasks.evidence.text import visible
from tasks.evidence.view import ARMS, ReportView
from tasks.mix.manifest import ResolvedMix
from tasks.records import Subtask, usd


def routes(view: ReportView) -> list[dict[str, Any]]:
    """Return the routes of both mixes, one row a subtask."""
    rows = []
    for subtask in view.plan.baseline.mix.routes:
        before, after = (_ways(view.plan.mix(arm), subtask) for arm in ARMS)
        rows.append(
            {
                "subtask": subtask,
                "baseline": before,
                "candidate": after,
                "changed": before != after,
            }
        )
    return rows


def _ways(mix: ResolvedMix, subtask: Subtask) -> list[str]:
    ways = []
    for alternative in mix.mix.routes[subtask]:
        chain = " → ".join(f"{stage.model} ({stage.operation})" for stage in alternative.stages)
        share = "" if alternative.weight == 1 else f"{alternative.weight:.0%} "
        ways.append(share + chain)
    return ways


def models(view: ReportView) -> list[dict[str, Any]]:
    """Return the models of both mixes with price, pin and the versions that answered."""
    reported: dict[str, set[str]] = {}
    requests: Counter[str] = Counter()
    for generation in view.generations:
        for attempt in generation.attempts:
            requests[attempt.model] += 1
            if attempt.model_reported:
                reported.setdefault(attempt.model, set()).add(attempt.model_reported)
    names = {arm: set(view.plan.mix(arm).by_name) for arm in ARMS}
    rows = []
    for name in sorted(names["baseline"] | names["candidate"]):
        arms = [arm for arm in ARMS if name in names[arm]]
        model = view.plan.mix(arms[-1]).by_name[name]
        seen = sorted(reported.get(name, set()))
        price = model.price
        rows.append(
            {
                "name": name,
                "arms": arms,
                "version": visible(model.version),
                "pin": model.pin,
                "reported": visible(", ".join(seen)) or NONE,
                "drift": any(version != model.version for version in seen),
                "price": NONE if price is None else price.words,
                "price_source": ""
                if price is None
                else visible(f"{price.source}, {price.date.isoformat()}"),
                "licence": NONE if model.licence is None else visible(model.licence.id),
                "retires": NONE if model.retires is None else model.retires.isoformat(),
                "requests": requests[name],
            }
        )
    return rows


def facts(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return nested notes (the coverage of the sample) as tables, whatever their shape.

    Returns:
        ``title``, ``head`` and ``rows`` of each table; plain notes come first in one table.
    """
    plain: list[list[str]] = []
    tables: list[dict[str, Any]] = []
    for key, item in value.items():
        title = visible(str(key)).replace("_", " ")
        if isinstance(item, Mapping) and item and all(_flat(v) for v in item.values()):
            rows = [[visible(str(k)), _flat_text(v)] for k, v in item.items()]
            tables.append({"title": title, "head": [], "rows": rows})
        elif isinstance(item, Mapping) and item and _uniform(item.values()):
            head = list(next(iter(item.values())))
            rows = [
                [visible(str(k)), *(_flat_text(v.get(h)) for h in head)] for k, v in item.items()
            ]
            tables.append({"title": title, "head": ["", *map(str, head)], "rows": rows})
        elif isinstance(item, list | tuple) and item and _uniform(item):
            head = list(item[0])
            rows = [[_flat_text(row.get(h)) for h in head] for row in item]
            tables.append({"title": title, "head": [str(h) for h in head], "rows": rows})
        else:
            plain.append([title, _flat_text(item)])
    return ([{"title": "", "head": [], "rows": plain}] if plain else []) + tables


def _flat(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _uniform(values: Iterable[Any]) -> bool:
    rows = list(values)
    return all(isinstance(r, Mapping) and r and all(map(_flat, r.values())) for r in rows)


def _flat_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    if isinstance(value, list | tuple) and all(map(_flat, value)):
        return ", ".join(map(_flat_text, value)) or NONE
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return visible(value)


def commands(view: ReportView) -> list[tuple[str, str]]:
    """Return how to do this run again with what the evidence keeps."""
    plan = view.plan
    run = [
        "imagegate run",
        '--baseline "$RUN/mixes/baseline.manifest.json"',
        '--candidate "$RUN/mixes/candidate.manifest.json"',
        '--catalog "$RUN/catalog.json"',
        '--policy "$RUN/policy.json"',
        f"--inputs {shlex.quote(visible(plan.inputs))}",
        f"--cases {len(plan.cases)}",
        f"--seed {plan.seed}",
        f"--budget-usd {usd(plan.budget_microusd):g}",
    ]
    return [
        (
            "Run the gate again on the same inputs",
            'RUN="the folder of this report"\n' + " \\\n  ".join(run),
        ),
        ("Find this report again", f"imagegate report {shlex.quote(visible(plan.run_id))}"),
    ]
