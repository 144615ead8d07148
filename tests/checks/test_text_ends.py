"""Letters end before a reader's box does, and strokes tell where."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.checks.text_ends import trimmed
from tasks.records import Region

MARGIN = 10.0


def line(left: int, *, light: bool = False, height: int = 40) -> NDArray[np.uint8]:
    """A row of strokes on a ground that gets lighter to the right."""
    ramp = np.linspace(120, 160, 400)[None, :, None].repeat(200, axis=0).repeat(3, axis=2)
    rgb = ramp.astype(np.uint8)
    for x in range(left, 300, 20):
        rgb[80 : 80 + height, x : x + 6] = 250 if light else 20
    return rgb


def turned(rgb: NDArray[np.uint8], box: Region, turns: int) -> tuple[NDArray[np.uint8], Region]:
    """Return a picture turned to the left, and the box with it."""
    for _ in range(turns):
        width = rgb.shape[1]
        rgb = np.ascontiguousarray(np.rot90(rgb))
        box = Region(x=box.y, y=width - box.x - box.width, width=box.height, height=box.width)
    return rgb, box


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_box_is_cut_at_the_margin_on_the_side_that_has_no_letters(
    turns: int, light: bool
) -> None:
    # Wider than the letters: it reaches into the margin, and they begin beyond it or within.
    box = Region(x=2, y=68, width=310, height=64)
    rgb, there = turned(line(16, light=light), box, turns)
    cut = trimmed(rgb, there, MARGIN)
    _, wanted = turned(line(16), Region(x=10, y=68, width=302, height=64), turns)
    assert cut == wanted
    rgb, there = turned(line(5, light=light), box, turns)
    assert trimmed(rgb, there, MARGIN) == there


def test_a_letter_that_the_edge_cuts_stands_in_the_margin() -> None:
    rgb = line(-4 + 20)
    rgb[80:120, :2] = 20  # What is left of a stroke.
    box = Region(x=0, y=68, width=310, height=64)
    assert trimmed(rgb, box, MARGIN) == box


@pytest.mark.parametrize(("rows", "kept"), [(1, False), (4, True)])
def test_the_bar_of_a_letter_whose_stem_is_cut_off_counts_and_a_scratch_does_not(
    rows: int, kept: bool
) -> None:
    rgb = line(16)
    rgb[98 : 98 + rows, :16] = 20
    box = Region(x=0, y=68, width=310, height=64)
    assert (trimmed(rgb, box, MARGIN) == box) == kept


def test_what_is_wide_or_beside_the_line_is_no_letter() -> None:
    box = Region(x=0, y=68, width=310, height=64)
    sheet = line(16)
    sheet[:, :6] = 60  # The edge of a sheet that lies there.
    sheet[:, :12][:60] = 20  # Another line above.
    assert trimmed(sheet, box, MARGIN) == box
    above = line(16)
    above[:70, :12] = 20
    assert trimmed(above, box, MARGIN).x == 10


def test_nothing_is_cut_where_nothing_tells_letters_from_their_ground() -> None:
    box = Region(x=0, y=68, width=310, height=64)
    plain = np.full((200, 400, 3), 140, np.uint8)
    assert trimmed(plain, box, MARGIN) == box
    small = Region(x=0, y=68, width=310, height=6)
    assert trimmed(line(16), small, MARGIN) == small
    outside = Region(x=-10, y=-10, width=12, height=12)
    assert trimmed(line(16), outside, MARGIN) == outside


def test_a_box_that_keeps_the_margin_is_left_as_it_is() -> None:
    box = Region(x=12, y=68, width=300, height=64)
    assert trimmed(line(16), box, MARGIN) == box
