"""Rules of the containers that Pillow lets pass, each on a file that is built here."""

import re
import struct
import time
import zlib

import pytest
from PIL import Image, ImageCms

from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tests.checks.drawing import encoded, header, pixels, png_of, scene


def message(data: bytes) -> str:
    """What is wrong with a file; empty for one that is accepted."""
    found = decode(data, Expected()).findings[0]
    return found.message if found.verdict == "fail" else ""


# --- PNG ---------------------------------------------------------------------------------------

END = (b"IEND", b"")
INDEXED = zlib.compress(b"\0\0\1\0" * 4)


@pytest.mark.parametrize("length", [None, 0, 5, 771])
def test_a_png_of_indices_needs_a_palette(length: int | None) -> None:
    start = (b"IHDR", header(3, 4, colour=3))
    good = png_of(start, (b"PLTE", b"\0\x40\x80" * 2), (b"IDAT", INDEXED), END)
    assert message(good) == ""
    palette = [] if length is None else [(b"PLTE", b"\0" * length)]
    assert "palette" in message(png_of(start, *palette, (b"IDAT", INDEXED), END))


def test_two_colour_spaces_in_a_png_do_not_hurt_its_pixels() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    chunk = (b"iCCP", b"sRGB\0\0" + zlib.compress(profile))
    body = (b"IDAT", pixels())
    assert message(png_of((b"IHDR", header()), chunk, chunk, body, END)) == ""
    twice = [(b"tRNS", b"\0" * 6)] * 2
    assert "second chunk" in message(png_of((b"IHDR", header()), *twice, body, END))


@pytest.mark.parametrize(("after", "good"), [(b"\n", True), (b"\r\n", True), (b"ab", False)])
def test_a_line_break_may_follow_a_png(after: bytes, good: bool) -> None:
    whole = png_of((b"IHDR", header()), (b"IDAT", pixels()), END)
    assert (message(whole + after) == "") == good


@pytest.mark.parametrize(("spare", "good"), [(2, True), (20, False)])
def test_a_few_spare_bytes_may_follow_the_pixel_stream(spare: int, good: bool) -> None:
    body = pixels() + b"\x5a" * spare
    assert (message(png_of((b"IHDR", header()), (b"IDAT", body), END)) == "") == good


# --- JPEG --------------------------------------------------------------------------------------


def jpeg(**how: object) -> bytes:
    return encoded(scene(75, 53), "JPEG", **how)


def test_an_empty_comment_of_impossible_length_is_skipped() -> None:
    whole = jpeg()
    assert message(whole[:2] + b"\xff\xfe\x00\x00" + whole[2:]) == ""
    assert "0xdb" in message(whole[:2] + b"\xff\xdb\x00\x00" + whole[2:])


def test_a_sequential_scan_holds_all_coefficients() -> None:
    broken = bytearray(jpeg())
    at = broken.index(b"\xff\xda")
    broken[at + 2 + int.from_bytes(broken[at + 2 : at + 4], "big") - 3] = 1
    assert "coefficients" in message(bytes(broken))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "4:2:2"])
def test_restarts_are_counted(progressive: bool, subsampling: str) -> None:
    whole = jpeg(restart_marker_blocks=3, progressive=progressive, subsampling=subsampling)
    assert b"\xff\xd1" in whole
    assert message(whole) == ""
    assert "restarts" in message(whole.replace(b"\xff\xd1", b"\xff\xd2", 1))
    assert "restarts" in message(whole.replace(b"\xff\xd1", b"", 1))


def test_restarts_without_an_interval_are_damage() -> None:
    whole = encoded(scene(75, 53).convert("L"), "JPEG", restart_marker_blocks=4)
    at = whole.index(b"\xff\xdd")
    assert message(whole) == ""
    assert "instead of 0" in message(whole[:at] + whole[at + 6 :])


