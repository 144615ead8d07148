"""Bodies on their way in: nothing is lost, doubled or mixed up, and nothing is taken on trust."""

from __future__ import annotations

import random

import pytest

from tasks.providers import bodies
from tasks.providers.bodies import MOST_START, START, Body, Memory


def fill(body: Body, data: bytes, draw: random.Random) -> None:
    """Write bytes as the loop does: some of the room, then the next room."""
    at = 0
    while at < len(data):
        room = body.room()
        count = min(len(room), len(data) - at, draw.randint(1, 70_000))
        room[:count] = data[at : at + count]
        body.filled(count)
        at += count


@pytest.mark.parametrize("length", [0, 1, 999, START, START + 1, 5 * START + 7])
@pytest.mark.parametrize("start", [0, 1, 500, START])
def test_a_body_is_what_came_however_it_came(length: int, start: int) -> None:
    draw = random.Random(length + start)
    data = draw.randbytes(length)
    body = Body(length, lambda: None, bytearray(b"x" * start))
    assert body.put(data[: length // 3]) == b""
    fill(body, data[length // 3 :], draw)
    assert body.whole
    assert body.enough
    assert body.data() == data


def test_bytes_beyond_the_end_are_given_back() -> None:
    body = Body(4, lambda: None, bytearray(10))
    assert body.put(b"abcdef") == b"ef"
    assert body.data() == b"abcd"
    assert body.put(b"more") == b"more"
    assert body.data() == b"abcd"


def test_room_never_reaches_beyond_the_end() -> None:
    body = Body(4, lambda: None, bytearray(10))
    assert len(body.room()) == 4
    body.filled(3)
    assert len(body.room()) == 1


def test_a_length_that_is_only_claimed_takes_no_memory() -> None:
    body = Body(10**15, lambda: None, bytearray(START))
    for _ in range(3):
        assert len(body.room()) <= START
        body.filled(1000)
    assert body.size == 3000
    assert len(body.data()) == 3000
    # As many again as came.
    body.filled(START - 3000)
    assert len(body.room()) == START


def test_the_reader_has_enough_before_the_body_is_whole() -> None:
    body = Body(1000, lambda: None, bytearray(100))
    body.wanted = 11
    body.put(b"x" * 10)
    assert not body.enough
    body.put(b"x")
    assert body.enough
    assert not body.whole


def test_every_arrival_is_told_first() -> None:
    told: list[int] = []
    body = Body(10, lambda: told.append(body.size), bytearray(4))
    body.put(b"0123456789")
    assert told == [0, 4]


def test_memory_grows_with_the_bodies_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "START", 100)
    memory = Memory()
    assert not memory.suits(None)
    assert memory.suits(memory.new())
    memory.saw(50)
    assert len(memory.new()) == 100
    memory.saw(200)
    assert not memory.suits(bytearray(199))
    assert len(memory.new()) == 200
    memory.saw(10**12)
    assert len(memory.new()) == MOST_START
