"""A fake provider in a process of its own, so that it takes no time from the client's."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def _serve(make: Callable[[], Any], pipe: Connection) -> None:
    with make() as server:
        pipe.send(server.url)
        while (asked := pipe.recv()) != "stop":
            if asked == "last":
                seen = server.requests[-1]
                pipe.send((seen.method, seen.path, dict(seen.query), dict(seen.headers), seen.body))
            else:
                times = server.served_s if hasattr(server, "served_s") else server.took_s
                pipe.send(list(times))
                times.clear()


class Served:
    """The process; a context manager.

    Args:
        make: Makes the fake server, in the process; a function of a module.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs), daemon=True)

    def __enter__(self) -> Served:
        self._process.start()
        self.url: str = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("stop")
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def last(self) -> tuple[str, str, dict[str, str], dict[str, str], bytes]:
        """Return method, path, query, headers and body of the newest request."""
        self._pipe.send("last")
        found: tuple[str, str, dict[str, str], dict[str, str], bytes] = self._pipe.recv()
        return found

    def took(self) -> list[float]:
        """Return the seconds that the server took for each request since the last call."""
        self._pipe.send("took")
        found: list[float] = self._pipe.recv()
        return found
