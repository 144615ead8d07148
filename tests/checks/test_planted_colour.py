from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest

from tasks.checks.base import Check, Expected, Picture
from tasks.checks.colour import Cast, Palette
from tasks.checks.colour_channels import Channels
from tasks.checks.decode import decode
from tasks.checks.exposure import Contrast, Exposure
from tasks.checks.planted_base import Defect, Good, Planted, encoded
from tasks.checks.planted_colour import DEFECTS, as_edit, edited, exchanged
from tasks.checks.planted_good import drawn
from tasks.checks.planted_pixels import left_over, tinted

CHECKS: tuple[Check, ...] = (Cast(), Channels(), Palette(), Exposure(), Contrast())
BY_NAME = {check.name: check for check in CHECKS}


def shown(made: Good | Planted) -> Picture:
    picture = decode(made.data, Expected()).picture
    assert picture is not None
    read = {role: decode(file, Expected()).picture for role, file in made.references.items()}
    assert None not in read.values()
    return replace(picture, references={role: p.rgb for role, p in read.items() if p})


@pytest.fixture(scope="module")
def goods() -> list[Good]:
    branded = [good for good in (drawn(3, n) for n in range(20)) if good.brand and good.job]
    return [*branded[:5], *(edited(3, n) for n in range(2))]


def test_good_pictures_pass(goods: list[Good]) -> None:
    for good in goods:
        for check in CHECKS:
            found = check.run(shown(good), good.expected)
            assert found.verdict != "fail", (good.name, found)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_nearly_all_are_found_at_the_default_strength(defect: Defect, goods: list[Good]) -> None:
    rng = np.random.default_rng(1)
    planted = [defect.plant(good, defect.strength, rng) for good in goods]
    bad = [one for one in planted if one is not None]
    assert len(bad) >= 4
    verdicts = [BY_NAME[defect.check].run(shown(one), one.expected).verdict for one in bad]
    assert verdicts.count("fail") >= 0.8 * len(bad), verdicts
    weak = [defect.plant(good, 0.02, rng) for good in goods]
    said = [BY_NAME[defect.check].run(shown(one), one.expected).verdict for one in weak if one]
    assert "fail" not in said


def test_the_same_seed_gives_the_same_edit() -> None:
    assert edited(3, 1).data == edited(3, 1).data
    assert edited(3, 1).data != edited(4, 1).data


def test_any_picture_can_be_its_own_upload() -> None:
    good = drawn(3, 0)
    edit = as_edit(good)
    assert edit.data == edit.references["upload"]
    assert edit.expected.subtask == "edit"
    assert edit.expected.brand is None


@pytest.mark.parametrize(
    ("light", "change", "share"),
    [
        ((0.3, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0),  # The edit left the light alone.
        ((0.3, 0.0, 0.0), (-0.3, 0.0, 0.0), 0.0),  # Back to the upload's.
        ((0.3, 0.0, 0.0), (-0.6, 0.0, 0.0), 0.0),  # Half of the way back.
        ((0.3, 0.0, 0.0), (-0.15, 0.0, 0.0), 0.5),  # Back, and as far again.
        ((0.3, 0.0, 0.0), (0.3, 0.0, 0.0), 1.0),  # On, beyond the edit's.
        ((0.3, 0.1, 0.1), (0.0, 0.0, 0.0), 1.0),  # How bright it is does not count.
    ],
)
def test_how_much_of_a_light_is_no_way_back(
    light: tuple[float, ...], change: tuple[float, ...], share: float
) -> None:
    assert left_over(np.array(light), np.array(change)) == pytest.approx(share, abs=0.01)


def test_a_cast_planted_beside_an_upload_is_no_correction() -> None:
    shown_hues = set()
    good = edited(3, 0)
    for seed in range(12):
        made = tinted(good, 0.6, np.random.default_rng(seed))
        assert made is not None
        gains = shown(made).rgb.mean(axis=(0, 1)) / good.rgb.mean(axis=(0, 1))
        assert gains.min() == pytest.approx(0.7, abs=0.02)
        tints = [np.ptp(np.log(rgb.mean(axis=(0, 1)))) for rgb in (good.rgb, shown(made).rgb)]
        assert tints[1] >= tints[0] - 0.01
        shown_hues.add(int(gains.argmin()))
    # A reddish picture gets no cyan light, and still more than one kind.
    assert len(shown_hues) >= 2


def test_a_blue_picture_gets_no_yellow_light() -> None:
    lamp = np.full((96, 96, 3), (90, 90, 235), np.uint8)
    lamp[:, 48:] //= 2
    good = as_edit(replace(drawn(3, 0), make=lambda: encoded(lamp, "PNG")))
    made = [tinted(good, 0.6, np.random.default_rng(seed)) for seed in range(12)]
    colours = [shown(one).rgb[10, 10].tolist() for one in made if one is not None]
    assert len(colours) >= 10
    assert [c for c in colours if c[2] < 200 and min(c[:2]) > 80] == []


def test_nothing_is_planted_where_it_cannot_be_told() -> None:
    plain = next(good for good in (drawn(3, n) for n in count()) if good.brand is None)
    assert exchanged(plain, 1.0, np.random.default_rng(0)) is None
    plants = {defect.name: defect.plant for defect in DEFECTS}
    assert plants["hues turned"](plain, 1.0, np.random.default_rng(0)) is None
    grey = replace(plain, make=lambda: plain.planted(np.full((200, 200, 3), 90, np.uint8)).data)
    seeds = islice(count(), 4)
    assert {plants["channels of an edit"](grey, 1.0, np.random.default_rng(s)) for s in seeds} == {
        None
    }
