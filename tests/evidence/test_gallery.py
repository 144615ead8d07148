"""The gallery's data: every failure once, new ones first, sizes bounded, order kept."""

import json
from types import ModuleType

import pytest

from tasks.evidence import gallery as module
from tasks.evidence.gallery import gallery, select, wanted_pictures
from tasks.evidence.view import ReportView, Thumb, picture_key
from tasks.records import Region


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
