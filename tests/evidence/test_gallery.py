"""The gallery's data: every failure once, new ones first, sizes bounded, order kept."""

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from tasks.evidence import gallery as module
from tasks.evidence.findings import MOST_CROPS, crop_frame, crops
from tasks.evidence.gallery import Wanted, gallery, select, wanted_pictures
from tasks.evidence.present import checks
from tasks.evidence.rules import rule_words
from tasks.evidence.view import ReportView, Thumb, picture_key
from tasks.records import Finding, ImageReport, Region


@pytest.fixture(scope="module")
def view(builders: ModuleType) -> ReportView:
    return builders.a_view(cases=200, candidate=builders.BROKEN)


def test_every_failing_case_is_there_once_and_new_failures_come_first(view: ReportView) -> None:
    selection = select(view)
    failing = {o.case_id for o in view.outcomes if o.failed or o.outcome == "unmeasured"}
    listed = [entry.case.case_id for entry in selection.failing]
    assert sorted(listed) == sorted(failing)
    assert selection.total == len(failing)
    changes = [entry.change for entry in selection.failing]
    assert set(changes) == {"new", "both", "unmeasured", "fixed"}
    assert changes == sorted(changes, key=["new", "both", "unmeasured", "fixed"].index)


def test_the_change_says_which_arm_failed(view: ReportView) -> None:
    failed = {(o.arm, o.case_id) for o in view.outcomes if o.failed}
    for entry in select(view).failing:
        arms = {arm for arm in ("baseline", "candidate") if (arm, entry.case.case_id) in failed}
        expected = {
            "new": {"candidate"},
            "both": {"baseline", "candidate"},
            "fixed": {"baseline"},
        }
        if entry.change != "unmeasured":
            assert arms == expected[entry.change]


def test_the_passing_sample_passes_and_is_spread(view: ReportView) -> None:
    passing = select(view).passing
    assert len(passing) == module.MOST_PASSING
    assert all(entry.outcomes["candidate"].outcome == "ok" for entry in passing)
    assert len({entry.case.subtask for entry in passing}) >= 3
    assert [e.case.case_id for e in passing] == [e.case.case_id for e in select(view).passing]


def test_failing_pictures_are_wanted_before_all_others(view: ReportView) -> None:
    wanted = wanted_pictures(view, select(view))
    assert len(wanted) == len(set(wanted))
    bad = {(o.arm, o.case_id) for o in view.outcomes if o.failed or o.outcome == "unmeasured"}
    telling = {
        g.image_digest for g in view.generations if (g.arm, g.case_id) in bad and g.image_digest
    }
    whole = [w.digest for w in wanted if w.region is None]
    assert set(whole[: len(telling)]) == telling
    assert any(w.region is not None for w in wanted)


def test_a_marked_part_has_its_own_name() -> None:
    region = Region(x=1, y=2, width=3, height=4)
    assert picture_key("sha256:aa", region) == "sha256:aa#1,2,3,4"
    assert picture_key("sha256:aa") == "sha256:aa"


