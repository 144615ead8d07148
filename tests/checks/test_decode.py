import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.checks import containers
from tasks.checks.base import Expected
from tasks.checks.decode import decode, same_mime
from tests.checks.drawing import encoded, header, pixels, png_of, scene

GOOD_PNG = png_of((b"IHDR", header()), (b"IDAT", pixels()), (b"IEND", b""))
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
SMALL = {kind: encoded(scene(48, 40), kind) for kind in FORMATS}


def verdict(data: bytes, declared: str | None = None) -> str:
    return decode(data, Expected(declared_mime=declared)).findings[0].verdict


def message(data: bytes) -> str:
    return decode(data, Expected()).findings[0].message


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_files_decode(kind: str) -> None:
    decoded = decode(SMALL[kind], Expected())
    assert decoded.picture is not None
    assert decoded.picture.rgb.shape == (40, 48, 3)
    assert decoded.picture.rgb.dtype == np.uint8
    assert containers.sniff(SMALL[kind]) == decoded.picture.mime


@pytest.mark.parametrize("kind", FORMATS)
def test_files_cut_short_fail_at_every_length(kind: str) -> None:
    whole = SMALL[kind]
    # BMP and TIFF put no end mark; their last bytes may be padding or metadata.
    for kept in range(0, len(whole) - 4, 37):
        assert verdict(whole[:kept]) == "fail", kept


@settings(max_examples=120, deadline=None)
@given(st.data(), st.sampled_from(FORMATS))
def test_flipped_bits_never_crash(data: st.DataObject, kind: str) -> None:
    broken = bytearray(SMALL[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] ^= data.draw(st.integers(1, 255))
    found = decode(bytes(broken), Expected(declared_mime="image/png"))
    assert {f.check for f in found.findings} == {"decode.file", "decode.mime", "decode.still"}
    assert (found.picture is None) == (found.findings[0].verdict == "fail")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_byte_of_a_png_is_found(data: st.DataObject) -> None:
    broken = bytearray(GOOD_PNG)
    place = data.draw(st.integers(8, len(broken) - 1))
    broken[place] ^= data.draw(st.integers(1, 255))
    assert verdict(bytes(broken)) == "fail"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"GIF89a", b"\xff\xd8\xff", b"RIFF", b"BM"]))
def test_noise_is_no_picture_and_no_crash(noise: bytes, start: bytes) -> None:
    assert decode(start + noise, Expected()).findings[0].verdict in {"pass", "fail"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png_of((b"IDAT", pixels()), (b"IHDR", header()), (b"IEND", b"")), "instead of IHDR"),
        (png_of((b"IHDR", header()), (b"IHDR", header()), (b"IEND", b"")), "second chunk"),
        (png_of((b"IHDR", header()), (b"IEND", b"")), "no pixel data"),
        (png_of((b"IHDR", header()), (b"IDAT", pixels())), "cut short after IDAT"),
        (GOOD_PNG + b"more", "after the end chunk"),
        (GOOD_PNG.replace(pixels()[:6], b"\x78\x9c!!!!"), "checksum (CRC)"),
        (png_of((b"IHDR", header()), (b"IDAT", b"junk"), (b"IEND", b"")), "damaged pixel data"),
        (png_of((b"IHDR", header()), (b"IDAT", pixels(4, 3)), (b"IEND", b"")), "ends after"),
        (png_of((b"IHDR", header()), (b"IDAT", pixels()[:-2]), (b"IEND", b"")), "no end"),
        (png_of((b"IHDR", header()), (b"IDAT", pixels()[:-4] + b"\1\2\3\4"), (b"IEND", b"")),
         "damaged pixel data"),
        (png_of((b"IHDR", header()), (b"IDAT", pixels()), (b"IDAT", pixels()), (b"IEND", b"")),
         "more pixel data"),
        (png_of((b"IHDR", header()), (b"IDAT", pixels()[:5]), (b"tEXt", b"a\0b"),
                (b"IDAT", pixels()[5:]), (b"IEND", b"")), "do not follow one another"),
        (png_of((b"IHDR", header()), (b"CRIT", b""), (b"IDAT", pixels()), (b"IEND", b"")),
         "unknown critical"),
        (png_of((b"IHDR", header(colour=5)), (b"IDAT", pixels()), (b"IEND", b"")), "not exist"),
        (png_of((b"IHDR", header()), (b"acTL", struct.pack(">II", 3, 0)), (b"IDAT", pixels()),
                (b"IEND", b"")), "animation of 3 frames"),
        (SMALL["GIF"][:-1], "no trailer"),
        (SMALL["JPEG"][:-2], "end-of-image"),
        (SMALL["WEBP"] + b"abc", "after the end"),
        (SMALL["AVIF"][:-9], "beyond the end"),
        (b"", "empty"),
        (b"<!DOCTYPE html><html>502</html>", "HTML"),
        (b'{"error": "no"}', "JSON"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not a supported image"),
    ],
)  # fmt: skip
def test_damage_is_named(data: bytes, says: str) -> None:
    assert says in message(data)


def bomb_gif() -> bytes:
    data = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    data[6:10] = struct.pack("<HH", 60_000, 60_000)
    return bytes(data)


def bomb_webp() -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff\xff\x0f" + b"\xff\xff\x0f"
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bomb_inflating() -> bytes:
    return png_of((b"IHDR", header()), (b"IDAT", zlib.compress(b"\0" * 8_000_000)), (b"IEND", b""))


