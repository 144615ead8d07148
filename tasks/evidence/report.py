"""The report: one HTML file that opens offline, loads nothing and runs nothing it did not bring.

Prompts, read texts and messages are hostile: the template escapes everything, the data of the
gallery is inert JSON that the script writes as text only, and the page's content policy allows
no request and no other script or style than the two it is made with.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.approval.rules import sentence
from tasks.evidence import appendix, cards, charts, growth, present
from tasks.evidence.bundle import digests
from tasks.evidence.eyesight import eyesight
from tasks.evidence.gallery import (
    Selection,
    by_arm_and_case,
    gallery,
    select,
    wanted_pictures,
)
from tasks.evidence.text import shorten, visible
from tasks.evidence.thumbnails import draw_thumbs
from tasks.evidence.view import ARMS, ReportView
from tasks.images import ImageStore
from tasks.plan import RunFolder
from tasks.records import canonical_json

TEMPLATES = Path(__file__).parent / "templates"
REPORT = "report.html"
#: What must not stand in a script element, and what old parsers take for the end of a line.
_UNSAFE_JSON = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_HEADLINE = {
    "PROMOTE": "The candidate may serve production",
    "ROLLBACK": "The candidate must not serve production",
    "HOLD": "Not decided: the evidence is not enough",
}


def render_report(view: ReportView) -> str:
    """Return the report as HTML; the same view gives the same text."""
    return _render(view, select(view))


def write_report(folder: RunFolder, view: ReportView, images: ImageStore) -> Path:
    """Draw the thumbnails and write the report into the run's folder.

    Raises:
        EvidenceError: The disk is full, or a process that draws was killed.
    """
    selection = select(view)
    wanted = wanted_pictures(view, selection)
    thumbs = draw_thumbs(wanted, images)
    links = _links(folder.path, images, (w.digest for w in wanted if w.digest))
    return folder.write(REPORT, _render(replace(view, thumbs=thumbs, links=links), selection))


def _links(folder: Path, images: ImageStore, needed: Iterable[str]) -> dict[str, str]:
    """Return relative addresses of the full pictures that exist."""
    found = {}
    for digest in needed:
        path = images.path(digest)
        if path.is_file():
            found[digest] = Path(os.path.relpath(path, folder)).as_posix()
    return found


def json_island(value: Any) -> Markup:
    """Return JSON that can stand inside a script element, whatever its texts hold."""
    return Markup(canonical_json(value).translate(_UNSAFE_JSON))  # noqa: S704 - escaped above


def _source(text: str) -> str:
    """Return the CSP source of an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _inline(name: str) -> Markup:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{name}: must not hold '</': it stands inside an HTML element")
    return Markup(text)  # noqa: S704 - a file of ours, without a closing tag


def _render(view: ReportView, selection: Selection) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    style, script = _inline("report.css"), _inline("report.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_source(style)}",
            f"script-src {_source(script)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    page = environment.get_template("report.html.j2").render(
        **_context(view, selection),
        csp=policy,
        style=style,
        script=script,
        data=json_island(gallery(view, selection)),
    )
    return page + "\n"


def _context(view: ReportView, selection: Selection) -> dict[str, Any]:
    plan, verdict = view.plan, view.verdict
    return {
        "verdict": verdict.verdict,
        "headline": _HEADLINE[verdict.verdict],
        "why": visible(verdict.reasons[0]) if verdict.reasons else "No reason was recorded.",
        "reasons": [visible(text) for text in verdict.reasons],
        "warnings": [visible(text) for text in verdict.warnings],
        "actions": [visible(text) for text in view.actions],
        "approval": None if view.approval is None else visible(sentence(view.approval)),
        "run_id": visible(plan.run_id),
        "product": visible(plan.product),
        "baseline": visible(plan.baseline.mix.name),
        "candidate": visible(plan.candidate.mix.name),
        "created_at": present.moment(plan.created_at),
        "finished_at": present.moment(view.finished_at),
        "policy_name": visible(plan.policy.name),
        "cases": growth.decided_words(
            verdict,
            view.metrics.candidate.images,
            len(plan.cases),
            view.metrics.candidate.extra_images,
        ),
        "growth": growth.growth(view),
        "cards": cards.cards(view),
        "expectations": present.expectations(view.expectations),
        "accounts": present.accounts(view),
        "slices": present.slices(view),
        "slice_limit": plan.policy.slices.limit,
        "min_images": plan.policy.slices.min_images,
        "checks": present.checks(view),
        "eyesight": eyesight(view.planted),
        "passing": _passing(view, selection),
        "failing_total": selection.total,
        "failing_listed": len(selection.failing),
        "latency": present.latency(view),
        "coverage": appendix.facts(plan.coverage),
        "inputs": visible(plan.inputs),
        "routes": appendix.routes(view),
        "models": appendix.models(view),
        "digests": digests(plan),
        "provenance": {visible(k): visible(v) for k, v in view.provenance.items()},
        "commands": appendix.commands(view),
        "legend": present.legend(),
        "arms": ARMS,
        "round_percent": charts.round_percent,
    }


def _passing(view: ReportView, selection: Selection) -> list[dict[str, Any]]:
    """Return the sample of passing pictures that have a thumbnail."""
    generations = by_arm_and_case(view.generations)
    found = []
    for entry in selection.passing:
        generation = generations.get(("candidate", entry.case.case_id))
        digest = None if generation is None else generation.image_digest
        thumb = view.thumbs.get(digest) if digest is not None else None
        if thumb is None or not thumb.data:
            continue
        source = f"data:{thumb.mime};base64,{base64.b64encode(thumb.data).decode('ascii')}"
        found.append(
            {
                "src": source,
                "prompt": shorten(visible(entry.case.prompt), 200),
                "subtask": entry.case.subtask,
                "locale": visible(entry.case.locale),
            }
        )
    return found
