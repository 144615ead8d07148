"""Lines that belong to a string though nobody asked for them."""

import pytest

from tasks.checks.text_between import Width, intruder, repeats
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


def told(asked: str, boxes: list[Box], *others: str, width: Width | None = None) -> str | None:
    pieces = find(keys(asked), boxes)
    assert pieces is not None
    words, rest = [keys(word) for word in asked.split()], [keys(other) for other in others]
    known = {} if width is None else {"width": width}
    found = intruder(pieces, boxes, range(len(boxes)), words, rest, **known)
    return None if found is None else boxes[found].text


@pytest.mark.parametrize(
    ("asked", "lines", "more"),
    [
        ("We do deliver", ("We do", "not", "deliver"), "not"),
        ("Paris in the spring", ("Paris in", "the", "the spring"), "the"),
        ("BIG SALE", ("BIG SALE", "SALE"), "SALE"),
        ("BIG SALE", ("BIG", "SALE", "SALE"), "SALE"),
        ("Harvest Festival", ("Harvest", "Harvest Festival"), "Harvest"),
        ("Harvest Festival", ("Harvest", "Harvest", "Festival"), "Harvest"),
        ("Hello, World", ("Hello", "Hello, World!"), "Hello"),
        ("Happy New Year", ("Happy New", "Happy New Year"), "Happy New"),
        ("Open All Night", ("Open All Night", "All Night"), "All Night"),
        ("Bäckerei", ("Bäckerei", "Bäckerei"), "Bäckerei"),
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
        ("Harvest Festival", ("Harvest Festival", "Harvest Festival")),
        ("Harvest Festival", ("Autumn", "Harvest Festival", "Sunday")),
        ("Harvest Festival", ("Harvest", "The Harvest Festival")),
        ("A Day", ("A", "A Day")),
        ("热水", ("热水", "热水")),
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
    assert told("Big Sale", block("Big", "Big Sale", heights={0: 18})) is None
    assert told("Big Sale", block("Big", "Big Sale", pitch=90)) is None


def test_a_word_that_another_string_asks_for_is_no_slip() -> None:
    above = block("Milk", "Milk Shake")
    assert told("Milk Shake", above) == "Milk"
    assert told("Milk Shake", above, "Milk") is None
    assert told("Milk Shake", [*above, Box("Milk", 500, 400, 560, 430)], "Milk") == "Milk"
    assert told("Milk Shake", block("Fresh", "Milk", "Milk Shake"), "Fresh Milk") is None
    assert told("BIG SALE", block("BIG SALE", "SALE"), "SALE") is None
    assert told("Milk", block("Milk", "Milk"), "Milk") is None, "it was asked for twice"


def test_a_word_that_is_set_wider_is_another_size() -> None:
    boxes = block("Harvest", "Harvest Festival")

    def set_in(above: float) -> Width:
        return lambda line, word, last: (above if line == 0 else 100) if word == "harvest" else None

    assert told("Harvest Festival", boxes, width=set_in(60)) is None
    assert told("Harvest Festival", boxes, width=set_in(90)) == "Harvest"


def test_a_word_is_no_pattern_before_it_stands_three_times() -> None:
    assert told("SALE", block("SALE", "SALE")) == "SALE"
    assert told("SALE", block("SALE", "SALE", "SA1E")) is None
    assert told("SALE", block("SALE", "SALE", "Salesmen wanted")) == "SALE"


def test_lines_set_close_are_still_two() -> None:
    assert told("Grand Opening", block("Grand", "Grand Opening", pitch=22)) == "Grand"


def test_a_short_word_is_level_though_its_corners_are_not() -> None:
    above, below = block("Big", "Big Sale")
    left, top, right, bottom = above.left, above.top, above.right, above.bottom

    def tilted(rise: float) -> Box:
        corners = (left, top), (right, top + rise), (right, bottom), (left, bottom - rise)
        return Box("Big", left, top, right, bottom, corners=corners)

    assert told("Big Sale", [tilted(6), below]) == "Big"
    assert told("Big Sale", [tilted(16), below]) is None


def test_a_line_beside_the_block_does_not_interrupt() -> None:
    lines = block("Good", "Morning", pitch=80)
    beside = Box("Est 1990", 600, 40, 760, 70)
    assert told("Good Morning", [*lines, beside]) is None


def test_what_repeats_words_of_a_string_is_told_from_other_words() -> None:
    words = ["summer", "jazz", "night"]
    assert all(repeats(Box(t, 0, 0, 9, 9), words) for t in ("Jazz", "SUMMER JAZZ", "jazz night."))
    assert not any(repeats(Box(t, 0, 0, 9, 9), words) for t in ("azz", "Summer Night", "not"))


def upright(*letters: tuple[str, float, float]) -> list[Box]:
    """Letters under one another, each with its top and bottom."""
    return [Box(text, 40, top, 62, bottom) for text, top, bottom in letters]


def test_a_letter_inside_a_word_belongs_to_it() -> None:
    stacked = upright(("W", 24, 48), ("O", 45, 72), ("RK", 68, 115))
    assert told("WRK", stacked) == "O"
    assert told("WORK", stacked) is None
    beside = [Box("FES", 0, 0, 90, 40), Box("T", 92, 0, 120, 40), Box("IVAL", 122, 0, 240, 40)]
    assert told("FESIVAL", beside) == "T"
    assert told("FES IVAL", beside) is None, "it stands between words"


def test_another_reading_of_the_room_inside_a_word_counts() -> None:
    parts = upright(("W", 24, 46), ("RK", 64, 115))
    assert told("WRK", [*parts, *upright(("ORK", 45, 115))]) == "ORK"
    assert told("WRK", [*parts, *upright(("WRK", 20, 120))]) is None, "it reads the same"
    assert told("WRK", [*parts, *upright(("*", 46, 64))]) is None, "no letter"
    assert told("WRK", [*parts, *upright(("O", 200, 220))]) is None, "it stands elsewhere"


def test_parts_of_a_word_without_room_between_them_hold_nothing_more() -> None:
    lines = [Box("SUM-", 0, 0, 90, 40), Box("MER", 0, 42, 90, 82), Box("SUMXMER", 0, 0, 95, 85)]
    assert told("SUMMER", lines) is None