@pytest.mark.parametrize(
    "data",
    [
        png_of((b"IHDR", header(200_000, 200_000)), (b"IDAT", pixels()), (b"IEND", b"")),
        png_of((b"IHDR", header(0, 4)), (b"IDAT", pixels()), (b"IEND", b"")),
        bomb_gif(),
        bomb_webp(),
        bomb_inflating(),
        encoded(Image.new("1", (9_000, 8_000)), "TIFF"),
        GOOD_PNG + b"\0" * (65 * 2**20),
    ],
)
def test_bombs_are_refused_before_they_open(data: bytes) -> None:
    said = message(data)
    assert any(word in said for word in ("allowed", "declares", "more than", "no picture")), said


def test_an_animation_of_too_many_frames_is_refused() -> None:
    frames = [Image.new("L", (1, 1), n % 256) for n in range(1_101)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], optimize=False)
    assert "1,000 frames" in message(gif)


def test_every_frame_is_decoded_and_the_first_judged() -> None:
    frames = [scene(60, 50, seed) for seed in (1, 2, 3)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    found = decode(data, Expected())
    assert "animation of 3 frames" in found.findings[0].message
    assert found.picture is not None
    assert np.array_equal(found.picture.rgb, np.asarray(frames[0]))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_fails_where_a_picture_was_asked_for(kind: str) -> None:
    frames = [scene(60, 50, seed) for seed in (1, 2, 3)]
    moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    found = decode(moving, Expected(prompt="a kite")).findings[2]
    assert (found.check, found.verdict, found.score) == ("decode.still", "fail", 3)
    assert decode(moving, Expected()).findings[2].verdict == "skip"
    still = decode(encoded(frames[0], kind), Expected(prompt="a kite")).findings[2]
    assert still.verdict == "pass"


def test_pages_of_a_tiff_are_no_animation() -> None:
    frames = [scene(60, 50, seed) for seed in (1, 2)]
    pages = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert decode(pages, Expected(prompt="a kite")).findings[2].verdict == "pass"


@pytest.mark.parametrize(
    ("declared", "verdict_mime"),
    [
        ("image/png", "pass"), ("IMAGE/PNG; q=1", "pass"), ("image/x-png", "pass"),
        ("image/jpeg", "fail"), ("text/html", "fail"), (None, "skip"),
    ],
)  # fmt: skip
def test_declared_type_is_compared(declared: str | None, verdict_mime: str) -> None:
    assert decode(GOOD_PNG, Expected(declared_mime=declared)).findings[1].verdict == verdict_mime


def test_declared_type_of_a_broken_file_is_judged_too() -> None:
    found = decode(b"<html>", Expected(declared_mime="image/png"))
    assert found.findings[1].verdict == "fail"
    assert same_mime("image/jpg", "image/jpeg")


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (30, 20), "white")
    image.paste("red", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = decode(encoded(image, "PNG", exif=exif), Expected()).picture
    assert shown is not None
    assert shown.rgb.shape == (30, 20, 3)
    assert tuple(shown.rgb[0, -1]) == (255, 0, 0)


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    shown = decode(encoded(image), Expected()).picture
    assert shown is not None
    assert tuple(shown.rgb[3, 3]) == (255, 255, 255)
    assert tuple(shown.rgb[0, 0]) == (0, 0, 255)
    assert tuple(shown.rgb[0, 1]) == (127, 127, 127)


def test_wide_and_odd_modes_become_rgb() -> None:
    ramp = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    wide = decode(encoded(Image.fromarray(ramp)), Expected()).picture
    assert wide is not None
    assert list(wide.rgb[:, :, 0].flatten()) == [v >> 8 for v in ramp.flatten()]
    cmyk = decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), Expected()).picture
    assert cmyk is not None
    assert cmyk.rgb.min() >= 250
    palette = decode(encoded(scene(20, 20).convert("P")), Expected()).picture
    assert palette is not None
    floats = decode(encoded(Image.new("F", (8, 8), 0.5), "TIFF"), Expected()).picture
    assert floats is not None
    assert set(floats.rgb.flatten()) == {127}


def jpeg_with_exif(block: bytes) -> bytes:
    whole = SMALL["JPEG"]
    body = b"Exif\0\0" + block
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]


def test_a_broken_exif_directory_is_damage() -> None:
    entry = struct.pack("<HHII", 0x0112, 3, 1, 1)
    good = b"II*\0" + struct.pack("<IH", 8, 1) + entry + b"\0" * 4
    assert verdict(jpeg_with_exif(good)) == "pass"
    many = b"II*\0" + struct.pack("<IH", 8, 900) + entry
    assert "cut short" in message(jpeg_with_exif(many))
    link = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8769, 2, 4, 26) + b"\0" * 4
    assert "link" in message(jpeg_with_exif(link))


def test_a_palette_that_is_too_short_in_a_lossless_webp_is_damage() -> None:
    image = Image.new("RGB", (16, 16), "navy")
    image.paste("gold", (4, 4, 12, 12))
    data = encoded(image, "WEBP", lossless=True)
    at = containers.webp_opaque_palette(data)
    assert at is not None
    assert verdict(data) == "pass"
    assert containers.webp_opaque_palette(SMALL["WEBP"]) is None


def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    decode(SMALL["PNG"], Expected())
    decode(SMALL["PNG"][:50], Expected())
    assert capfd.readouterr() == ("", "")