def test_a_broken_index_of_views_leaves_the_first_picture() -> None:
    views = encoded(scene(64, 48), "MPO", save_all=True, append_images=[scene(64, 48, 2)])
    assert message(views) == ""
    at = views.index(b"MPF\0")
    broken = views[: at + 4] + b"XX*\0" + views[at + 8 :]
    found = decode(broken, Expected())
    assert found.findings[0].verdict == "pass"
    assert found.picture is not None
    assert found.picture.rgb.shape == (48, 64, 3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [0, 5])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_lost_bytes_of_coded_data_are_found(progressive: bool, restarts: int, mode: str) -> None:
    how = {"progressive": progressive, "restart_marker_blocks": restarts}
    whole = encoded(scene(90, 70).convert(mode), "JPEG", **how)
    assert message(whole) == ""
    start = whole.index(b"\xff\xda") + 20
    marker = re.search(rb"\xff[^\0]", whole[start:])  # The end of the first run of coded data.
    assert marker is not None
    end = start + marker.start()
    assert end - start > 4
    assert "ends before" in message(whole[: end - 3] + whole[end:])


def test_pictures_that_use_up_their_data_pass_with_whatever_stands_around() -> None:
    for quality in (5, 60, 100):
        for size in ((1, 1), (8, 8), (17, 33), (64, 7)):
            assert (
                message(encoded(scene(40, 40, quality).resize(size), "JPEG", quality=quality)) == ""
            )
    whole = jpeg(comment=b"a comment", exif=Image.Exif())
    at = whole.index(b"\xff\xdb")
    assert message(whole[:at] + b"junk" + whole[at:] + b"behind the end") == ""


@pytest.mark.parametrize(("side", "more"), [(64, 120), (3_000, 90)])
def test_a_jpeg_cannot_have_scans_without_end(side: int, more: int) -> None:
    whole = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    assert message(whole) == ""
    began = time.process_time()
    assert "scans" in message(whole[:at] + whole[at:-2] * more + whole[-2:])
    assert time.process_time() - began < 1


# --- GIF ---------------------------------------------------------------------------------------


def gif(codes: list[int], *, size: int = 2, spare: bytes = b"") -> bytes:
    """A GIF of ``size`` × ``size`` pixels from codes of three bits: 0 to 3, clear 4, end 5."""
    bits = sum(code << (3 * place) for place, code in enumerate(codes))
    coded = bits.to_bytes(-(-3 * len(codes) // 8), "little") + spare
    table = bytes(range(12))
    screen = struct.pack("<HHBBB", size, size, 0x81, 0, 0)
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, size, size, 0)
    return b"GIF89a" + screen + table + frame + bytes([2, len(coded)]) + coded + b"\0;"


WHOLE = [4, 0, 1, 4, 2, 3]


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ([*WHOLE, 5], ""),
        (WHOLE, ""),  # No end code.
        ([4, 0, 4, 1, 4, 2, 4, 3], ""),
        ([*WHOLE, 4, 0, 5], "more than the 4 pixels"),
        ([*WHOLE, 4, 7, 5], "no meaning"),
        ([*WHOLE, 4, 1, 1, 4, 1, 1, 4, 1, 1], "more than the 4 pixels"),
    ],
)
def test_the_data_of_a_frame_fill_just_it(codes: list[int], says: str) -> None:
    found = message(gif(codes))
    assert says in found if says else not found


def test_whole_gifs_of_every_kind_are_followed_to_their_end() -> None:
    picture = scene(300, 200)
    noise = Image.effect_noise((300, 200), 90)  # Fills the table of codes many times.
    for image in (picture, noise, picture.convert("1"), noise.convert("RGB")):
        assert message(encoded(image, "GIF")) == ""
    assert message(encoded(picture, "GIF", save_all=True, append_images=[noise])) == ""


# --- TIFF, ICO ---------------------------------------------------------------------------------


def tiff(**how: object) -> tuple[bytearray, int]:
    data = bytearray(encoded(scene(40, 30), "TIFF", **how))
    return data, struct.unpack_from("<I", data, 4)[0]


