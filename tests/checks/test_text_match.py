import itertools
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.checks.text_match import Box, align, doubled, find, keys, words
from tasks.checks.text_thread import stretch

WORDS = st.text(string.ascii_lowercase, min_size=2, max_size=8)


def rows(*texts: str) -> list[Box]:
    """Lines under one another."""
    return [
        Box(text, 10, 40.0 * n, 10 + 12 * len(text), 40.0 * n + 30) for n, text in enumerate(texts)
    ]


def beside(*texts: str) -> list[Box]:
    """Words beside one another."""
    return [Box(text, 200.0 * n, 10, 200.0 * n + 150, 40) for n, text in enumerate(texts)]


def there(intended: str, boxes: list[Box]) -> bool:
    return find(keys(intended), boxes) is not None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("“Hi” – it’s…", '"hi" - it\'s...'),
        ("ＦＵＬＬ　width", "full WIDTH"),
        ("Café", "Cafe\u0301"),
        ("STRAẞE", "Straße"),
        ("İstanbul", "istanbul"),
        ("ｱｲｽ", "アイス"),
        ("ロゴ", "口ゴ"),
        ("a\u200bb", "ab"),
    ],
)
def test_what_means_the_same_is_the_same(one: str, two: str) -> None:
    assert keys(one) == keys(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Café", "Cafe"),
        ("$19.99", "$19.9"),
        ("can't", "cant"),
        ("50%", "50"),
        ("o", "0"),
        ("ñ", "n"),
        ("Maße", "Masse"),
    ],
)
def test_what_differs_stays_different(one: str, two: str) -> None:
    assert keys(one) != keys(two)


@given(st.text(max_size=40))
def test_keys_are_stable(text: str) -> None:
    once = keys(text)
    assert keys(once) == once
    assert keys(text.upper().lower()) == keys(text.lower()) or not text.isascii()


@given(st.lists(WORDS, min_size=1, max_size=6), st.data())
def test_a_text_broken_over_lines_anywhere_is_found(parts: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(parts)), max_size=3)))
    edges = [0, *cuts, len(parts)]
    lines = [" ".join(parts[a:b]) for a, b in itertools.pairwise(edges) if a < b]
    assert there(" ".join(parts), rows(*lines))


@given(st.lists(WORDS, min_size=1, max_size=4), st.data())
def test_one_wrong_letter_is_never_tolerated(parts: list[str], data: st.DataObject) -> None:
    text = " ".join(parts)
    place = data.draw(st.sampled_from([i for i, c in enumerate(text) if c != " "]))
    how = data.draw(st.sampled_from(["drop", "swap", "change"]))
    if how == "drop":
        wrong = text[:place] + text[place + 1 :]
    elif how == "swap":
        assume(place + 1 < len(text))
        wrong = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    else:
        wrong = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
    assume(keys(wrong) != keys(text))
    assert not there(text, rows(wrong))


def test_order_matters() -> None:
    assert there("Good Morning", rows("Good", "Morning"))
    assert not there("Good Morning", rows("Morning", "Good"))
    assert there("Good Morning", beside("Good", "Morning"))
    assert not there("Good Morning", beside("Morning", "Good"))


def test_a_string_stands_within_a_longer_line_at_word_edges_only() -> None:
    assert there("SALE", rows("Big SALE today"))
    assert not there("SALE", rows("SALES today"))
    assert not there("SALE", rows("WHOLESALE"))
    assert there("热水", rows("多喝热水"))


def test_other_text_may_stand_between() -> None:
    assert there("Good Morning", [*rows("Good", "est. 1990", "Morning")])


