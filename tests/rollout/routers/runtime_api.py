"""HAProxy's Runtime API with a map in memory, which can lie, stall or talk nonsense."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

BACKENDS = ("shop-blue", "shop-green")


class RuntimeApi:
    """One command a connection, as HAProxy answers it; ``bend`` takes the place of an answer."""

    def __init__(self, map_file: str) -> None:
        self.map_file = map_file
        self.values: dict[str, str] = {}
        #: Accepts every change and makes none.
        self.lies = False
        self.bend: Callable[[str], bytes | None] = lambda command: None
        self.commands: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for link in self._open:
            link.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            command = link.makefile("r").readline().rstrip("\n")
            self.commands.append(command)
            bent = self.bend(command)
            if bent == b"stall":
                self._open.add(link)  # The answer never comes, the connection stays.
                continue
            with link:
                link.sendall(self.answer(command).encode() if bent is None else bent)

    def answer(self, command: str) -> str:
        """Return HAProxy's answer to a command."""
        if command.startswith("show stat"):
            rows = "".join(f"{name},BACKEND,UP,\n" for name in BACKENDS)
            return f"# pxname,svname,status,\n{rows}\n"
        verb, _, rest = command.partition(" map ")
        name, _, said = rest.partition(" ")
        if name != self.map_file:
            return "Unknown map identifier. Please use #<id> or <file>.\n\n"
        if verb == "show":
            return "".join(f"0x5 {key} {value}\n" for key, value in self.values.items()) + "\n"
        key, _, value = said.partition(" ")
        if verb == "set" and key not in self.values:
            return "entry not found.\n\n"
        if not self.lies:
            self.values[key] = value
        return "\n"