def test_the_fields_of_a_tiff_ascend() -> None:
    data, at = tiff()
    first, second = at + 2, at + 14
    assert message(bytes(data)) == ""
    data[first : first + 12], data[second : second + 12] = (
        data[second : second + 12],
        data[first : first + 12],
    )
    assert "out of order" in message(bytes(data))


def test_what_is_told_aside_in_a_tiff_may_stand_anywhere() -> None:
    data, at = tiff(tiffinfo={305: "x"})
    places = range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12)
    where = next(p for p in places if struct.unpack_from("<H", data, p)[0] == 305)
    before = where - 12
    data[before : before + 12], data[where : where + 12] = (
        data[where : where + 12],
        data[before : before + 12],
    )
    assert message(bytes(data)) == ""


@pytest.mark.parametrize("place", [0, 4, 2**31])
def test_values_of_a_tiff_lie_in_the_file(place: int) -> None:
    data, at = tiff()
    fields = range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12)
    bits = next(p for p in fields if struct.unpack_from("<H", data, p)[0] == 258)
    struct.pack_into("<I", data, bits + 8, place)
    assert "field 258" in message(bytes(data))


def test_a_big_tiff_is_a_tiff() -> None:
    data = encoded(scene(40, 30), "TIFF", big_tiff=True)
    assert data.startswith(b"II+\0")
    assert decode(data, Expected(declared_mime="image/tiff")).findings[1].verdict == "pass"
    assert message(data) == ""
    assert "outside" in message(data[:8] + struct.pack("<Q", len(data) + 9) + data[16:])


def test_the_pictures_of_an_icon_are_all_there() -> None:
    data = bytearray(encoded(scene(32, 32), "ICO", sizes=[(32, 32)], bitmap_format="bmp"))
    assert message(bytes(data)) == ""
    data[6] = 16  # The size in the directory is a hint.
    assert message(bytes(data)) == ""
    length = struct.unpack_from("<I", data, 14)[0]
    struct.pack_into("<I", data, 14, length // 2)
    assert "entry" in message(bytes(data))
    struct.pack_into("<I", data, 14, length * 2)
    assert "beyond the end" in message(bytes(data))


def test_the_pages_of_a_tiff_are_limited_together() -> None:
    large = [Image.new("1", (7_900, 8_000))] * 5  # Each is allowed, and the first is small.
    data = encoded(Image.new("1", (8, 8)), "TIFF", save_all=True, append_images=large)
    assert "together" in message(data)


# --- AVIF --------------------------------------------------------------------------------------


def test_items_of_an_avif_lie_in_the_file_whatever_the_last_box_says() -> None:
    whole = encoded(scene(64, 48), "AVIF")
    at = whole.index(b"mdat") - 4
    opened = whole[:at] + bytes(4) + whole[at + 4 :]  # A box of length 0 reaches to the end.
    assert message(opened) == ""
    assert "item" in message(opened[:-3])
    # An Exif block behind the pixels, which is cut away.
    exif = Image.Exif()
    exif[0x010E] = "a description"
    whole = encoded(scene(64, 48), "AVIF", exif=exif)
    at = whole.index(b"mdat") - 4
    opened = whole[:at] + bytes(4) + whole[at + 4 :]
    assert message(opened) == ""
    assert "item" in message(opened[:-1])


def test_item_locations_cannot_take_for_ever() -> None:
    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", len(body) + 8, name) + body

    items = b"".join(struct.pack(">HHH", n, 0, 0xFFFF) for n in range(60_000))
    meta = box(b"iloc", bytes(4) + b"\0\0" + struct.pack(">H", 60_000) + items)
    start = box(b"ftyp", b"avif" + bytes(4) + b"avif")
    began = time.process_time()
    assert "more than" in message(start + box(b"meta", bytes(4) + meta) + box(b"mdat", b""))
    assert time.process_time() - began < 1
