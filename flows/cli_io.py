"""What every sub-command shares: its common flags, and how it speaks."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import socket
import sys
import threading
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from tasks.errors import GateError

EXIT_CODES = {"PROMOTE": 0, "ROLLBACK": 1, "HOLD": 3}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Product = Annotated[str, typer.Option("--product", help="The product whose production is meant.")]
Owner = Annotated[str | None, typer.Option("--owner", help="Who asks; default: user@host.")]
DEFAULT_PRODUCT = "storefront"


class _Stderr(Console):
    """Rich ends the program with 1 when the reader is gone: for us that would be a verdict."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
        _to_nowhere(sys.stderr)


# Names and messages are not ours: `:x:` in one stays what it is.
err = _Stderr(stderr=True, highlight=False, emoji=False)


def whoami() -> str:
    """Return ``user@host`` of the person at the keyboard."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


#: Whether the one JSON object of ``--json`` was printed.
_emitted = threading.Event()


def emit(value: Any) -> None:
    """Print one JSON object on stdout.

    Raises:
        GateError: As :func:`say`.
    """
    _emitted.set()
    plain = not _encoding().lower().startswith("utf")
    say(json.dumps(value, ensure_ascii=plain, allow_nan=False))


def say(text: str) -> None:
    """Print a line for people on stdout; a reader that went away does not change the verdict.

    Raises:
        GateError: Nothing can be written there: the disk is full, or stdout is closed.
    """
    try:
        # What stdout cannot take, such as a lone half of a surrogate pair, is shown, not fatal.
        encoding = _encoding()
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
    except (OSError, ValueError) as error:
        _to_nowhere(sys.stdout)
        raise GateError(f"standard output cannot be written: {error}") from None


class Shown(io.StringIO):
    """What rich makes of something, for :func:`say`.

    Rich itself ends the program with 1 when nobody reads, and with an error at a letter that stdout
    cannot take. It asks for the encoding to draw its boxes.
    """

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of stdout."""
        return _encoding()


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _to_nowhere(stream: TextIO) -> None:
    """Let what is still buffered go nowhere: Python would try it again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def emitted() -> bool:
    """Tell whether this process has printed its JSON object."""
    return _emitted.is_set()
