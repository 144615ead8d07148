import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checks.text_match import Box, keys, words
from tasks.checks.text_thread import Stretch, stretch


def column(*texts: str) -> list[Box]:
    return [Box(text, 0, 30 * n, 100, 30 * n + 20) for n, text in enumerate(texts)]


def nearest(key: str, boxes: list[Box]) -> Stretch:
    return stretch(key, boxes, range(len(boxes)))


def edits(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_neighbours_of_a_frame_do_not_stand_between_its_lines() -> None:
    boxes = [
        Box("PROPERTY", 80, 130, 270, 180), Box("TEACHING", 350, 150, 450, 175),
        Box("DEVELOP", 5, 180, 70, 205), Box("MAMAGEMENT", 84, 171, 355, 224),
    ]  # fmt: skip
    found = nearest("propertymanagement", boxes)
    assert (found.distance, found.touched) == (1, (0, 3))
    assert found.read == "propertymamagement"


@pytest.mark.parametrize(
    ("text", "distance", "around"),
    [("Save the Oceann now", 1, (7, 3)), ("Save the oOcean", 1, (7, 0)), ("an Ocean!", 0, (2, 1))],
)
def test_a_letter_too_many_at_the_end_of_a_word_counts(
    text: str, distance: int, around: tuple[int, int]
) -> None:
    found = nearest("ocean", column(text))
    assert (found.distance, found.around) == (distance, around)


def test_a_line_that_gives_one_letter_is_no_part_of_a_string() -> None:
    found = nearest("winter", column("Sale", "i", "n", "Bread", "wintr"))
    assert (found.distance, found.touched) == (1, (4,))


def test_boxes_of_missing_glyphs_count_as_wrong_letters() -> None:
    assert nearest("good", column("Go□□")) == Stretch(2, (0,), "go□□", (0, 0))


def test_nothing_read_lacks_everything() -> None:
    assert nearest("good", []) == Stretch(4, (), "")


letters = st.text("ab c", min_size=1, max_size=6).filter(str.strip)


@given(st.text("abc", min_size=1, max_size=6), st.lists(letters, min_size=1, max_size=3))
def test_no_other_stretch_is_nearer(key: str, texts: list[str]) -> None:
    boxes = column(*texts)
    found = nearest(key, boxes)
    # Every way to take lines in their order, from the beginning of a word to the end of one.
    best = float(len(key))
    for count in range(1, len(boxes) + 1):
        for chosen in itertools.combinations([words(box.text) for box in boxes], count):
            joined = "".join(text for text, _ in chosen)
            tail = len(joined) - len(chosen[-1][0])
            for start, end in itertools.product(chosen[0][1], chosen[-1][1]):
                if start < tail + end:
                    cost = edits(key, joined[start : tail + end]) + 0.9 * (count - 1)
                    best = min(best, cost)
    if found.touched:
        assert found.distance + 0.9 * (len(found.touched) - 1) <= best + 0.01
        assert edits(key, found.read) == found.distance
        joined = "".join(words(boxes[i].text)[0] for i in found.touched)
        assert joined[found.around[0] : len(joined) - found.around[1]] == found.read
    else:
        assert best == len(key)


def test_a_small_line_between_two_large_ones_comes_between_them() -> None:
    """Its box reaches into both: it stands above the other, not beside it."""
    boxes = [
        Box("Lord", 347, 151, 687, 322),
        Box("of the", 434, 285, 640, 343),
        Box("Rings", 272, 295, 749, 479),
    ]
    assert stretch(keys("Lord of the Rings"), boxes, range(3)).distance == 0
    assert stretch(keys("Lord Rings of the"), boxes, range(3)).distance > 0
    assert not boxes[1].same_row(boxes[2])
    assert Box("Left", 0, 0, 90, 40).same_row(Box("right", 100, 8, 200, 44))
