"""What a file is by its first bytes, whatever its name or header says."""

from __future__ import annotations

import json

#: Beginnings of picture files; the longest first where one begins like another.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
)

#: Brands of the ISO base media format, the family of AVIF and HEIC.
_BRANDS: dict[bytes, str] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
}

_HTML = (b"<!doctype", b"<html", b"<head", b"<body", b"<title", b"<h1", b"<!--")

#: A text longer than this is not parsed to find out whether it is JSON.
_JSON_MOST = 1_000_000


def sniff_mime(data: bytes) -> str | None:
    """Return the media type that the bytes themselves show, or ``None`` when they show none.

    Knows the picture formats that image models send, and the texts that come instead of a
    picture: ``text/html``, ``application/json``, ``image/svg+xml`` and other ``text/xml``.
    A file with a picture's beginning may still be damaged: decoding is not tried.
    """
    for magic, mime in _MAGIC:
        if data.startswith(magic):
            return mime
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return _sniff_text(data)


def _sniff_text(data: bytes) -> str | None:
    """Return the media type of a text that stands where a picture should."""
    text = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    head = text[:512].lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        return "image/svg+xml"
    if head.startswith(_HTML):
        return "text/html"
    if head.startswith(b"<?xml"):
        return "text/html" if b"<html" in head else "text/xml"
    if head[:1] in (b"{", b"[") and parse_json(data) is not None:
        return "application/json"
    return None


def parse_json(data: bytes) -> object | None:
    """Return the parsed JSON of an untrusted body, or ``None`` when it is not JSON or too long."""
    if len(data) > _JSON_MOST:
        return None
    try:
        parsed: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return parsed
