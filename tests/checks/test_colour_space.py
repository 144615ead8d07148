import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from tasks.checks.colour_space import ciede2000, colour_bins, lab, summary

#: Table 1 of Sharma, Wu and Dalal (2005): L*, a*, b* of both colours and their difference.
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def reference_lab(rgb: object) -> np.ndarray:
    return np.asarray(rgb2lab(rgb))


def reference_difference(one: object, two: object, **options: float) -> float:
    return float(deltaE_ciede2000(one, two, **options))  # type: ignore[no-untyped-call]


def test_ciede2000_gives_the_published_differences() -> None:
    table = np.array([[float(v) for v in line.split()] for line in SHARMA.split("\n") if line])
    assert table.shape == (34, 7)
    one, two, wanted = table[:, :3], table[:, 3:6], table[:, 6]
    assert np.abs(ciede2000(one, two) - wanted).max() < 5e-5
    assert np.abs(ciede2000(two, one) - wanted).max() < 5e-5


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=6, max_size=6))
def test_lab_and_ciede2000_agree_with_scikit_image(values: list[int]) -> None:
    one, two = np.array(values[:3], np.uint8), np.array(values[3:], np.uint8)
    assert np.allclose(lab(one), reference_lab(one), atol=0.5)
    first, second = reference_lab(one), reference_lab(two)
    wanted = reference_difference(first, second)
    assert float(ciede2000(first, second)) == pytest.approx(wanted, abs=1e-6)
    half = reference_difference(first, second, kL=2)
    assert float(ciede2000(first, second, lightness=2)) == pytest.approx(half, abs=1e-6)


def test_bins_keep_colours_and_shares() -> None:
    image = Image.new("RGB", (200, 100), (250, 10, 10))
    image.paste((10, 10, 250), (0, 0, 50, 100))
    colours, shares = colour_bins(np.asarray(image))
    assert sorted(zip(colours[:, 0].round().tolist(), shares.tolist(), strict=True)) == [
        (10, 0.25), (250, 0.75),
    ]  # fmt: skip


def test_the_summary_of_a_picture_is_its_mean_colour() -> None:
    image = Image.new("RGB", (200, 100), (200, 60, 40))
    image.paste((90, 90, 90), (0, 0, 100, 100))
    pixels = reference_lab(np.asarray(image)).reshape(-1, 3)
    wanted = (*pixels.mean(axis=0), np.hypot(pixels[:, 1], pixels[:, 2]).mean())
    assert summary(np.asarray(image)) == pytest.approx(wanted, abs=1.0)
    grey = summary(np.full((300, 300, 3), 90, np.uint8))
    assert grey[1:] == pytest.approx((0, 0, 0), abs=0.05)
