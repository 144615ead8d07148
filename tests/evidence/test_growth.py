"""How the evidence grew: what the verdict says, in words and lines, and nothing worked out anew."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evidence import cards
from tasks.evidence.ci_summary import job_summary
from tasks.evidence.growth import (
    _limits,
    decided_words,
    growth,
    images_words,
    proven,
    saved_words,
    share_words,
)
from tasks.evidence.growth_chart import Point, growth_chart
from tasks.evidence.junit import properties_of
from tasks.evidence.report import render_report
from tasks.evidence.summary import markdown_summary
from tasks.evidence.view import ReportView
from tasks.records import Look, Savings, SequentialResult, Verdict

SAVED = Savings(planned=600, decided=72, used=96, images=1008, usd=26.71)
HEADLINE = SequentialResult(
    name="failure_rate",
    kind="headline",
    images=72,
    failures=7,
    limit=0.02,
    log_e_fail=4.46,
    fail_at=3.69,
    below=0.03,
    log_e_pass=-3.3,
    pass_at=3.0,
    lower=0.024,
    upper=0.224,
    failed=True,
)
CRITICAL = SequentialResult(
    name="subtask=typography",
    kind="slice",
    images=31,
    failures=5,
    limit=0.1,
    log_e_fail=-0.1,
    fail_at=6.8,
    below=0.1,
    log_e_pass=1.5,
    pass_at=3.0,
    images_needed=41,
)
AMBER = SequentialResult(
    name="locale=th",
    kind="slice",
    images=20,
    failures=7,
    limit=0.1,
    log_e_fail=4.1,
    fail_at=6.8,
    lower=0.05,
    upper=0.6,
    amber=True,
)
PLAIN = AMBER.model_copy(update={"name": "locale=fr", "amber": False, "log_e_fail": -1.0})
GUARD = SequentialResult(
    name="limits[0]", kind="guard", images=72, limit=30.0, log_e_fail=0.5, fail_at=6.8
)
PAIRED = SequentialResult(
    name="paired", kind="paired", images=72, failures=-2, limit=0.02, lower=-0.278, upper=0.143
)
LOOKS = (
    Look(shards=1, images=24, failures=2, log_e_fail=0.9, log_e_pass=-1.5, verdict="HOLD"),
    Look(
        shards=2,
        images=48,
        failures=4,
        log_e_fail=2.0,
        log_e_pass=-2.3,
        verdict="HOLD",
        amber=("locale=th",),
    ),
    Look(shards=3, images=48, failures=4, log_e_fail=2.0, log_e_pass=-2.3, verdict="HOLD"),
    Look(shards=4, images=72, failures=7, log_e_fail=4.46, log_e_pass=-3.3, verdict="ROLLBACK"),
)
EARLY = Verdict(
    verdict="ROLLBACK",
    reasons=("9.7 % of 72 images failed.",),
    tests=(HEADLINE, PAIRED, GUARD, PLAIN, AMBER, CRITICAL),
    looks=LOOKS,
    savings=SAVED,
)


@pytest.fixture(scope="module")
def view(builders: ModuleType) -> ReportView:
    return builders.a_view(cases=72, candidate=builders.BROKEN, verdict=EARLY)


@pytest.mark.parametrize(
    ("evidence", "needed", "words"),
    [
        (None, 3.0, "–"),
        (3.0, None, "–"),
        (-2.0, 3.0, "none"),
        (0.0, 3.0, "none"),
        (1.5, 3.0, "50 % of the proof"),
        # What is nearly a proof is none.
        (2.9999, 3.0, "99 % of the proof"),
        (3.0, 3.0, "proven"),
        (30.0, 3.0, "proven"),
    ],
)
def test_evidence_is_told_as_a_share_of_the_proof(
    evidence: float | None, needed: float | None, words: str
) -> None:
    assert share_words(proven(evidence, needed)) == words


def test_cases_that_count_are_told_apart_from_planned_ones() -> None:
    assert images_words(600, 600) == "600 cases"
    assert images_words(72, 600) == "72 of 600 planned cases"
    assert decided_words(EARLY, 72, 600) == "72 of 600 planned cases, decided early"
    stopped = Verdict(verdict="HOLD", reasons=("stopped",))
    assert decided_words(stopped, 72, 600, 24) == (
        "72 of 600 planned cases, and 24 extra of slices that looked bad"
    )


def test_the_tests_that_matter_come_first(view: ReportView) -> None:
    shown = growth(view)
    rows = {row["name"]: row for row in shown["tests"]}
    assert list(rows) == [
        "Failure rate",
        "Against the baseline",
        "effective cost per 1k usd at most 30",
        "locale=th",
        "subtask=typography",
    ]
    assert [row["name"] for row in shown["more"]] == ["locale=fr"]
    assert rows["Failure rate"]["against"] == "proven"
    assert rows["Failure rate"]["needed"] == "cannot be proven any more"
    assert rows["Failure rate"]["interval"] == "2.4 % to 22.4 %"
    assert rows["Against the baseline"]["interval"] == "−27.8 to +14.3 points"
    assert rows["locale=th"]["tags"] == ["looks bad"]
    assert rows["subtask=typography"]["tags"] == ["critical"]
    assert rows["subtask=typography"]["favour"] == "50 % of the proof"
    assert rows["subtask=typography"]["needed"] == "about 41 more images"


def test_looks_tell_what_troubled_them_and_how_the_run_went_on(view: ReportView) -> None:
    shown = growth(view)
    assert [row["note"] for row in shown["looks"]] == [
        "–",
        "locale=th looked bad",
        "after extra cases",
        "–",
    ]
    assert [row["verdict"] for row in shown["looks"]] == ["went on"] * 3 + ["ROLLBACK"]
    assert "decided: ROLLBACK" in shown["chart"]
    label = re.search(r'aria-label="([^"]*)"', shown["chart"])
    assert label is not None
    assert "after 72 images: for rolling back proven, for promoting none" in label[1]


def test_a_slice_that_decided_is_named(view: ReportView) -> None:
    bad = AMBER.model_copy(update={"failed": True, "amber": False})
    calm = HEADLINE.model_copy(update={"failed": False, "log_e_fail": 1.0})
    told = growth(replace(view, verdict=EARLY.model_copy(update={"tests": (calm, bad)})))
    assert told["decider"] == "The failure rate alone did not decide; what did: locale=th."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"looks": (), "savings": None}, "looked at once, at the end of the plan"),
        ({"looks": (), "tests": (), "savings": None}, "keeps no sequential tests"),
        ({"tests": ()}, "keeps no sequential tests"),
    ],
)
def test_a_verdict_without_looks_or_tests_has_its_section(
    view: ReportView, changes: dict[str, object], said: str
) -> None:
    html = render_report(replace(view, verdict=EARLY.model_copy(update=changes)))
    section = html[html.index('id="growth"') : html.index('id="accounts"')]
    assert said in section
    assert "<svg" not in section


def test_the_report_says_what_was_counted_and_what_was_saved(view: ReportView) -> None:
    plan = view.plan.model_copy(
        update={"cases": view.plan.cases * 2, "run_id": "r"},
    )
    html = render_report(replace(view, plan=plan))
    assert "72 of 144 planned cases, decided early, in two arms" in html
    assert "Saved by deciding early" in html
    assert "$26.71" in html
    assert "24 more were under way at that moment" in html
    assert "exact interval" not in html
    assert "confidence sequence" in html


def test_extra_cases_are_explained_only_where_there_are_any(view: ReportView) -> None:
    assert "extra cases were drawn" not in render_report(view)
    candidate = view.metrics.candidate.model_copy(update={"extra_images": 24})
    metrics = view.metrics.model_copy(update={"candidate": candidate})
    html = render_report(replace(view, metrics=metrics))
    assert "24 extra cases were drawn because their slice looked bad" in html
    # All that were generated are counted or extra: nothing was paid for nothing.
    assert "under way" not in html


def test_spend_counts_what_decided_nothing_too(view: ReportView) -> None:
    counted = view.metrics.baseline.spend_usd + view.metrics.candidate.spend_usd
    shown = {card["title"]: card for card in cards.cards(replace(view, spent_usd=counted + 1.25))}
    assert shown["Spent by this run"]["single"] == f"${counted + 1.25:,.2f}"
    assert "$1.25 on cases that do not count" in shown["Spent by this run"]["note"]
    late = replace(view, verdict=EARLY.model_copy(update={"savings": None}))
    assert "Saved by deciding early" not in {card["title"] for card in cards.cards(late)}


def test_every_reader_is_told_the_saving_in_one_line(view: ReportView) -> None:
    line = "$26.71 and 1,008 images saved: 72 of 600 planned cases decided it"
    assert saved_words(SAVED) == line
    assert saved_words(None) == ""
    assert "72 of 600 planned cases decided it" in markdown_summary(view)


def test_ci_is_told_the_saving(view: ReportView, builders: ModuleType) -> None:
    from tasks.evidence.ci_cases import CiFacts

    facts = CiFacts(
        run_id="r",
        product="p",
        candidate="c",
        baseline="b",
        policy=view.plan.policy,
        metrics=view.metrics,
        verdict=EARLY,
        expectations=(),
        findings={},
        incomplete=False,
        spend_usd=3.0,
        seconds=1.0,
    )
    assert properties_of(facts)["saved_usd"] == "26.71"
    assert properties_of(facts)["images_planned"] == "600"
    assert "saved: 72 of 600 planned cases decided it" in job_summary(facts)


points = st.builds(
    Point,
    images=st.integers(0, 100_000),
    against=st.floats(0, 1e4),
    favour=st.floats(0, 1e4),
    title=st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=20),
    amber=st.booleans(),
    after_extra=st.booleans(),
    decided=st.sampled_from(["", "decided: PROMOTE"]),
)


@given(st.lists(points, min_size=1, max_size=90))
def test_any_looks_are_drawn_inside_the_picture(looks: list[Point]) -> None:
    svg = str(growth_chart(looks, 'a "label" <of> it'))
    root = ET.fromstring(svg)  # noqa: S314 - our own drawing
    height = float(root.attrib["height"])
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(value) <= height, (element.tag, name)
            if name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(value.rstrip("%")) <= 100, (element.tag, name)
    for place in re.findall(r"[ML]([\d.]+) ([\d.]+)", svg):
        assert 0 <= float(place[0]) <= 1000
        assert 0 <= float(place[1]) <= height
    assert "nan" not in svg


def test_limits_are_the_policys_with_what_proves_them_beside(view: ReportView) -> None:
    test = SequentialResult(
        name="failure_rate", kind="headline", images=240, failures=2, limit=0.02, below=0.03
    )
    assert _limits(view, test) == "rolled back above 2 %, promoted below 3 %"
    moved = test.model_copy(update={"limit": 0.0347, "below": 0.0264})
    assert _limits(view, moved) == (
        "rolled back above 2 % (proven on 3.5 %, since checks accuse some good pictures), "
        "promoted below 3 % (proven on 2.6 %, since the checks miss some defects)"
    )
