"""What every sub-command shares: its common flags, and how it speaks."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import threading
from typing import Annotated, Any

import typer
from rich.console import Console

EXIT_CODES = {"PROMOTE": 0, "ROLLBACK": 1, "HOLD": 3}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Product = Annotated[str, typer.Option("--product", help="The product whose production is meant.")]
Owner = Annotated[str | None, typer.Option("--owner", help="Who asks; default: user@host.")]
DEFAULT_PRODUCT = "storefront"

err = Console(stderr=True, highlight=False)


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
    """Print one JSON object on stdout."""
    _emitted.set()
    say(json.dumps(value, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """Print a line for people on stdout; a reader that went away does not change the verdict."""
    try:
        # A lone half of a surrogate pair cannot be written; it is shown, not fatal.
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emitted() -> bool:
    """Tell whether this process has printed its JSON object."""
    return _emitted.is_set()
