import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.checks.consistency import (
    Norm,
    campaign,
    norm_of,
    repeats,
    repeats_by_others,
    seeds_ignored,
)
from tasks.checks.look import (
    Look,
    colour_shift,
    layout_likeness,
    light_likeness,
    look_of,
    palette_distance,
    unpacked,
)
from tests.checks.drawing import poster, scene


def seen(image: Image.Image) -> Look:
    return look_of(np.asarray(image.convert("RGB")))


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
    assert light_likeness(one, again) == pytest.approx(1.0, abs=0.01)
    assert again.packed() == one.packed()
    with pytest.raises(ValueError, match="look"):
        unpacked("00ff")
    # Without a colour every distance would be NaN, and no limit exceeded.
    with pytest.raises(ValueError, match="at least one colour"):
        unpacked("0" * len(one.packed()))


def test_a_look_of_evidence_without_lightness_is_read_as_plain() -> None:
    one = seen(scene(seed=2))
    old = unpacked(one.packed()[: 4 * (4 * 8 + 64)])
    assert layout_likeness(one, old) == pytest.approx(1.0, abs=0.01)
    assert not old.light.any()
    assert light_likeness(old, old) == 1


def two_colours(share: float) -> Look:
    """Navy above gold, with so much navy."""
    image = Image.new("RGB", (200, 200), "gold")
    image.paste("navy", (0, 0, 200, round(200 * share)))
    return seen(image)


def test_a_colour_shift_is_the_work_of_moving_the_shares() -> None:
    for share in (0.3, 0.5, 0.9):
        moved = colour_shift(two_colours(0.2), two_colours(share))
        whole = colour_shift(seen(Image.new("RGB", (9, 9), "navy")), two_colours(0.0))
        assert moved == pytest.approx((share - 0.2) * whole, rel=0.04)
        assert palette_distance(two_colours(0.2), two_colours(share)) < 1


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_colours_must_be_moved_no_less_far_than_to_the_nearest(first: int, second: int) -> None:
    one, two = seen(scene(96, 96, first)), seen(scene(96, 96, second))
    assert colour_shift(one, two) >= palette_distance(one, two) - 1e-3
    assert colour_shift(one, two) == pytest.approx(colour_shift(two, one), rel=1e-4)
    assert colour_shift(one, one) == pytest.approx(0, abs=1e-4)


def test_the_colours_of_a_campaign_may_cover_other_parts_only_where_the_others_vary() -> None:
    close = [(str(n), two_colours(0.2 + n / 100)) for n in range(5)]
    found = campaign([*close, ("odd", two_colours(0.6))], layout=None)
    assert [case for case, one in found.items() if one.verdict == "fail"] == ["odd"]
    assert "cover other parts" in found["odd"].message
    loose = [(str(n), two_colours(0.1 + n / 5)) for n in range(5)]
    assert {f.verdict for f in campaign(loose, layout=None).values()} == {"pass"}


def test_a_picture_turned_upside_down_is_told_by_its_light() -> None:
    """Where as much is drawn above as below, only light and dark show that it is turned."""
    rows = np.linspace(30, 220, 128)[:, None, None]
    rng = np.random.default_rng(5)

    def member() -> Image.Image:
        noise = rng.normal(0, 12, (128, 128, 1))
        return Image.fromarray(np.clip(rows + noise, 0, 255).astype(np.uint8).repeat(3, axis=2))

    upside = member().transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    members = [(str(n), seen(member())) for n in range(4)]
    found = campaign([*members, ("odd", seen(upside))], layout=-1.0)
    assert [case for case, one in found.items() if one.verdict == "fail"] == ["odd"]
    assert "layout" in found["odd"].message


def test_a_stranger_among_three_does_not_widen_its_own_limits() -> None:
    members = [("one", two_colours(0.2)), ("two", two_colours(0.22)), ("odd", two_colours(0.7))]
    found = campaign(members, layout=None)
    assert [case for case, one in found.items() if one.verdict == "fail"] == ["odd"]


@pytest.mark.parametrize("size", [30, 31, 60])
def test_large_campaigns_are_judged_as_small_ones(size: int) -> None:
    members = [(str(n), two_colours(0.2 + n / 1000)) for n in range(size - 1)]
    found = campaign([*members, ("odd", two_colours(0.7))], layout=None)
    assert [case for case, one in found.items() if one.verdict == "fail"] == ["odd"]


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
    assert layout_likeness(one, two) == light_likeness(one, two) == 1
    assert light_likeness(one, seen(scene())) == 0
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
        return Look(np.array([[60.0, 5, 5]]), np.array([1.0]), layout, np.zeros(64))

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
    norm = norm_of(groups, 4.0)
    assert norm is not None
    assert norm_of(groups, 50.0) == Norm(50.0, 50.0)
    for group in groups:
        assert {
            f.verdict for f in repeats(list(zip("abcde", group, strict=True)), norm).values()
        } == {"pass"}
    straying = seen(tinted(scene(seed=1), 0.4, 0.6, 1.0))
    found = repeats([*zip("abcef", groups[1], strict=True), ("d", straying)], norm)
    assert [case for case, f in found.items() if f.verdict == "fail"] == ["d"]
    assert found["d"].check == "consistency.repeat"
    assert "other repeats" in found["d"].message
    assert norm_of([groups[0][:2]], 4.0) is None


def test_a_repeat_whose_colours_cover_other_parts_strays_too() -> None:
    usual = [two_colours(share) for share in (0.2, 0.21, 0.22, 0.23, 0.24)]
    norm = norm_of([usual], 4.0)
    assert norm is not None
    items = [*zip("abcde", usual, strict=True), ("odd", two_colours(0.6))]
    found = repeats(items, norm)
    assert [case for case, f in found.items() if f.verdict == "fail"] == ["odd"]
    assert "cover other parts" in found["odd"].message
    # Nobody knows how far shares may vary where only the policy names a tolerance.
    assert {f.verdict for f in repeats(items, Norm(4.0, None)).values()} == {"pass"}


def test_repeats_without_a_baseline_are_held_to_the_others() -> None:
    usual = [seen(tinted(scene(seed=2), 1.0, gain, 1.0)) for gain in (0.98, 1.0, 1.02)]
    items = [*zip("abc", usual, strict=True), ("odd", seen(tinted(scene(seed=2), 0.3, 0.5, 1.0)))]
    found = repeats_by_others(items, 10.0)
    assert found["odd"].verdict == "fail"
    # Among the others of each of the three is the stray: what it does is usual for them.
    assert {found[case].verdict for case in "abc"} == {"pass"}
    assert {f.verdict for f in repeats_by_others(items[:3], 10.0).values()} == {"skip"}


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
