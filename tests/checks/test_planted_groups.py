"""Groups that are known to be good, and what is planted in them: the truth, not only the counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.checks import consistency, duplicates
from tasks.checks.base import Expected
from tasks.checks.consistency import CAMPAIGN, REPEAT, SEED
from tasks.checks.decode import decode
from tasks.checks.planted import APART, BY_POLICY, DEFECTS, judge, look_at_good, measure, plant
from tasks.checks.planted_base import Defect, Good, Planted
from tasks.checks.planted_good import drawn, from_file
from tasks.checks.planted_groups import CHECKS, grouped, hues_by
from tasks.providers.embedded.draws import generator
from tests.checks.drawing import encoded, scene

GOODS = [drawn(4, number) for number in (0, 1, 2, 4, 6, 8)]
EXTRA = "typography.extra"


def kind(name: str) -> Defect:
    return next(defect for defect in DEFECTS if defect.name == name)


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = decode(data, Expected()).picture
    assert picture is not None
    return picture.rgb


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_group_passes_and_is_made_once(check: str) -> None:
    for good in (GOODS[0], GOODS[1], GOODS[3]):
        group = grouped(check, good)
        assert group is not None
        assert grouped(check, good) is group
        assert len(group.beside) == {CAMPAIGN: 4, REPEAT: 9, SEED: 3}[check]
        assert len({*group.beside, group.data}) == len(group.beside) + 1
        assert judge(check, group.whole) == "pass", good.name


def test_groups_are_planted_and_found() -> None:
    for found in measure(GOODS, BY_POLICY):
        assert found.planted >= 3, found
        assert found.found == found.planted, found
        assert found.clean.alarms == 0, found
        assert found.clean.faults == 0
        assert found.clean.clean >= 3, found


def test_a_quick_look_makes_groups_of_one_picture_in_four() -> None:
    goods = [drawn(4, 12 * number) for number in range(40)]
    (quick,) = look_at_good(goods, [SEED], every_kind=False)
    assert 4 <= quick.clean <= 16
    again = measure([drawn(4, 12 * n) for n in range(40)], [SEED], every_kind=False)
    assert (again[0].clean.clean, again[0].planted) == (quick.clean, quick.clean)


def test_one_picture_for_all_seeds_is_the_same_to_the_eye_and_not_the_same_file() -> None:
    shown = kind("one picture for all seeds").plant(GOODS[0], 1.0, generator(1))
    assert shown is not None
    files = (*shown.earlier, shown.data)
    assert len(set(files)) == 4
    first = pixels(files[0]).astype(float)
    assert all(np.abs(pixels(file) - first).mean() < 6 for file in files)
    # One that differs is enough: seeds do something.
    other = grouped(SEED, GOODS[1])
    assert other is not None
    assert judge(SEED, replace(shown, data=other.data)) == "pass"


def test_turned_hues_are_as_bright_and_a_grey_picture_is_left_alone() -> None:
    group = grouped(REPEAT, GOODS[0])
    assert group is not None
    turned = hues_by(group.rgb, 2.0)
    assert abs(float(turned.mean()) - float(group.rgb.mean())) < 25
    assert np.abs(turned.astype(int) - group.rgb).mean() > 5
    grey = scene(300, 300).convert("L").convert("RGB")
    good = Good("grey", Expected(), lambda: encoded(grey))
    assert kind("repeat in other colours").plant(good, 1.0, generator(1)) is None
    # Its layout can be turned all the same.
    assert kind("member laid out otherwise").plant(good, 1.0, generator(1)) is not None


def test_pictures_that_are_not_ours_become_groups_too(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(encoded(scene(500, 400, seed=5), "JPEG", quality=92))
    good = from_file(file, Expected(prompt="a tree"))
    for check in (CAMPAIGN, REPEAT, SEED):
        group = grouped(check, good)
        assert group is not None
        assert judge(check, group.whole) == "pass"
    same = kind("one picture for all seeds").plant(good, 1.0, generator(1))
    assert same is not None
    assert judge(SEED, same) == "fail"
    # An edit is of its upload, whatever the seed.
    assert grouped(SEED, replace(good, references={"upload": file.read_bytes()})) is None
    found = plant(kind("stranger in a campaign"), [good])
    assert found.planted == 1


def test_a_member_that_does_not_decode_is_not_judged() -> None:
    group = grouped(CAMPAIGN, GOODS[0])
    assert group is not None
    assert judge(CAMPAIGN, replace(group.whole, earlier=(b"no picture", *group.beside))) == "skip"
    assert judge(CAMPAIGN, Planted(group.data, Expected(), earlier=group.beside[:1])) == "skip"


def test_a_line_more_is_one_that_nobody_asked_for() -> None:
    good = next(good for good in GOODS if good.expected.intended_text)
    shown = kind("one line more").plant(good, 1.0, generator(2))
    assert shown is not None
    assert shown.expected == good.expected
    assert judge(EXTRA, shown) == "fail"
    assert judge("typography.text", shown) == "pass"
    assert judge(EXTRA, good.whole) == "pass"
    # In a picture of people one of its texts is asked for no more.
    real = Good("photo", replace(good.expected, intended_text=("OPEN", "DAILY")), bytes)
    asked = kind("one line more").plant(real, 1.0, generator(2))
    assert asked is not None
    assert asked.expected.intended_text == ("OPEN",)
    single = Good("photo", replace(good.expected, intended_text=("OPEN",)), bytes)
    assert kind("one line more").plant(single, 1.0, generator(2)) is None
    bare = Good("photo", Expected(), bytes)
    assert kind("one line more").plant(bare, 1.0, generator(2)) is None


def test_what_is_judged_apart_flags_no_good_picture_for_the_rest() -> None:
    assert BY_POLICY < APART
    assert duplicates.CHECK in APART
    assert {consistency.CAMPAIGN, consistency.REPEAT, consistency.SEED, EXTRA} == BY_POLICY
    from tasks.checks.health import _flagged

    good = Good("one", Expected(), bytes)
    good.verdicts.update({EXTRA: "fail", CAMPAIGN: "fail"})
    other = Good("two", Expected(), bytes)
    other.verdicts.update({"geometry.size": "fail"})
    assert (_flagged([good, other]).alarms, _flagged([good, other]).clean) == (1, 2)
