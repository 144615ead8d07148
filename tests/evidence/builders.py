"""Runs as the gate makes them, from drawn pictures and drawn faults, for the evidence's tests."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.evidence.view import ARMS, ReportView
from tasks.images import ImageStore
from tasks.metrics.compute import compute_metrics
from tasks.metrics.outcomes import judge
from tasks.mix.catalog import Licence, Model, Price
from tasks.mix.manifest import Alternative, Mix, ResolvedMix, Stage
from tasks.plan import RunPlan
from tasks.policy import Limit, Policy, SliceRule
from tasks.records import (
    SUBTASKS,
    Arm,
    Attempt,
    Case,
    ExpectationResult,
    FailureClass,
    Finding,
    Generation,
    ImageReport,
    Outcome,
    Region,
    Subtask,
    Verdict,
    digest_bytes,
)

AT = "2026-09-14T10:00:00.000Z"
RUN = "20260914-100000-summer"

#: A prompt with everything that has ever broken a page.
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "'\"><svg/onload=document.title='owned'> <!-- --> ]]> {{ 7*7 }} {% raw %} @@script@@ "
    "\u202egnitirw desrever\u202c \x00\x07\x1b[31m \ud800 <!channel> *bold* _it_ `code` "
    "<https://evil.example|click> [link](javascript:alert(1)) | cell"
)

WORDS = {
    "en": ["OPEN TILL LATE", "SUMMER SALE 30%", "Fresh Bread Daily", "Grand Opening"],
    "de": ["Schöne Grüße", "Frühstück ab 7 Uhr"],
    "fr": ["Café de l'été", "Ouvert tous les jours"],
    "es": ["Mañana abrimos", "¡Rebajas!"],
    "el": ["Καλημέρα", "Προσφορά"],
    "ru": ["Скидка сегодня", "Добро пожаловать"],
    "ar": ["مرحبا بكم"],
    "he": ["ברוכים הבאים"],
}
SCENES = [
    "A storefront at dusk with a neon sign",
    "A ceramic mug on a wooden table, soft morning light",
    "A trail running shoe on wet rocks",
    "A poster for a jazz night in muted colours",
    "A bottle of cold-pressed juice among oranges",
]


@dataclass(frozen=True)
class Quality:
    """How often an arm's mix fails, and how."""

    failing: float
    price: float
    latency: float
    faults: tuple[str, ...]


GOOD = Quality(0.006, 0.017, 1.6, ("text", "logo"))
OLD = Quality(
    0.12, 0.036, 3.1, ("text", "text", "cast", "logo", "truncated", "timeout", "refused", "html")
)
BROKEN = Quality(0.13, 0.015, 1.2, ("glyphs", "cast", "refused", "logo", "truncated", "fault"))


def a_model(name: str, price: float, operations: tuple[str, ...] = ("generate",)) -> Model:
    return Model(
        name=name,
        protocol="raw",
        endpoint="embedded",
        version=f"{name}-2026-08-01",
        pin="dated",
        operations=operations,
        licence=Licence(id="Apache-2.0", uses=("commercial",)),
        price=Price(usd=price, source="price list of the provider", date=date(2026, 9, 1)),
        key_env="PICTURE_KEY",
        retires=date(2027, 3, 1),
    )


def a_mix(name: str, generation: int, price: float) -> ResolvedMix:
    routes: dict[Subtask, tuple[Alternative, ...]] = {}
    models = {
        "typography": a_model(f"folio-{generation}", price * 1.3),
        "creative": a_model(f"muse-{generation}", price),
        "fast": a_model(f"dash-{generation}", price * 0.6),
        "edit": a_model(f"retouch-{generation}", price, ("generate", "edit")),
    }
    upscaler = a_model("acnet-x2", 0.001, ("upscale",))
    for subtask in SUBTASKS:
        model = models.get(subtask, models["fast"])
        first = Stage(model=model.name, operation="edit" if subtask == "edit" else "generate")
        stages: tuple[Stage, ...] = (first,)
        if subtask == "upscale":
            stages = (first, Stage(model="acnet-x2", operation="upscale"))
        routes[subtask] = (Alternative(stages=stages),)
    mix = Mix(name=name, product="storefront", routes=routes)
    return ResolvedMix(
        mix=mix, models=tuple(sorted([*models.values(), upscaler], key=lambda m: m.name))
    )


