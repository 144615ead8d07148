"""Pictures are reduced once a size, and what is kept is what would be computed again."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.checks import blank
from tasks.checks.base import Expected
from tasks.checks.blank import reduced
from tasks.checks.decode import decode
from tests.checks.drawing import encoded, scene


def _decoded(seed: int) -> np.ndarray:
    picture = decode(encoded(scene(400, 300, seed)), Expected()).picture
    assert picture is not None
    return picture.rgb


def test_kept_reductions_are_those_of_a_fresh_copy() -> None:
    pictures = [_decoded(seed) for seed in (1, 2)]
    for rgb in (*pictures, *pictures[::-1], pictures[0][:, :200], pictures[0][::-1]):
        for side in (64, 128, 256, 128, 1000):
            assert np.array_equal(reduced(rgb, side), reduced(rgb.copy(), side))


def test_a_decoded_picture_is_reduced_once_a_size() -> None:
    rgb = _decoded(1)
    assert reduced(rgb, 128) is reduced(rgb, 128)
    assert reduced(rgb, 128) is not reduced(rgb, 64)


def test_what_is_kept_cannot_be_changed() -> None:
    small = reduced(_decoded(1), 128)
    with pytest.raises(ValueError, match="read-only"):
        small[0, 0] = 0


@pytest.mark.parametrize("read_only", [False, True])
def test_an_array_that_may_change_is_reduced_anew(read_only: bool) -> None:
    owner = _decoded(1).copy()
    rgb = owner[:]
    rgb.setflags(write=not read_only)
    before = reduced(rgb, 128).copy()
    owner[:] = 255 - owner
    assert not np.array_equal(reduced(rgb, 128), before)


def test_no_picture_is_kept_alive() -> None:
    rgb = _decoded(1)
    reduced(rgb, 128)
    assert blank._LAST[0][0]() is rgb
    del rgb
    assert blank._LAST[0][0]() is None
