from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.alerts.contact_sheet import MOST, contact_sheet
from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.errors import EvidenceError


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(path: Path) -> np.ndarray:
    decoded = decode(path.read_bytes(), Expected()).picture
    assert decoded is not None
    return decoded.rgb


def has(sheet: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(sheet.astype(int) - colour).max(axis=2) <= 2).any())


def test_nothing_to_show_is_no_sheet(tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    assert contact_sheet([], target) is None
    assert not target.exists()


def test_pictures_from_bytes_and_files_are_on_the_sheet(tmp_path: Path) -> None:
    stored = tmp_path / "stored.png"
    stored.write_bytes(picture((200, 30, 30)))
    target = contact_sheet(
        [(stored, "red"), (picture((20, 160, 40)), "green")], tmp_path / "sheet.png"
    )
    assert target is not None
    sheet = pixels(target)
    assert has(sheet, (200, 30, 30))
    assert has(sheet, (20, 160, 40))


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (5, 4, 2), (12, 4, 3), (40, 4, 3)]
)
def test_a_sheet_holds_twelve_at_the_most(
    tmp_path: Path, count: int, columns: int, rows: int
) -> None:
    target = contact_sheet([(picture((9, 9, 9)), "x")] * count, tmp_path / "sheet.png")
    assert target is not None
    height, width, _ = pixels(target).shape
    assert (width, height) == (16 + columns * 256, 16 + rows * 316)
    assert MOST == 12


@pytest.mark.parametrize("data", [b"", b"<html>", picture((1, 2, 3))[:40], b"GIF89a\x00"])
def test_what_does_not_decode_gets_a_grey_tile(tmp_path: Path, data: bytes) -> None:
    target = contact_sheet([(data, "broken")], tmp_path / "sheet.png")
    assert target is not None
    sheet = pixels(target)
    assert has(sheet, (226, 228, 232))
    middle = sheet[16 + 100 : 16 + 140, 16:256]
    assert (middle < 100).any(), "the tile says why"


def test_a_missing_file_gets_a_grey_tile(tmp_path: Path) -> None:
    target = contact_sheet([(tmp_path / "gone.png", "gone")], tmp_path / "sheet.png")
    assert target is not None
    assert has(pixels(target), (226, 228, 232))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    target = contact_sheet([(buffer.getvalue(), "bomb")], tmp_path / "sheet.png")
    assert target is not None
    assert has(pixels(target), (226, 228, 232))


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "typography.legible_text read “SUMER” for “SUMMER” in a very long sentence that goes on",
        "x" * 5000,
        "עברית مرحبا 中文 ไทย हिन्दी 😀 \ue000",
        "\x1b[31m\u202e\ud800\n\x00",
    ],
)
def test_any_caption_stays_inside_its_tile(tmp_path: Path, caption: str) -> None:
    target = contact_sheet([(picture((9, 9, 9)), caption)] * 2, tmp_path / "sheet.png")
    assert target is not None
    sheet = pixels(target)
    gap = sheet[:, 258:270]
    assert (gap == 255).all(), "a caption runs into the next tile"
    assert (sheet[-8:] == 255).all(), "a caption runs off the sheet"
    ink = (sheet[16 + 242 : -8] < 128).any()
    assert ink == bool(caption.strip("\x1b\u202e\n\x00"))


def test_noise_is_a_picture_like_any_other(tmp_path: Path) -> None:
    draw = random.Random(7)
    buffer = io.BytesIO()
    noise = Image.frombytes("RGB", (300, 900), draw.randbytes(300 * 900 * 3))
    noise.save(buffer, "JPEG")
    target = contact_sheet([(buffer.getvalue(), "noise")], tmp_path / "sheet.png")
    assert target is not None
    sheet = pixels(target)
    assert (sheet[16:256, 16:90] >= 200).all(), "a tall picture stands in the middle of its tile"


def test_a_full_disk_is_an_evidence_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EvidenceError, match="cannot be written"):
        contact_sheet([(picture((1, 2, 3)), "x")], blocked / "sheet.png")
