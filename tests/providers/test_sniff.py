"""The size that a picture's header states, for the price of a megapixel."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.providers.sniff import picture_size

FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True, "comment": b"c" * 3000, "exif": b"Exif\x00\x00" + bytes(2000)}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\x00\x00" + bytes(64)}),
]


def drawn(kind: str, size: tuple[int, int], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (17, 5), (300, 1201), (2048, 16)])
def test_the_size_is_that_of_another_reader(
    kind: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    assert picture_size(drawn(kind, size, **options)) == size


@given(st.sampled_from(FORMATS), st.integers(0, 400), st.binary(max_size=40))
def test_damaged_headers_give_a_size_or_none(
    kind: tuple[str, dict[str, Any]], cut: int, noise: bytes
) -> None:
    data = drawn(kind[0], (64, 48), **kind[1])
    for damaged in (data[:cut], data[:cut] + noise, data[:cut] + noise + data[cut + len(noise) :]):
        found = picture_size(damaged)
        assert found is None or (found[0] > 0 and found[1] > 0)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(20), b"<html>", b"\xff\xd8" * 50_000])
def test_other_bytes_state_none(data: bytes) -> None:
    assert picture_size(data) is None
