"""What is told of strings that are not there, and of text that nobody asked for."""

from tasks.checks.text_match import Box
from tasks.checks.text_misses import extra, named


def test_text_apart_from_every_place_is_more_than_was_asked_for() -> None:
    asked, more = Box("Open", 0, 0, 100, 30), Box("Closed", 0, 60, 100, 90)
    assert extra([asked, more], [asked]) == (more,)


def test_texture_that_is_read_as_a_few_unsure_letters_is_no_text() -> None:
    unsure = Box("HOL", 0, 60, 300, 200, sure=False)
    assert extra([unsure], []) == ()


def test_a_string_without_a_wrong_letter_lacks_because_it_was_asked_for_more_often() -> None:
    assert named("milk", "milk", 0) == ("absent", "there less often than it was asked for")
    assert named("milk", "mlik", 2)[0] == "minor"
