import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.checks.consistency import (
    Look,
    campaign,
    layout_likeness,
    look,
    palette_distance,
    repeats,
    seeds_ignored,
    spread,
    tolerance_from,
    unpacked,
)
from tests.checks.drawing import poster, scene


def seen(image: Image.Image) -> Look:
    return look(np.asarray(image.convert("RGB")))


def tinted(image: Image.Image, *gains: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * gains, 0, 255).astype(np.uint8))


def set_of_posters() -> list[tuple[str, Look]]:
    texts = ("Fresh Bread", "Every Day", "Good Coffee", "Open Late", "Come in")
    return [(text, seen(poster(text))) for text in texts]


def test_a_look_survives_its_record() -> None:
    one = seen(scene(seed=2))
    again = unpacked(one.packed())
    assert palette_distance(one, again) < 0.1
    assert layout_likeness(one, again) == pytest.approx(1.0, abs=0.01)
    assert again.packed() == one.packed()
    with pytest.raises(ValueError, match="look"):
        unpacked("00ff")


def test_a_look_survives_scaling_and_slight_noise() -> None:
    image = scene(seed=4)
    rng = np.random.default_rng(1)
    noisy = np.clip(np.asarray(image) + rng.normal(0, 5, (512, 512, 3)), 0, 255).astype(np.uint8)
    for other in (image.resize((300, 300)), Image.fromarray(noisy)):
        assert palette_distance(seen(image), seen(other)) < 4
        assert layout_likeness(seen(image), seen(other)) > 0.95


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_distances_are_symmetric_and_zero_for_the_same(first: int, second: int) -> None:
    one, two = seen(scene(96, 96, first)), seen(scene(96, 96, second))
    assert palette_distance(one, two) == pytest.approx(palette_distance(two, one))
    assert palette_distance(one, one) == pytest.approx(0)
    assert layout_likeness(one, two) == pytest.approx(layout_likeness(two, one))
    assert -1 <= layout_likeness(one, two) <= 1


def test_flat_pictures_have_a_colour_and_no_layout() -> None:
    one, two = (seen(Image.new("RGB", (64, 64), c)) for c in ("navy", "gold"))
    assert palette_distance(one, two) > 40
    assert layout_likeness(one, two) == 1
    assert layout_likeness(one, seen(scene())) == 0


def test_a_campaign_that_shares_colours_and_layout_passes() -> None:
    found = campaign(set_of_posters())
    assert {f.verdict for f in found.values()} == {"pass"}


def test_the_stranger_is_accused_and_not_the_others() -> None:
    members = set_of_posters()
    odd = tinted(poster("Closed"), 0.3, 0.5, 1.0)
    found = campaign([*members, ("odd", seen(odd))])
    assert [case for case, f in found.items() if f.verdict == "fail"] == ["odd"]
    assert "colours" in found["odd"].message
    upside = poster("Closed").rotate(180)
    found = campaign([*members, ("odd", seen(upside))])
    assert [case for case, f in found.items() if f.verdict == "fail"] == ["odd"]
    assert "layout" in found["odd"].message
    assert campaign([*members, ("odd", seen(upside))], layout=None)["odd"].verdict == "pass"


def test_a_campaign_that_keeps_close_together_is_held_to_its_own_layout() -> None:
    rng = np.random.default_rng(3)
    common = rng.normal(size=64)

    def member(share: float) -> Look:
        own = rng.normal(size=64)
        layout = share * common + np.sqrt(1 - share**2) * own
        layout = (layout - layout.mean()) / layout.std()
        return Look(np.array([[60.0, 5, 5]]), np.array([1.0]), layout)

    odd = member(0.4)
    close = [(str(n), member(0.99)) for n in range(5)]
    loose = [(str(n), member(0.75)) for n in range(5)]
    likeness = np.median([layout_likeness(odd, one) for _, one in close])
    assert 0.3 < likeness < 0.48, "alike enough for any campaign, not for this one"
    assert campaign([*close, ("odd", odd)])["odd"].verdict == "fail"
    found = campaign(loose)
    assert [case for case, one in found.items() if one.verdict == "fail"] == []


def test_small_groups_are_not_judged() -> None:
    assert campaign([]) == {}
    found = campaign(set_of_posters()[:2])
    assert {f.verdict for f in found.values()} == {"skip"}
    assert {f.verdict for f in repeats(set_of_posters()[:2], 5.0).values()} == {"skip"}


def test_repeats_are_held_against_what_the_baseline_does() -> None:
    groups = [
        [seen(tinted(scene(seed=seed), 1.0, gain, 1.0)) for gain in (0.98, 0.99, 1.0, 1.01, 1.02)]
        for seed in range(4)
    ]
    tolerance = tolerance_from(groups)
    assert tolerance is not None
    assert all((spread(group) or 0.0) <= tolerance for group in groups)
    straying = seen(tinted(scene(seed=1), 0.4, 0.6, 1.0))
    found = repeats([*zip("abcef", groups[1], strict=True), ("d", straying)], max(tolerance, 4.0))
    assert [case for case, f in found.items() if f.verdict == "fail"] == ["d"]
    assert found["d"].check == "consistency.repeat"
    assert "other repeats" in found["d"].message
    assert tolerance_from([groups[0][:2]]) is None
    assert spread(groups[0][:1]) is None


def test_seeds_without_effect_are_named() -> None:
    rng = np.random.default_rng(3)
    marks = [bytes(rng.integers(0, 256, 32, dtype=np.uint8)).hex() for _ in range(4)]
    assert seeds_ignored(marks).verdict == "pass"
    assert seeds_ignored([marks[0]] * 2 + [None]).verdict == "skip"
    found = seeds_ignored([marks[0]] * 4)
    assert (found.verdict, found.message) == ("fail", "4 seeds give one picture")
    assert seeds_ignored([*[marks[0]] * 3, marks[1]]).verdict == "pass"
    # The same picture in other files: a few bits of the fingerprint change.
    encoded = [marks[0], *(f"{int(marks[0], 16) ^ change:064x}" for change in (0xFF, 0xFFF << 99))]
    assert seeds_ignored(encoded).verdict == "fail"
    assert seeds_ignored([marks[0]] * 2 + [f"{int(marks[0], 16) ^ 0x1FFFFF:064x}"]).verdict == (
        "pass"
    )
