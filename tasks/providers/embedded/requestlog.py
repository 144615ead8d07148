"""The server's request log: one JSON line a request, written before the answer is sent.

It is the provider's own account of what was asked and billed, by which a gate's ledger can be
checked. It also carries what was billed over a restart of the server.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.records import canonical_json


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a request log; a line that a kill cut short is left out.

    A missing file is an empty log.
    """
    return list(_lines(path))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


@dataclass(frozen=True, slots=True)
class Billed:
    """What an idempotency key was first billed for."""

    model: str
    operation: str
    prompt_digest: str
    seed: int


class RequestLog:
    """Appends to the log and knows which keys were billed.

    Args:
        path: The file; made with its folders when missing, continued when there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._billed: dict[str, Billed] = {}
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        # The server of a killed run goes on for a moment and bills what it was doing; reading the
        # log before it has ended would bill the same keys again.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        for line in _lines(path):
            self._remember(line)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            # A kill cut the last line short; the next one must not be glued to it.
            os.write(self._file, b"\n")

    def _remember(self, line: dict[str, Any]) -> None:
        key, micro = line.get("idempotency_key"), line.get("billed_microusd")
        if isinstance(key, str) and key and isinstance(micro, int) and micro > 0:
            self._billed[key] = Billed(
                str(line.get("model")),
                str(line.get("operation")),
                str(line.get("prompt_digest")),
                int(line.get("seed") or 0),
            )

    def billed(self, key: str) -> Billed | None:
        """Return what the key was billed for, ``None`` when it was not."""
        return self._billed.get(key) if key else None

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; it is with the operating system when this returns."""
        data = (canonical_json(line) + "\n").encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._file, data) :]
        self._remember(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
