import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tasks.checks.base import Expected, Picture
from tasks.checks.icc import NOTE, Profile, cicp, to_srgb, unknown
from tests.checks.drawing import chunk, header, pixels, png_of, scene

#: Display P3 and Adobe RGB (1998): primaries and white of the standards.
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Linear RGB to XYZ under D65 (Lindbloom)."""
    ends = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
    return np.asarray(ends * np.linalg.solve(ends, white))


def fixed(values: np.ndarray) -> bytes:
    return struct.pack(f">{values.size}i", *np.rint(values.ravel() * 65_536).astype(int).tolist())


def profile(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    """A matrix profile (ICC.1:2001, version 2) with a pure gamma."""
    d65, d50 = to_xyz(primaries).sum(axis=1), np.array([0.9642, 1.0, 0.8249])
    scale = np.diag((_BRADFORD @ d50) / (_BRADFORD @ d65))
    matrix = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ to_xyz(primaries)
    name = b"test space\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(d50),
    }
    for number, letter in enumerate(b"rgb"):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(matrix[:, number])
        tags[bytes([letter]) + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += padded
    head = bytearray(128)
    struct.pack_into(">I", head, 0, offset + len(body))
    head[8:12], head[12:24], head[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    head[68:80] = fixed(d50)
    return bytes(head) + struct.pack(">I", len(tags)) + table + body


def converted(
    rgb: np.ndarray, primaries: tuple[tuple[float, float], ...], gamma: float
) -> np.ndarray:
    """What the maths of the standards gives: the reference for lcms."""
    linear = (rgb / 255) ** gamma
    out = linear @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    out = np.clip(out, 0, 1)
    return np.asarray(
        255 * np.where(out <= 0.0031308, out * 12.92, 1.055 * out ** (1 / 2.4) - 0.055)
    )


def tagged(image: Image.Image, data: bytes) -> Image.Image:
    image.info["icc_profile"] = data
    return image


@pytest.mark.parametrize(("primaries", "gamma"), [(P3, 2.2), (ADOBE, 2.19921875)])
def test_wide_spaces_come_out_as_the_standards_say(
    primaries: tuple[tuple[float, float], ...], gamma: float
) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    shown = to_srgb(tagged(Image.fromarray(rgb), profile(primaries, gamma)))
    assert shown.note == ("converted", "test space")
    away = np.abs(np.asarray(shown.image) - converted(rgb, primaries, gamma))
    assert np.quantile(away, 0.99) <= 3
    assert np.median(away) <= 1


def test_srgb_by_another_name_is_left_alone() -> None:
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = tagged(scene(), data)
    shown = to_srgb(image)
    assert shown.kind == "srgb"
    assert shown.image is image


def test_transparency_palettes_and_greys_are_kept() -> None:
    wide = profile(ADOBE, 2.2)
    rgba = Image.new("RGBA", (8, 8), (200, 60, 40, 90))
    shown = to_srgb(tagged(rgba, wide))
    assert (shown.kind, shown.image.mode) == ("converted", "RGBA")
    assert shown.image.getpixel((0, 0))[3] == 90  # type: ignore[index]
    palette = Image.new("RGB", (8, 8), (200, 60, 40)).convert("P", palette=Image.Palette.ADAPTIVE)
    shown = to_srgb(tagged(palette, wide))
    assert shown.image.getpixel((0, 0))[0] > 220  # type: ignore[index]
    grey = to_srgb(tagged(Image.new("L", (8, 8), 128), wide))
    assert grey.kind in ("converted", "srgb")
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    assert to_srgb(tagged(deep, wide)).kind != "unknown"


def test_a_profile_that_is_broken_or_for_something_else_is_unknown() -> None:
    broken = to_srgb(tagged(scene(), b"not a profile"))
    assert broken.kind == "unknown"
    assert "cannot be used" in broken.profile
    cut = to_srgb(tagged(scene(), profile(P3, 2.2)[:200]))
    assert cut.kind == "unknown"
    mismatch = to_srgb(tagged(Image.new("CMYK", (8, 8)), profile(P3, 2.2)))
    assert mismatch.kind == "unknown"
    assert "a profile for RGB in a picture that is CMYK" in mismatch.profile
    assert to_srgb(tagged(scene(), b"\0" * (9 * 2**20))).kind == "unknown"


@pytest.mark.parametrize("at", range(0, 490, 13))
def test_a_damaged_profile_never_breaks(at: int) -> None:
    data = bytearray(profile(P3, 2.2))
    data[at] ^= 0xFF
    assert to_srgb(tagged(Image.new("RGB", (4, 4)), bytes(data))).kind in (
        "converted", "unknown", "srgb",
    )  # fmt: skip


def test_cmyk_without_a_profile_is_unknown_and_rgb_is_srgb() -> None:
    assert to_srgb(Image.new("CMYK", (8, 8))).note == ("unknown", "CMYK without a profile")
    assert to_srgb(scene()).note == ("none", "")


def test_the_gamma_of_a_png_is_applied() -> None:
    def shown(value: int) -> tuple[str, float]:
        gamma = chunk(b"gAMA", struct.pack(">I", value))
        data = png_of((b"IHDR", header()), (b"IDAT", pixels()), (b"IEND", b""))
        data = data[:33] + gamma + data[33:]
        with Image.open(io.BytesIO(data)) as image:  # noqa: TID251 - the test's own file
            image.load()
            found = to_srgb(image, data)
        return found.kind, float(np.asarray(found.image.convert("RGB")).mean())

    assert shown(45_455) == ("none", 128)
    # Linear light: half of it looks brighter than half.
    kind, level = shown(100_000)
    assert kind == "converted"
    assert level == pytest.approx(188, abs=1)
    assert shown(1)[0] == "unknown"


def test_a_signalled_space_goes_first() -> None:
    def file(*codes: int) -> bytes:
        return png_of((b"IHDR", header()), (b"cICP", bytes(codes)), (b"IDAT", pixels()))

    assert cicp(file(1, 13, 0, 1)) == (1, 13)
    assert to_srgb(scene(), file(1, 13, 0, 1)).kind == "srgb"
    wide = to_srgb(scene(), file(9, 16, 0, 1))
    assert wide.note == ("unknown", "cICP 9/16 is not supported")
    assert cicp(png_of((b"IHDR", header()), (b"IDAT", pixels()))) is None
    assert cicp(b"\0\0\0\x1cftypavif" + b"\0" * 40 + b"colrnclx\0\x0c\0\x0d\0\0\x80") == (12, 13)
    for data in (b"", b"\x89PNG\r\n\x1a\n", file(9)[:40], b"\0\0\0\x1cftypavifcolrnclx\0"):
        assert cicp(data) is None


def judged(note: tuple[str, ...] | None, *, required: bool = False) -> tuple[str, str]:
    notes = {} if note is None else {NOTE: note}
    picture = Picture(rgb=np.asarray(scene()), data=b"", mime="image/png", notes=notes)
    found = Profile(required=required).run(picture, Expected())
    return found.verdict, found.message


def test_the_check_reports_what_the_file_said() -> None:
    assert judged(("none", "")) == ("pass", "no profile: read as sRGB")
    assert judged(("srgb", "sRGB")) == ("pass", "")
    assert judged(("converted", "Display P3")) == ("pass", "converted from Display P3")
    verdict, message = judged(("unknown", "CMYK without a profile"))
    assert verdict == "skip"
    assert "CMYK without a profile" in message
    assert judged(None)[0] == "skip"
    assert judged(("none", ""), required=True)[0] == "fail"
    assert judged(("unknown", "CMYK without a profile"), required=True)[0] == "fail"
    assert judged(("unknown", "the profile cannot be used: x"), required=True)[0] == "skip"


def test_unknown_says_why() -> None:
    picture = Picture(rgb=np.asarray(scene()), data=b"", mime="image/png")
    assert unknown(picture) == ""
    picture.notes[NOTE] = ("unknown", "CMYK without a profile")
    assert unknown(picture) == "CMYK without a profile"
