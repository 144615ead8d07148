"""What the text reader needs of the machine."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tasks.checks.ocr import reader
from tests.checks.drawing import poster

#: Pages that a search at 320 pixels took fresh from the system each time when a run was given all
#: its memory as one block: 3,400.
PAGES = 1_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux does")
def test_a_search_takes_the_memory_of_the_one_before() -> None:
    import resource

    def taken() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        reader().detect(rgb, 320)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    rgb = np.asarray(poster("Summer Sale", width=1024, height=1024))
    taken()
    # The heap may grow or be trimmed once in a while.
    assert sorted(taken() for _ in range(5))[2] < PAGES
