"""Colour profiles: pictures are judged as sRGB, so what is tagged otherwise is converted.

The profile decides what the numbers of a file look like: the same red is (255, 0, 0) in sRGB and
(234, 51, 35) in Display P3. :func:`to_srgb` belongs between decoding and everything that looks at
pixels; what it found is left with the picture under :data:`NOTE`.
"""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from tasks.checks.base import Expected, Picture
from tasks.records import Finding

#: Key in :attr:`~tasks.checks.base.Picture.notes` of the kind and the name of the profile.
NOTE = "colour_profile"

#: ``none``: not tagged, read as sRGB as every browser does. ``converted``: was not sRGB and is now.
#: ``unknown``: nobody can say what the numbers mean (CMYK without a profile, a broken profile, a
#: signalled space that is not supported here).
Kind = Literal["none", "srgb", "converted", "unknown"]

#: Profiles of printing presses have up to 3 MB; nothing sound is larger.
_MAX_BYTES = 8 * 2**20
#: 8-bit levels up to which a profile says the same as sRGB: rounding of its tables.
_SAME = 2
#: ``gAMA`` of sRGB is 0.45455; encoders write it with this much slack.
_SRGB_GAMMA, _GAMMA_SLACK = 1 / 2.2, 0.02
#: Code points of ITU-T H.273 for BT.709 or sRGB primaries and curves, and for "not specified".
_SRGB_PRIMARIES, _SRGB_TRANSFERS = frozenset({1, 2}), frozenset({1, 2, 6, 13, 14, 15})


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture in sRGB, and what its file said about its colours."""

    image: Image.Image
    kind: Kind
    #: Name of the profile or what is wrong; empty for ``none``.
    profile: str

    @property
    def note(self) -> tuple[str, str]:
        """What belongs under :data:`NOTE`."""
        return (self.kind, self.profile)


def to_srgb(image: Image.Image, data: bytes = b"") -> Shown:
    """Convert a decoded picture to sRGB by its embedded profile.

    Relative colorimetric with black point compensation, as browsers and editors show it.

    Args:
        image: Loaded, any mode; its ``icc_profile`` and ``gamma`` are read from ``info``.
        data: The file, for the colour space that PNG and AVIF signal without a profile.

    Returns:
        A picture that converts to RGB by Pillow alone (transparency is kept). Whatever cannot be
        converted comes back as it was, with kind ``unknown``. Never raises for what a profile
        holds.
    """
    signalled = cicp(data)
    if signalled is not None:
        # It goes before every other chunk (PNG, third edition, 4.3).
        primaries, transfer = signalled
        if primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS:
            if not image.info.get("icc_profile"):
                return Shown(image, "srgb", f"cICP {primaries}/{transfer}")
        else:
            return Shown(image, "unknown", f"cICP {primaries}/{transfer} is not supported")
    profile = image.info.get("icc_profile")
    if profile:
        return _by_profile(image, profile)
    if image.mode == "CMYK":
        return Shown(image, "unknown", "CMYK without a profile")
    gamma = image.info.get("gamma")
    if isinstance(gamma, float) and "srgb" not in image.info:
        return _by_gamma(image, gamma)
    return Shown(image, "none", "")


def _by_profile(image: Image.Image, profile: bytes) -> Shown:
    colour, alpha = _without_alpha(image)
    try:
        if len(profile) > _MAX_BYTES:
            raise ValueError(f"a profile of {len(profile):,} bytes")
        name, space = _describe(profile)
        if colour.mode == "L" and space == "RGB":
            colour = colour.convert("RGB")
        if {"L": "GRAY", "LAB": "Lab"}.get(colour.mode, colour.mode) != space:
            raise ValueError(f"a profile for {space} in a picture that is {colour.mode}")
        transform = _transform(profile, colour.mode)
        if transform is None:
            return Shown(image, "srgb", name)
        shown = ImageCms.applyTransform(colour, transform)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        what = str(error).strip() or type(error).__name__
        return Shown(image, "unknown", f"the profile cannot be used: {what}"[:200])
    if shown is None:  # Only when converting in place.
        raise RuntimeError("the colour transform gave no picture")
    if alpha is not None:
        shown.putalpha(alpha)
    return Shown(shown, "converted", name)


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colour channels in a mode that lcms takes, and the transparency."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey), None
    if image.mode in ("RGB", "L", "CMYK", "LAB") and "transparency" not in image.info:
        return image, None
    if image.mode in ("1", "I", "F"):
        return image.convert("L"), None
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if image.mode in ("LA", "La", "L"):
            return rgba.convert("RGB").getchannel("R"), alpha
        return rgba.convert("RGB"), alpha
    return image.convert("RGB"), None


@functools.lru_cache(maxsize=16)
def _describe(profile: bytes) -> tuple[str, str]:
    """Return the name and the colour space (``RGB``, ``GRAY``, ``CMYK``, ``Lab``) of a profile."""
    read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    name = ImageCms.getProfileDescription(read).strip() or "a profile without a name"
    printable = "".join(c if c.isprintable() else " " for c in name)
    return printable[:80], read.profile.xcolor_space.strip()


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the way to sRGB, or ``None`` when the profile is sRGB by another name."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode not in ("RGB", "L"):
        return transform
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    if mode == "L":
        probe = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :, None], 3, axis=2)
    source = Image.fromarray(probe)
    shown = ImageCms.applyTransform(source if mode == "RGB" else source.getchannel("R"), transform)
    away = np.abs(np.asarray(shown).astype(np.int16) - probe.astype(np.int16)).max()
    return None if away <= _SAME else transform


def _by_gamma(image: Image.Image, gamma: float) -> Shown:
    """Apply the ``gAMA`` chunk of a PNG (specification, 13.13) when it is not that of sRGB."""
    if not 0.1 <= gamma <= 10:
        return Shown(image, "unknown", f"gAMA {gamma:g} makes no sense")
    if abs(gamma - _SRGB_GAMMA) <= _GAMMA_SLACK:
        return Shown(image, "none", "")
    colour, alpha = _without_alpha(image)
    linear = (np.arange(256) / 255) ** (1 / gamma)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    table = np.rint(encoded * 255).clip(0, 255).astype(int).tolist()
    shown = colour.point(table * len(colour.getbands()))
    if alpha is not None:
        shown = shown.convert("RGB")
        shown.putalpha(alpha)
    return Shown(shown, "converted", f"gAMA {gamma:g}")


def cicp(data: bytes) -> tuple[int, int] | None:
    """Return the colour primaries and transfer that a PNG or AVIF signals by ITU-T H.273 codes.

    ``None`` when it signals none. A PNG is read up to its pixels.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while at + 12 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, at)
            if kind == b"IDAT":
                return None
            if kind == b"cICP" and length == 4:
                return data[at + 8], data[at + 9]
            at += 12 + length
        return None
    if data[4:8] == b"ftyp":
        at = data.find(b"colrnclx", 0, 65_536)
        if 0 <= at <= len(data) - 12:
            primaries, transfer = struct.unpack_from(">HH", data, at + 8)
            return primaries, transfer
    return None


