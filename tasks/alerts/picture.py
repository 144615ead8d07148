"""A page as a PNG, by a headless Chromium when there is one on the machine."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.errors import ConfigError
from tasks.plan import write_atomic

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Seconds that the browser may take.
_TIMEOUT_S = 60
#: Height of the window in CSS pixels: the page is drawn into it and cut below its last line.
_TALLEST = 6000
_SCALE = 2
_MARGIN = 8
#: Chromium makes no narrower window; a narrower page is cut out of it.
_NARROWEST = 500


def find_browser() -> str | None:
    """Return the path of a Chromium or Chrome on this machine, ``None`` without one."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def write_png(html: str, target: Path, *, width: int) -> Path:
    """Draw a page and write it as a PNG of twice its size, cut below its last line.

    Args:
        html: The page; nothing is loaded for it.
        target: Where the PNG goes.
        width: Width of the page in CSS pixels.

    Raises:
        ConfigError: There is no browser, or it did not draw the page.
        EvidenceError: The target cannot be written.
    """
    browser = find_browser()
    if browser is None:
        raise ConfigError(
            "a PNG is drawn by a headless Chromium or Chrome, and none is on the PATH (looked "
            f"for {', '.join(BROWSERS)}); install one, or write the page with --html FILE"
        )
    with tempfile.TemporaryDirectory(prefix="imagegate-preview-") as folder:
        source, shot = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(html, encoding="utf-8")
        said = _draw(browser, source, shot, width)
        if not shot.is_file():
            raise ConfigError(f"{browser} drew no picture; its last words: {said or 'none'}")
        data = shot.read_bytes()
    decoded = decode(data, Expected()).picture
    if decoded is None:
        raise ConfigError(f"{browser} wrote something that is no picture ({len(data)} bytes)")
    buffer = io.BytesIO()
    Image.fromarray(_cut(decoded.rgb[:, : width * _SCALE])).save(buffer, "PNG", optimize=True)
    return write_atomic(target, buffer.getvalue())


def _draw(browser: str, source: Path, shot: Path, width: int) -> str:
    """Let the browser draw; return the end of what it said."""
    # Chromium's sandbox does not work for root; for everybody else it stays.
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [
        browser,
        "--headless",
        *root,
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--hide-scrollbars",
        f"--force-device-scale-factor={_SCALE}",
        f"--window-size={max(width, _NARROWEST)},{_TALLEST}",
        f"--user-data-dir={shot.parent / 'profile'}",
        f"--screenshot={shot}",
        source.as_uri(),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{browser} did not draw the page within {_TIMEOUT_S} s") from None
    except OSError as error:
        raise ConfigError(f"{browser} does not start: {error.strerror}") from None
    return done.stderr.decode("utf-8", "replace").strip()[-400:]


def _cut(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the empty rows at the end, all of one colour like the last row, but for a margin."""
    busy = np.flatnonzero((rgb != rgb[-1:, -1:]).any(axis=(1, 2)))
    last = int(busy[-1]) + 1 if busy.size else len(rgb)
    return rgb[: min(len(rgb), last + _MARGIN * _SCALE)]
