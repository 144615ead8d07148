import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks.text_look import Look


def looked(*lines: tuple[str, int], alphabet: str) -> Look:
    """Lines under one another, each in its own size."""
    image = Image.new("RGB", (640, 400), "white")
    pen, top = ImageDraw.Draw(image), 40
    for text, size in lines:
        pen.text((40, top), text, fill="black", font=ImageFont.load_default(size))
        top += 2 * size
    look = Look(np.asarray(image), alphabet)
    look.read(320)
    return look


def test_the_width_of_a_word_tells_its_size() -> None:
    look = looked(("Harvest", 40), ("Harvest Festival", 40), ("Harvest", 24), alphabet="harvestfil")
    alone, first, small = (look.width(n, "harvest") for n in range(3))
    assert alone is not None
    assert first == pytest.approx(alone, rel=0.12)
    assert small == pytest.approx(0.6 * alone, rel=0.12)


def test_the_first_or_the_last_of_equal_words_is_measured() -> None:
    look = looked(("mission", 40), alphabet="mison")
    assert look.width(0, "mission") is not None
    assert look.width(0, "other") is None
    assert look.width(0, "si", last=True) is None, "too short"
    repeated = looked(("pressure pressure", 40), alphabet="presu")
    first, last = repeated.width(0, "pressure"), repeated.width(0, "pressure", last=True)
    assert first == pytest.approx(last, rel=0.12)