def unknown(picture: Picture) -> str:
    """Return why nobody can say what the colours of a picture are, or nothing."""
    kind, profile = (*picture.notes.get(NOTE, ()), "", "")[:2]
    return profile if kind == "unknown" else ""


@dataclass(frozen=True, slots=True)
class Profile:
    """The file says what its colours mean.

    A picture without a profile is read as sRGB and passes, with a word about it, unless a profile
    is required. Colours that nobody can know are skipped, here and by every check of colour.
    """

    #: Whether a picture without a profile is a defect.
    required: bool = False
    name: str = "colour.profile"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: 1 when the colours are known, 0 without a profile where one is required."""
        if NOTE not in picture.notes:
            return self._skip("what the file said about its colours is not known")
        kind, profile = picture.notes[NOTE]
        if kind == "unknown" and not (self.required and "without a profile" in profile):
            return self._skip(f"colours cannot be known: {profile}")
        bad = self.required and kind in ("none", "unknown")
        message = {"none": "no profile: read as sRGB", "converted": f"converted from {profile}"}
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if bad else "pass",
            score=0.0 if bad else 1.0,
            limit=1.0,
            message="no profile, and one is required" if bad else message.get(kind, ""),
        )

    def _skip(self, why: str) -> Finding:
        return Finding(check=self.name, version=self.version, verdict="skip", message=why)
