"""Lines that belong to a string though nobody asked for them."""

import pytest

from tasks.checks.text_between import intruder
from tasks.checks.text_match import Box, find, keys


def block(
    *lines: str, height: float = 30, pitch: float = 40, heights: dict[int, float] | None = None
) -> list[Box]:
    """Lines of one size under one another, in the middle of a column."""
    sizes = heights or {}
    found, top = [], 0.0
    for number, text in enumerate(lines):
        size = sizes.get(number, height)
        half = 0.3 * size * len(text)
        found.append(Box(text, 300 - half, top, 300 + half, top + size))
        top += pitch * size / height
    return found


def told(asked: str, boxes: list[Box], *others: str) -> str | None:
    pieces = find(keys(asked), boxes)
    assert pieces is not None
    words = [keys(word) for word in asked.split()]
    last = words[-1] if len(words) > 1 else ""
    found = intruder(pieces, boxes, range(len(boxes)), [keys(other) for other in others], last)
    return None if found is None else boxes[found].text


@pytest.mark.parametrize(
    ("asked", "lines", "more"),
    [
        ("We do deliver", ("We do", "not", "deliver"), "not"),
        ("Paris in the spring", ("Paris in", "the", "the spring"), "the"),
        ("BIG SALE", ("BIG SALE", "SALE"), "SALE"),
        ("BIG SALE", ("BIG", "SALE", "SALE"), "SALE"),
    ],
)
def test_a_line_of_the_same_block_belongs_to_the_string(
    asked: str, lines: tuple[str, ...], more: str
) -> None:
    assert told(asked, block(*lines)) == more


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ("We do deliver", ("We do", "deliver")),
        ("We do deliver", ("Welcome", "We do", "deliver", "at home")),
        ("Good Morning", ("Good Morning", "Vietnam")),
        ("SALE", ("SALE", "SALE", "SALE")),
    ],
)
def test_lines_around_a_string_do_not_belong_to_it(asked: str, lines: tuple[str, ...]) -> None:
    assert told(asked, block(*lines)) is None


def test_another_string_that_was_asked_for_may_stand_between() -> None:
    lines = block("SUMMER", "Free entry", "FESTIVAL")
    assert told("SUMMER FESTIVAL", lines, "Free entry today") is None
    assert told("SUMMER FESTIVAL", lines) == "Free entry"


def test_small_print_a_gap_and_a_mark_do_not_interrupt() -> None:
    assert told("Good Morning", block("Good", "est. 1990", "Morning", heights={1: 14})) is None
    assert told("Good Morning", block("Good", "est. 1990", "Morning", pitch=90)) is None
    assert told("Good Morning", block("Good", "&", "Morning")) is None


def test_a_line_beside_the_block_does_not_interrupt() -> None:
    lines = block("Good", "Morning", pitch=80)
    beside = Box("Est 1990", 600, 40, 760, 70)
    assert told("Good Morning", [*lines, beside]) is None