def a_case(draw: random.Random, number: int) -> Case:
    subtask = SUBTASKS[number % 5]
    origin = draw.choices(("production", "stress", "adversarial"), (6, 3, 1))[0]
    locale = draw.choice(list(WORDS))
    scene = draw.choice(SCENES)
    text = (draw.choice(WORDS[locale]),) if subtask == "typography" or draw.random() < 0.3 else ()
    prompt = f'{scene}, with the words "{text[0]}"' if text else scene
    return Case(
        case_id=f"case-{number:05d}",
        prompt=prompt,
        subtask=subtask,
        locale=locale,
        width=draw.choice((512, 768)),
        height=512,
        expected_text=text,
        brand=draw.choice((None, "northwind", "solstice")),
        origin=origin,
        theme="" if origin == "production" else "prices",
    )


def picture(draw: random.Random, case: Case, text: str, side: int, cast: bool) -> bytes:
    """Draw a scene with a text on it as PNG."""
    height, width = side, side * case.width // case.height
    first, second = (np.array([draw.randrange(40, 235) for _ in range(3)]) for _ in range(2))
    ramp = np.linspace(0, 1, height)[:, None, None]
    field = (first * (1 - ramp) + second * ramp) * np.ones((height, width, 1))
    field += np.random.default_rng(draw.randrange(2**32)).normal(0, 5, field.shape)
    if cast:
        field *= np.array([1.15, 0.8, 1.2])
    image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    x, y = width * 0.55, height * 0.6
    radius = height * draw.uniform(0.12, 0.25)
    pen.ellipse(
        (x - radius, y - radius, x + radius, y + radius),
        fill=tuple(draw.randrange(256) for _ in range(3)),
    )
    font = ImageFont.load_default(size=max(10, height // 14))
    pen.rectangle((width * 0.06, height * 0.12, width * 0.94, height * 0.26), fill=(250, 248, 240))
    pen.text((width * 0.09, height * 0.14), text, fill=(20, 20, 30), font=font)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def text_box(case: Case, side: int) -> Region:
    """Return where :func:`picture` sets the text."""
    width = side * case.width // case.height
    return Region(
        x=int(width * 0.06),
        y=int(side * 0.12),
        width=int(width * 0.88),
        height=int(side * 0.14),
    )


def swapped(draw: random.Random, text: str) -> str:
    letters = list(text)
    place = draw.randrange(max(1, len(letters) - 1))
    letters[place : place + 2] = reversed(letters[place : place + 2])
    if "".join(letters) == text:
        letters[place] = "o" if letters[place] != "o" else "e"
    return "".join(letters)


def generate(
    draw: random.Random,
    case: Case,
    arm: Arm,
    mix: ResolvedMix,
    quality: Quality,
    store: ImageStore | None,
    side: int,
) -> tuple[Generation, ImageReport | None]:
    """Return what one case got from one arm and what the checks found."""
    fault = draw.choice(quality.faults) if draw.random() < quality.failing else ""
    if fault == "text" and not case.expected_text:
        fault = "cast"
    alternative = mix.alternative(case.subtask, case.digest)
    models = tuple(stage.model for stage in alternative.stages)
    latency = quality.latency * draw.lognormvariate(0, 0.35)
    attempts = tuple(
        Attempt(
            stage=stage,
            number=1,
            model=model,
            started_at=AT,
            total_s=latency / len(models),
            ttfb_s=latency / 2,
            http_status=200,
            billed="yes",
            cost_microusd=int(quality.price * 1e6 / len(models)),
            model_reported=mix.by_name[model].version,
            headers={"x-request-id": f"r-{case.case_id}-{arm}"},
        )
        for stage, model in enumerate(models)
    )
    if draw.random() < 0.05:
        failed = attempts[0].model_copy(
            update={"failure": FailureClass.SERVER, "http_status": 502, "cost_microusd": 0}
        )
        attempts = (failed, attempts[0].model_copy(update={"number": 2}), *attempts[1:])
    common = {
        "run_id": RUN,
        "arm": arm,
        "mix_digest": mix.digest,
        "case_id": case.case_id,
        "seed": 7,
        "models": models,
        "attempts": attempts,
        "cost_microusd": sum(a.cost_microusd for a in attempts),
        "latency_s": latency,
        "ttfb_s": latency / 2,
    }
    if fault == "timeout":
        return Generation(
            **common,
            status="undelivered",
            failure=FailureClass.TRANSPORT,
            message="read time-out after 60 s on attempt 3 of 3",
        ), None
    if fault == "refused":
        return Generation(
            **common,
            status="refused",
            failure=FailureClass.REFUSAL,
            message="content_policy: your request was blocked",
        ), None
    expected = case.expected_text[0] if case.expected_text else ""
    shown = swapped(draw, expected) if fault == "text" else expected
    if fault == "glyphs":
        shown = "□" * max(3, len(expected) // 2)
    region = text_box(case, side)
    name = f"{arm}|{case.case_id}|{case.digest}|{shown}".encode("utf-8", "replace")
    if store is None:  # nobody will look: spare the drawing
        digest, size = digest_bytes(name), 1
    else:
        data = picture(random.Random(name), case, shown, side, cast=fault == "cast")
        if fault == "truncated":
            data = data[: len(data) // 3]
        if fault == "html":
            data = b"<!DOCTYPE html><html><body>502 <script>alert(1)</script></body></html>"
        digest, size = store.put(data), len(data)
    generation = Generation(
        **common, status="ok", image_digest=digest, image_bytes=size, sniffed_mime="image/png"
    )
    return generation, report_of(case, fault, shown, region, side)


def report_of(case: Case, fault: str, shown: str, region: Region, side: int) -> ImageReport:
    found = {
        "decode.file": "fail" if fault in {"truncated", "html"} else "pass",
        "geometry.size": "pass",
        "typography.text": "pass" if case.expected_text else "skip",
        "typography.glyphs": "pass" if case.expected_text else "skip",
        "colour.cast": "pass",
        "composition.logo": "pass" if case.brand else "skip",
    }
    names = {
        "text": "typography.text",
        "glyphs": "typography.glyphs",
        "cast": "colour.cast",
        "logo": "composition.logo",
    }
    messages = {
        "text": f"expected {case.expected_text!r}, read {shown!r}",
        "glyphs": "12 hollow boxes of one size where letters belong: the font lacks glyphs",
        "cast": "the whole picture is shifted by 11.2 towards magenta",
        "logo": "the logo stands outside the safe area: 14 px over the right edge",
        "truncated": "PNG: the file ends inside a chunk",
        "html": "not a supported image: the body is HTML",
    }
    if fault in names:
        found[names[fault]] = "fail"
    if fault == "fault":
        found["typography.text"] = "fault"
    whole = fault not in {"truncated", "html"}
    findings = tuple(
        Finding(
            check=name,
            version="1",
            verdict=verdict if whole or name == "decode.file" else "skip",
            score=None if verdict == "skip" else 0.42 if verdict == "fail" else 0.99,
            limit=0.9,
            message=messages.get(fault, "") if verdict == "fail" else "",
            region=region if verdict == "fail" and fault in {"text", "glyphs", "logo"} else None,
        )
        for name, verdict in found.items()
    )
    width = side * case.width // case.height
    return ImageReport(
        findings=findings,
        read_text=(shown,) if shown and whole else (),
        width=width if whole else None,
        height=side if whole else None,
        seconds=0.2,
    )


def a_policy() -> Policy:
    return Policy(
        name="default",
        slices=SliceRule(critical=("subtask=typography",)),
        limits=(
            Limit(measure="effective_cost_per_1k_usd", max=30.0, on_breach="rollback"),
            Limit(measure="latency_p95_s", max=6.0, on_breach="hold"),
            Limit(measure="text_unjudged_rate", max=0.5, on_breach="warn"),
        ),
    )


def a_view(
    cases: int = 60,
    candidate: Quality = GOOD,
    verdict: Verdict | None = None,
    store: ImageStore | None = None,
    hostile: bool = False,
    side: int = 96,
    seed: int = 1,
    actions: Sequence[str] = (
        "storefront was switched from spring to summer; read back in 0.04 s.",
    ),
) -> ReportView:
    """Return the view of a run with drawn faults; the same arguments give the same view."""
    draw = random.Random(seed)
    inputs = tuple(a_case(draw, number) for number in range(cases))
    if hostile:
        first = inputs[0].model_copy(update={"prompt": HOSTILE, "expected_text": (HOSTILE,)})
        long = inputs[1].model_copy(update={"prompt": "long <b>" + "x " * 16_000})
        inputs = (first, long, *inputs[2:])
    policy = a_policy()
    mixes = {"baseline": a_mix("spring", 1, 0.036), "candidate": a_mix("summer", 2, 0.017)}
    qualities = {"baseline": OLD, "candidate": candidate}
    generations: list[Generation] = []
    reports: dict[tuple[Arm, str], ImageReport] = {}
    outcomes: list[Outcome] = []
    for arm in ARMS:
        for number, case in enumerate(inputs):
            quality = qualities[arm]
            if hostile and number < 2:
                quality = Quality(1.0, 0.02, 2.0, ("text",))
            generation, report = generate(draw, case, arm, mixes[arm], quality, store, side)
            generations.append(generation)
            if report is not None:
                reports[arm, case.case_id] = report
            outcomes.append(judge(RUN, case, generation, report))
    metrics = compute_metrics(
        inputs,
        outcomes,
        policy,
        baseline_digest=mixes["baseline"].digest,
        candidate_digest=mixes["candidate"].digest,
    )
    plan = RunPlan(
        run_id=RUN,
        product="storefront",
        created_at=AT,
        baseline=mixes["baseline"],
        candidate=mixes["candidate"],
        policy=policy,
        seed=42,
        budget_microusd=25_000_000,
        day_budget_microusd=100_000_000,
        inputs="datasets/production.parquet",
        cases=inputs,
        coverage={
            "rows in the log": 5000,
            "strata seen": 118,
            "by_subtask": {"typography": "21 %", "creative": "34 %", "fast": "45 %"},
            "strata": [{"stratum": "typography/en", "log": 900, "sample": 31}],
        },
    )
    return ReportView(
        plan=plan,
        metrics=metrics,
        verdict=verdict
        or Verdict(
            verdict="PROMOTE",
            reasons=(
                "The failure rate is below 3 % with 95 % confidence and no slice is above 10 %.",
                "Effective cost per 1,000 usable images falls from $42.10 to $17.40.",
            ),
            warnings=(
                "Text in ar and he has no reader here: 9 pictures were not judged for text.",
            ),
        ),
        expectations=(
            an_expectation("failure_rate <= 0.02", "rollback", True, 0.004),
            an_expectation("effective_cost_per_1k_usd <= 30", "rollback", True, 17.4),
            an_expectation("latency_p95_s <= 6", "hold", True, 2.9),
            an_expectation("text_unjudged_rate <= 0.5", "warn", False, None),
        ),
        outcomes=outcomes,
        generations=generations,
        reports=reports,
        actions=actions,
        finished_at="2026-09-14T10:01:30.000Z",
        provenance={"imagegate": "0.1.0", "python": "CPython 3.11"},
    )


def an_expectation(
    name: str, on_breach: str, success: bool, observed: float | None
) -> ExpectationResult:
    return ExpectationResult(
        name=name,
        source="limits[0]",
        on_breach=on_breach,
        success=success,
        unmeasured=observed is None,
        observed=observed,
        sentence=f"The candidate keeps {name}.",
    )