def test_lists_are_cut_and_say_so(view: ReportView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LISTED", 7)
    monkeypatch.setattr(module, "MOST_PICTURED", 3)
    selection = select(view)
    assert len(selection.failing) == 7 < selection.total
    data = gallery(view, selection)
    assert (len(data["items"]), data["pictured"]) == (7, 3)
    assert data["total"] == selection.total


def test_hostile_and_endless_texts_are_bounded_and_visible(builders: ModuleType) -> None:
    view = builders.a_view(cases=4, hostile=True)
    data = gallery(view, select(view))
    items = {item["id"]: item for item in data["items"]}
    hostile, long = items["case-00000"], items["case-00001"]
    assert "⟨U+202E⟩" in hostile["prompt"]
    assert "\u202e" not in json.dumps(data, ensure_ascii=False)
    assert len(long["prompt"]) == module.PROMPT_PICTURED
    assert long["length"] == len("long <b>" + "x " * 16_000)
    json.dumps(data).encode("utf-8")
    assert len(json.dumps(items["case-00001"])) < 10_000


def test_only_thumbnails_that_are_used_are_embedded(builders: ModuleType) -> None:
    view = builders.a_view(cases=40)
    digests = [g.image_digest for g in view.generations if g.image_digest]
    thumbs = {digest: Thumb(data=digest.encode()) for digest in digests}
    with_thumbs = builders.a_view(cases=40)
    data = gallery(
        ReportView(
            **{f: getattr(with_thumbs, f) for f in ReportView.__slots__} | {"thumbs": thumbs}
        ),
        select(view),
    )
    shown = {
        side["img"] for item in data["items"] for side in item["arms"].values() if "img" in side
    }
    assert set(data["thumbs"]) == shown


def test_the_text_comparison_needs_a_reader(builders: ModuleType) -> None:
    view = builders.a_view(cases=300)
    for item in gallery(view, select(view))["items"]:
        for side in item["arms"].values():
            if "texts" in side:
                assert "w" in side, "a file that does not decode has no text to compare"


def marked(**changes: Any) -> Finding:
    return Finding(
        **{
            "check": "typography.text",
            "version": "3",
            "verdict": "fail",
            "score": 0.875,
            "limit": 1.0,
            "message": "minor: 'SALE' is misspelt: read 'SALF'",
            "region": Region(x=10, y=10, width=50, height=20),
        }
        | changes
    )


def seen(*findings: Finding, read: tuple[str, ...] = ("SALF",)) -> ImageReport:
    return ImageReport(findings=findings, read_text=read, width=400, height=300)


def one_case(view: ReportView, report: ImageReport, **changes: Any) -> tuple[ReportView, Any]:
    """Return a view whose first candidate picture has this report, and what the gallery says."""
    first = view.plan.cases[0].model_copy(update={"expected_text": ("SALE",), **changes})
    key = ("candidate", first.case_id)
    generations = [
        g.model_copy(
            update={
                "status": "ok",
                "failure": None,
                "image_digest": "sha256:aa",
                "source_digest": "sha256:bb" if first.subtask == "upscale" else None,
            }
        )
        if (g.arm, g.case_id) == key
        else g
        for g in view.generations
    ]
    outcomes = [
        o.model_copy(update={"outcome": "defect", "failed": True, "reasons": ("typography.text",)})
        if (o.arm, o.case_id) == key
        else o
        for o in view.outcomes
    ]
    plan = view.plan.model_copy(update={"cases": (first, *view.plan.cases[1:])})
    changed = replace(
        view,
        plan=plan,
        generations=generations,
        outcomes=outcomes,
        reports={**view.reports, key: report},
    )
    items = gallery(changed, select(changed))["items"]
    return changed, next(item for item in items if item["id"] == first.case_id)


@pytest.mark.parametrize("confirmed", [True, False, None])
def test_a_flag_says_its_rule_and_what_the_second_reader_says(
    view: ReportView, confirmed: bool | None
) -> None:
    _, item = one_case(view, seen(marked(confirmed=confirmed)))
    side = item["arms"]["candidate"]
    (finding,) = side["findings"]
    assert (finding["version"], finding["score"], finding["limit"]) == ("3", 0.875, 1.0)
    assert "lower" not in finding
    assert finding["confirmed"] is confirmed
    assert finding["region"] == [10, 10, 50, 20]
    assert side["texts"] == [[["=", "SAL"], ["~", "E", "F"]]]


def test_severity_and_unrequested_text_are_shown_apart(view: ReportView) -> None:
    lines = [f"line {n}" for n in range(8)]
    report = seen(marked()).model_copy(
        update={"text_severity": ("minor",), "extra_text": ("Shut \u202e", *lines)}
    )
    _, item = one_case(view, report)
    side = item["arms"]["candidate"]
    assert side["severity"] == ["minor"]
    assert side["extra"] == ["Shut ⟨U+202E⟩", *lines[:5]]
    assert side["extra_more"] == 3
    _, plain = one_case(view, seen(marked()))
    assert not {"severity", "extra", "extra_more"} & set(plain["arms"]["candidate"])


def test_what_is_only_told_says_so_and_blames_no_check(view: ReportView) -> None:
    stray = marked(check="consistency.campaign", message="other colours than the campaign")
    changed, item = one_case(view, seen(marked(), stray))
    text, told = item["arms"]["candidate"]["findings"]
    assert "told" not in text
    assert told["told"] is True
    rows = {row["name"]: row["told"] for row in checks(changed)}
    assert (rows["typography.text"], rows["consistency.campaign"]) == (False, True)


def test_only_text_is_said_to_have_one_reader(view: ReportView) -> None:
    finding = marked(check="colour.cast", score=14.2, limit=12, higher_is_better=False)
    _, item = one_case(view, seen(finding))
    (shown,) = item["arms"]["candidate"]["findings"]
    assert "confirmed" not in shown
    assert shown["lower"] is True


def test_text_that_was_found_is_not_marked(view: ReportView) -> None:
    passed = marked(verdict="pass", message="", region=None)
    cast = marked(check="colour.cast")
    _, item = one_case(view, seen(passed, cast))
    assert item["arms"]["candidate"]["right"] is True
    assert "texts" not in item["arms"]["candidate"]
    # Found at another look than the one whose lines are kept.
    report = seen(marked(), read=("SALF", "Bred"))
    _, item = one_case(view, report, expected_text=("SALE", "Bread"))
    assert item["arms"]["candidate"]["texts"][1] == [["=", "Bread"]]


def test_text_that_nobody_could_read_says_why(view: ReportView) -> None:
    skipped = marked(verdict="skip", message="not covered: no reader for 'x'", region=None)
    _, item = one_case(view, seen(skipped, marked(check="colour.cast"), read=()))
    assert item["arms"]["candidate"]["unjudged"].startswith("not covered")
    assert "texts" not in item["arms"]["candidate"]


def test_what_a_picture_was_made_from_stands_beside_it(view: ReportView) -> None:
    report = seen(marked())
    edit, item = one_case(
        view, report, subtask="edit", upload="uploads/mug.jpg", mask="uploads/mask.png"
    )
    assert (item["upload"], item["mask"]) == ("input:uploads/mug.jpg", "input:uploads/mask.png")
    wanted = wanted_pictures(edit, select(edit))
    assert {Wanted(file="uploads/mug.jpg"), Wanted(file="uploads/mask.png")} < set(wanted)
    larger, item = one_case(view, report, subtask="upscale")
    assert item["arms"]["candidate"]["source"] == "sha256:bb"
    assert Wanted("sha256:bb") in wanted_pictures(larger, select(larger))
    thumbs = {key: Thumb(data=b"x") for key in ("sha256:aa", "sha256:bb")}
    assert set(gallery(replace(larger, thumbs=thumbs), select(larger))["thumbs"]) == set(thumbs)


def test_marked_parts_are_cut_out_once_and_only_where_it_helps() -> None:
    def at(x: int, **changes: Any) -> Finding:
        return marked(region=Region(x=x, y=10, width=50, height=20), **changes)

    whole = marked(region=Region(x=0, y=0, width=400, height=300))
    outside = marked(region=Region(x=900, y=0, width=10, height=10))
    report = seen(whole, outside, at(1), at(1, check="colour.cast"), at(70), at(140), at(210))
    assert [region.x for region in crops(report)] == [1, 70, 140]
    assert len(crops(report)) == MOST_CROPS
    assert crop_frame(Region(x=0, y=0, width=120, height=10), 400, 300) == (0, 0, 140, 30)
    assert crops(None) == []


def test_rules_have_words() -> None:
    assert rule_words("typography.text") == "Text as asked, letter by letter"
    assert rule_words("delivery.transport") == "A picture was delivered"
    assert rule_words("acme.house_style") == "acme: house style"
    assert rule_words("plain") == "plain"


def test_every_name_shown_has_words(view: ReportView) -> None:
    data = gallery(view, select(view))
    reasons = {r for i in data["items"] for s in i["arms"].values() for r in s.get("reasons", [])}
    assert reasons | set(data["checks"]) == set(data["words"])
