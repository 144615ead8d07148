"""The second reader confirms and clears flags only where several readings agree."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checks import second_reader, tesseract
from tasks.checks.second_reader import Votes, distance
from tasks.checks.tesseract import Guess
from tasks.checks.text_match import Box
from tasks.checks.text_misses import Miss
from tests.checks.drawing import poster

needs_english = pytest.mark.skipif(
    "eng" not in tesseract.installed(), reason="needs tesserocr and tesseract-ocr-eng"
)
LETTERS = st.text("abc", max_size=7)


def votes(got: str, want: str, *texts: str, score: float = 0.9) -> Votes:
    return Votes.of(got, want, [Guess(text, score) for text in texts])


@pytest.mark.parametrize(
    ("got", "want", "texts", "said"),
    [
        # The same wrong letters, and none of the right ones.
        ("delighit", "delight", ("DELIGHIT", "DELIGHIT.", "HUGH"), True),
        ("delighit", "delight", ("DELIGHIT", "~ DELIGHIT", "DELIGHT"), True),
        # One reading alone is luck.
        ("delighit", "delight", ("DELIGHIT", "HUGH", ""), None),
        ("delighit", "delight", ("DELIGHIT", "DELIGHIT", "DELIGHT", "DELIGHT"), None),
        # Never exactly the same, and always far nearer to it.
        ("reerstplant", "preserveplanet", ("REERST PLAN", "REERSTPLANI", "RERST PLANT"), True),
        ("fre", "fire", ("ft", "fA", "iy", "a"), None),
        # The right letters, often and surely.
        ("marning", "morning", ("Morning", "Morning", "Morning", "Noring"), False),
        ("marning", "morning", ("Morning", "Morning", "xx"), None),
        ("marning", "morning", ("Morning", "Morning", "Morning", "Marning"), None),
        # Letters that touch.
        ("moming", "morning", ("Moming",) * 9, None),
        ("gpt40", "gpt4o", ("GPT40",) * 9, None),
        ("moming", "morning", ("Morning",) * 9, False),
        # Marks that the data may not know, and a first letter that is set apart.
        ("pâques", "paques", ("PAQUES",) * 9, None),
        ("paques", "pâques", ("PÂQUES",) * 9, False),
        ("astlevania", "castlevania", ("astlevania",) * 9, None),
        ("castlevani", "castlevania", ("Castlevani",) * 9, True),
        # Words beside it.
        ("maket", "market", ("Old Maket", "Maket Hall", "Maket"), True),
        ("a", "b", ("a", "a", "a"), None),
        ("maket", "market", (), None),
    ],
)
def test_several_readings_decide(
    got: str, want: str, texts: Sequence[str], said: bool | None
) -> None:
    assert votes(got, want, *texts).said() is said


def test_unsure_readings_clear_nothing() -> None:
    assert votes("marning", "morning", *["Morning"] * 9, score=0.3).said() is None


@given(LETTERS, LETTERS, st.lists(st.text("abc ", max_size=9), max_size=9))
def test_no_readings_say_both(got: str, want: str, texts: list[str]) -> None:
    said = votes(got, want, *texts).said()
    other = votes(want, got, *texts).said()
    assert said is None or other is not said


@given(LETTERS, LETTERS, LETTERS)
def test_distance_is_a_distance(one: str, two: str, three: str) -> None:
    assert distance(one, two) == distance(two, one)
    assert (distance(one, two) == 0) == (one == two)
    assert distance(one, three) <= distance(one, two) + distance(two, three)
    blocks = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    worst = sum(max(b - a, d - c) for tag, a, b, c, d in blocks if tag != "equal")
    assert abs(len(one) - len(two)) <= distance(one, two) <= worst


def line(text: str, left: float, right: float, top: float = 96) -> tuple[Box, np.ndarray]:
    quad = np.array(
        [[left, top], [right, top], [right, top + 64], [left, top + 64]], dtype=np.float32
    )
    return Box(text, left, top, right, top + 64), quad


@needs_english
@pytest.mark.parametrize(
    ("shown", "wanted", "severity", "said"),
    [
        ("Good Marning", "Good Morning", "minor", True),
        ("Good Morning", "Good Morning", "minor", False),
        ("Good Morning", "Harvest Festival", "absent", True),
    ],
)
def test_a_flag_is_confirmed_or_cleared(shown: str, wanted: str, severity: str, said: bool) -> None:
    box, quad = line("Good Marning", 28, 330)
    miss = Miss(wanted, box.text, 1, severity, "", (box,), quads=(quad,))  # type: ignore[arg-type]
    assert second_reader.confirmed(miss, np.asarray(poster(shown))) is said


@needs_english
@pytest.mark.parametrize(
    ("read", "left", "right"),
    [("Good Morn", 28, 250), ("od Morning", 108, 330)],
)
def test_a_box_that_cuts_letters_off_confirms_nothing(read: str, left: int, right: int) -> None:
    box, quad = line(read, left, right)
    miss = Miss("Good Morning", read, 2, "minor", "", (box,), quads=(quad,))
    assert second_reader.confirmed(miss, np.asarray(poster("Good Morning"))) is not True
    cut = Miss("Good Morning", "Good Morn", 3, "partial", "", *_whole(), score=0.95)
    assert second_reader.confirmed(cut, np.asarray(poster("Good Morn"))) is True


def _whole() -> tuple[tuple[Box, ...], tuple[int, ...], tuple[np.ndarray, ...]]:
    box, quad = line("Good Morn", 28, 260)
    return (box,), (0,), (quad,)


@needs_english
def test_one_letter_by_an_unsure_first_reader_is_not_confirmed() -> None:
    box, quad = line("Good Marning", 28, 330)
    miss = Miss("Good Morning", box.text, 1, "minor", "", (box,), quads=(quad,), score=0.7)
    assert second_reader.confirmed(miss, np.asarray(poster("Good Marning"))) is None


def test_a_letter_may_lack_on_either_side_of_a_line_break() -> None:
    ways = list(second_reader._splits(["curriculu", "readings"], ["curriculu", "mreadings"]))
    assert ways == [["curriculu", "mreadings"], ["curriculum", "readings"]]
    assert list(second_reader._splits(["good", "marning"], ["good", "morning"])) == [
        ["good", "morning"]
    ]
