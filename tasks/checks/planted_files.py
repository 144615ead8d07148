"""Defects of the file: cut, damaged, extended, something else altogether, wrongly declared."""

from __future__ import annotations

import numpy as np

from tasks.checks.decode import FILE, MIME
from tasks.checks.planted_base import Defect, Good, Planted, choice, encoded

_PNG, _JPEG, _WEBP = "PNG", "JPEG", "WEBP"
_CURVE = (0.001, 0.01, 0.1, 0.5)


def _as(good: Good, kind: str) -> bytes:
    """Return the good picture as a file of a kind; the bytes as they are where they are that."""
    if good.picture.mime == f"image/{kind.lower()}":
        return good.data
    return encoded(good.rgb, kind, **({} if kind == _PNG else {"quality": 90}))


def _any(good: Good, rng: np.random.Generator) -> bytes:
    """Return a picture of ours in one of three formats, and a real file as it came."""
    if good.job is None and good.picture.mime in ("image/png", "image/jpeg", "image/webp"):
        return good.data
    return _as(good, choice((_PNG, _PNG, _JPEG, _WEBP), rng))


def truncated(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Cut the end of the file off, at least one byte."""
    file = _any(good, rng)
    return good.sent(file[: len(file) - max(1, round(strength * len(file)))])


def flipped(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Change bytes of the compressed pixels of a PNG, which its checksums guard."""
    file = bytearray(_as(good, _PNG))
    start = file.index(b"IDAT") + 8
    count = max(1, round(strength * 1000))
    for at in rng.integers(start, len(file) - 16, count):
        file[int(at)] ^= int(rng.integers(1, 256))
    return good.sent(bytes(file))


def extended(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Put bytes behind the end of a PNG: a second answer, a page, another file."""
    file = _as(good, _PNG)
    more = rng.integers(1, 256, max(1, round(strength * 10_000)), dtype=np.uint8).tobytes()
    return good.sent(file + more)


def endless(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Leave out the PNG's end mark, which Pillow does not miss."""
    return good.sent(_as(good, _PNG)[:-12])


def wrong_signature(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Damage bytes of the signature."""
    file = bytearray(_as(good, _PNG))
    for at in rng.choice(8, max(1, round(strength * 8)), replace=False):
        file[int(at)] ^= int(rng.integers(1, 256))
    return good.sent(bytes(file))


def a_page(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Send an error page or a JSON error where a picture should be."""
    bodies = (
        b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body></body></html>",
        b'{"error": {"code": 500, "message": "internal error"}}',
        b"",
        b"upstream connect error or disconnect/reset before headers",
    )
    return good.sent(choice(bodies, rng))


def misdeclared(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Declare another format than the file has."""
    others = ("image/png", "image/jpeg", "image/webp", "image/gif", "text/html")
    kind = choice((_PNG, _JPEG, _WEBP), rng)
    wrong = choice([other for other in others if other != f"image/{kind.lower()}"], rng)
    return good.sent(_as(good, kind), declared_mime=wrong)


DEFECTS = (
    Defect("cut short", FILE, 0.1, truncated, "share of the bytes cut off", _CURVE),
    Defect("damaged bytes", FILE, 0.01, flipped, "thousandths: bytes changed", _CURVE),
    Defect("bytes behind the end", FILE, 0.01, extended, "ten thousand bytes", _CURVE),
    Defect("no end mark", FILE, 1.0, endless, "all or nothing", (1.0,)),
    Defect("wrong signature", FILE, 0.1, wrong_signature, "share of 8 bytes", (0.1, 0.5, 1.0)),
    Defect("no picture", FILE, 1.0, a_page, "all or nothing", (1.0,)),
    Defect("wrongly declared", MIME, 1.0, misdeclared, "all or nothing", (1.0,)),
)