def test_marks_that_the_string_has_must_be_there() -> None:
    assert not there("Don't", rows("Dont"))
    assert not there("$1.99", rows("$199"))
    assert not there("Now!", rows("Now"))
    assert there("Trick or Treat", rows("Trick or. Treat"))
    assert there("Peaceful", rows("Peace-", "ful"))
    assert not there("Treat", rows("Tr3eat"))


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ("$19", "$19.99"),
        ("5%", "2.5%"),
        ("1,000", "1,000,000"),
        ("99", "1,99"),
        ("10", "10:30"),
        ("24/7", "2.4/7"),
        ("20°C", "-20°C"),
        ("Sale 50%", "Sale -50%"),
        ("000원", "5,000원"),
        ("100元", "3.100元"),
        ("1299", "12.99"),
        ("1030", "10:30"),
    ],
)
def test_a_part_of_a_number_is_not_the_number(asked: str, drawn: str) -> None:
    assert not there(asked, rows(drawn))
    assert stretch(keys(asked), rows(drawn), [0]).distance > 0


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ("cant", "can't"),
        ("well known", "well-known"),
        ("Lets eat", "Let's eat"),
        ("Ocean", "Ocean's"),
        ("Hello!", "Hello!!"),
        ("Really?", "Really?!"),
        ("Wait.", "Wait..."),
    ],
)
def test_signs_that_hold_a_word_together_or_repeat_count(asked: str, drawn: str) -> None:
    assert not there(asked, rows(drawn))


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ("50%", "-50%-"),
        ("50%", "– 50% –"),
        ("-20°C", "-20°C"),
        ("1985", "-SINCE 1985-"),
        ("été", "l'été"),
        ("Hello", "'Hello'"),
        ("Hello", "Hello!"),
        ("12", "12."),
        ("2026", "(2026)"),
        ("Coca", "Coca-Cola"),
        ("USA", "U.S.A."),
        ("$19.99", "Only $19.99!"),
    ],
)
def test_ornament_and_signs_beside_a_string_do_not_matter(asked: str, drawn: str) -> None:
    assert there(asked, rows(drawn))


def test_capitals_write_a_sharp_s_as_two() -> None:
    assert there("Große Straße", rows("GROSSE", "STRASSE"))
    assert there("Große Straße", rows("GROẞE STRAẞE"))
    assert not there("Große Straße", rows("Grosse Strasse"))
    assert not there("Masse", rows("Maße"))


def test_a_place_is_used_once() -> None:
    boxes = rows("Hello")
    first = find(keys("Hello"), boxes)
    assert first is not None
    assert find(keys("Hello"), boxes, first) is None
    again = [Box("Hello", 11, 1, 71, 31), *boxes]
    assert find(keys("Hello"), again, find(keys("Hello"), again) or ()) is None


def test_vertical_columns_are_read_from_either_side() -> None:
    right = Box("多喝", 100, 0, 130, 120, vertical=True)
    left = Box("热水", 50, 0, 80, 120, vertical=True)
    assert there("多喝热水", [right, left])


def test_doubled_words_are_noticed() -> None:
    boxes = rows("The The Dry")
    pieces = find(keys("The Dry"), boxes)
    assert pieces is not None
    assert doubled(keys("The Dry"), "The Dry", pieces, boxes) == "the"
    boxes = rows("Big SALE today")
    pieces = find(keys("SALE"), boxes)
    assert pieces is not None
    assert doubled(keys("SALE"), "SALE", pieces, boxes) is None


def test_hostile_boxes_end_in_bounded_steps() -> None:
    boxes = [Box("a", 10.0 * n, 0, 10.0 * n + 8, 8) for n in range(80)]
    assert find("a" * 60 + "b", boxes, budget=2_000) is None


def naive(key: str, text: str) -> int:
    """Edit distance to the best stretch, by definition."""

    def distance(a: str, b: str) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            previous, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
        return row[-1]

    stretches = {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}
    return min(distance(key, part) for part in stretches)


@given(st.text("abc", min_size=1, max_size=6), st.text("abc", max_size=9))
def test_alignment_is_the_nearest_stretch(key: str, text: str) -> None:
    found = align(key, text)
    assert found.distance == naive(key, text)
    assert naive(key, text[found.start : found.end]) == found.distance


def test_alignment_stays_within_a_line_where_it_can() -> None:
    assert align("factor50", "factor5p", [7]).end == 7


@given(st.text(max_size=30))
def test_word_edges_lie_in_the_key(text: str) -> None:
    key, edges = words(text)
    assert key == keys(text)
    assert all(0 <= edge <= len(key) for edge in edges)
    assert 0 in edges
