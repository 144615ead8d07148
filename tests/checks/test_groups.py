"""Pictures that are judged together: by what is kept of each, without the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.check_rules import ConsistencyRules
from tasks.checks import duplicates, suite
from tasks.checks.base import Expected
from tasks.checks.consistency import REPEAT, Norm
from tasks.checks.groups import Members, group_findings, judge_groups, repeat_norm, tally
from tasks.checks.manifest import Entry, together
from tasks.checks.suite import check_picture, expected_for
from tasks.expectations.groups import group_results
from tasks.records import Case, Finding, Generation, ImageReport
from tests.checks.drawing import encoded, poster, scene

RULES = ConsistencyRules()


def tinted(image: Image.Image, *gains: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * gains, 0, 255).astype(np.uint8))


def case(case_id: str, **fields: Any) -> Case:
    values: dict[str, Any] = {"prompt": case_id, "subtask": "creative"}
    return Case(case_id=case_id, **(values | fields))


def seen(image: Image.Image) -> ImageReport:
    return check_picture(encoded(image), Expected(grouped=True))


def verdicts(found: dict[str, tuple[Finding, ...]], check: str) -> dict[str, str]:
    return {
        case_id: f.verdict
        for case_id, findings in found.items()
        for f in findings
        if f.check == f"consistency.{check}"
    }


POSTERS = {text: poster(text) for text in ("Fresh Bread", "Every Day", "Good Coffee", "Open Late")}


def campaign(**more: Image.Image) -> Members:
    return [
        (case(name, campaign="summer"), seen(image)) for name, image in (POSTERS | more).items()
    ]


def test_only_pictures_of_a_group_cost_a_look() -> None:
    made = Generation(
        run_id="r", arm="candidate", mix_digest="d", case_id="a", seed=1, models=("m",), status="ok"
    )
    for fields, grouped in (({}, False), ({"campaign": "x"}, True), ({"repeat": 0}, True)):
        expected = expected_for(case("a", **fields), made)
        assert expected.grouped is grouped
        assert bool(check_picture(encoded(scene(64, 64)), expected).look) is grouped


def test_the_stranger_in_a_campaign_is_named() -> None:
    members = campaign(Odd=tinted(poster("Closed"), 0.3, 0.5, 1.0))
    found = judge_groups(members, RULES, None)
    assert verdicts(found, "campaign") == dict.fromkeys(POSTERS, "pass") | {"Odd": "fail"}
    loose = RULES.model_copy(update={"campaign_palette": 100.0, "campaign_layout": None})
    wide = judge_groups(campaign(Odd=poster("Closed").rotate(180)), loose, None)
    assert set(verdicts(wide, "campaign").values()) == {"pass"}


def test_one_picture_for_many_prompts_is_found_but_not_within_a_campaign_or_among_edits() -> None:
    same = seen(scene(seed=3))
    for fields, expected in (
        ({}, {"a": "pass", "b": "fail", "c": "fail"}),
        ({"campaign": "summer"}, dict.fromkeys("abc", "pass")),
        ({"subtask": "edit", "upload": "uploads/u.png"}, {}),
    ):
        members = [(case(name, **fields), same) for name in "abc"]
        assert verdicts(judge_groups(members, RULES, None), "near_duplicate") == expected
    apart = [(case(name, campaign=name), same) for name in "ab"]
    assert verdicts(judge_groups(apart, RULES, None), "near_duplicate")["b"] == "fail"


def repeats(*images: Image.Image, prompt: str = "p") -> Members:
    return [
        (case(f"{prompt}{n}", prompt=prompt, repeat=n), seen(image))
        for n, image in enumerate(images)
    ]


LIKE = [tinted(scene(seed=8), 1.0, gain, 1.0) for gain in (0.98, 0.99, 1.0, 1.01, 1.02)]


def test_repeats_are_held_against_what_the_baseline_does() -> None:
    strays = repeats(*LIKE, tinted(scene(seed=8), 0.3, 0.5, 1.0))
    reports = {("baseline", c.case_id): r for c, r in repeats(*LIKE)}
    reports |= {("candidate", c.case_id): r for c, r in strays}
    cases = [c for c, _ in strays]
    found = group_findings(cases, reports, RULES)  # type: ignore[arg-type]
    candidate = {c: f for (arm, c), f in found.items() if arm == "candidate"}
    wanted = dict.fromkeys((f"p{n}" for n in range(5)), "pass") | {"p5": "fail"}
    assert verdicts(candidate, "repeat") == wanted
    baseline = {c: f for (arm, c), f in found.items() if arm == "baseline"}
    assert set(verdicts(baseline, "repeat").values()) == {"pass"}


def test_without_a_norm_repeats_are_not_judged_and_the_policy_can_give_one() -> None:
    found = judge_groups(repeats(*LIKE), RULES, repeat_norm([], RULES))
    assert set(verdicts(found, "repeat").values()) == {"skip"}
    named = RULES.model_copy(update={"repeat_palette": 30.0})
    assert repeat_norm([], named) == Norm(30.0, None)
    floor = RULES.repeat_floor
    assert repeat_norm(repeats(*LIKE), RULES) == Norm(floor, floor)
    assert repeat_norm(repeats(*LIKE), named) == Norm(30.0, floor)


def test_repeats_of_a_manifest_are_held_to_the_others_of_their_prompt() -> None:
    members = repeats(*LIKE[:4], tinted(scene(seed=8), 0.3, 0.5, 1.0))
    pairs = [
        (Entry(c.case_id, "a.png", Path("a.png"), Expected(prompt="p"), repeat=c.repeat), report)
        for c, report in members
    ]

    def found(rules: ConsistencyRules) -> list[str]:
        return [f.verdict for each in together(pairs, rules) for f in each if f.check == REPEAT]

    assert found(RULES) == ["pass"] * 4 + ["fail"]
    loose = RULES.model_copy(update={"repeat_palette": 90.0})
    assert found(loose) == ["pass"] * 5


def test_repeats_that_no_seed_changes_are_all_accused() -> None:
    found = judge_groups(repeats(*[scene(seed=4)] * 3), RULES, Norm(10.0, 10.0))
    assert verdicts(found, "seed") == dict.fromkeys(("p0", "p1", "p2"), "fail")
    different = judge_groups(repeats(*[scene(seed=n) for n in range(3)]), RULES, Norm(100.0, 100.0))
    assert set(verdicts(different, "seed").values()) == {"pass"}
    two_prompts = [*repeats(*[scene(seed=4)] * 2), *repeats(scene(seed=4), prompt="q")]
    assert set(verdicts(judge_groups(two_prompts, RULES, Norm(9.0, 9.0)), "seed").values()) == {
        "skip"
    }


@pytest.mark.parametrize("look", ["", "00ff", "zz"])
def test_a_picture_without_a_sound_look_is_in_no_group(look: str) -> None:
    members = [(c, r.model_copy(update={"look": look})) for c, r in campaign()]
    assert verdicts(judge_groups(members, RULES, None), "campaign") == {}


def test_only_what_is_wanted_is_looked_for() -> None:
    found = judge_groups(campaign(), RULES, None, kinds=("campaign",))
    assert {f.check for findings in found.values() for f in findings} == {"consistency.campaign"}


def test_findings_are_counted_by_arm() -> None:
    members = campaign(Odd=tinted(poster("Closed"), 0.3, 0.5, 1.0))
    cases = [c for c, _ in members]
    reports: Any = {("candidate", c.case_id): r for c, r in members}
    found = group_findings(cases, reports, RULES)
    told = {k: r.model_copy(update={"findings": found[k]}) for k, r in reports.items()}
    counted = tally(told, "candidate", "consistency.campaign")
    assert (counted.judged, counted.failed) == (5, ("Odd",))
    assert "colours" in counted.said
    assert tally(told, "baseline", "consistency.campaign").judged == 0


@pytest.mark.parametrize("broken", ["fingerprint", "look"])
def test_a_picture_whose_mark_breaks_is_a_fault_and_not_left_out(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(_rgb: object) -> str:
        raise MemoryError("no room")

    if broken == "fingerprint":
        monkeypatch.setattr(duplicates, "fingerprint", fail)
    else:
        monkeypatch.setattr(suite, "look_of", fail)
    report = seen(POSTERS["Every Day"])
    faults = {f.check for f in report.findings if f.verdict == "fault"}
    names = ("near_duplicate",) if broken == "fingerprint" else ("campaign", "repeat")
    assert faults == {f"consistency.{name}" for name in names}
    for kind in names:
        rules = ConsistencyRules.model_validate({kind: "hold"})
        (told,) = [
            result
            for result in group_results(rules, {("candidate", "a"): report})
            if result.source == f"checks.consistency.{kind}"
        ]
        assert not told.success
        assert "broke on 1 more" in told.sentence


def test_a_picture_that_does_not_decode_is_no_fault_of_its_group() -> None:
    report = check_picture(b"no picture", Expected(grouped=True))
    assert not any(f.verdict == "fault" for f in report.findings)
