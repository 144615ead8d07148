"""HAProxy's Runtime API: one command, one answer, over a socket."""

from __future__ import annotations

import csv
import io
import socket
import time
from pathlib import Path

from tasks.errors import RolloutError

#: Most bytes of an answer.
_MOST = 16 * 1024 * 1024


class Runtime:
    """The Runtime API of one HAProxy.

    Args:
        address: Path of the socket, or ``host:port``.
        timeout_s: Seconds for one command, from connecting to the end of its answer.
    """

    def __init__(self, address: str, timeout_s: float = 2.0) -> None:
        self.address, self.timeout_s = address, timeout_s

    def ask(self, command: str) -> str:
        """Send a command and return the answer, without the blank line that ends it.

        Raises:
            RolloutError: HAProxy cannot be reached or does not answer in time.
        """
        if any(sign in command for sign in "\n\r;") or "<<" in command:
            raise RolloutError(f"{self.address}: {command!r} is more than one command")
        deadline = time.monotonic() + self.timeout_s
        try:
            with self._connected() as link:
                link.sendall(f"{command}\n".encode())
                answer = self._read(link, deadline)
        except OSError as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
            raise RolloutError(
                f"HAProxy's Runtime API at {self.address} does not answer ({what or error}); is "
                "HAProxy running, and is there a line `stats socket … level admin` in its "
                "configuration?"
            ) from None
        return answer.decode("utf-8", "replace").strip("\n")

    def _connected(self) -> socket.socket:
        host, colon, port = self.address.rpartition(":")
        if colon and port.isdigit():
            return socket.create_connection((host.strip("[]"), int(port)), timeout=self.timeout_s)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(self.timeout_s)
            link.connect(self.address)
        except BaseException:
            link.close()
            raise
        return link

    @staticmethod
    def _read(link: socket.socket, deadline: float) -> bytes:
        found = bytearray()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            link.settimeout(left)
            piece = link.recv(65_536)
            if not piece:
                return bytes(found)
            found += piece
            if len(found) > _MOST:
                raise OSError(0, f"more than {_MOST:,} bytes")

    def show_map(self, name: str) -> dict[str, list[str]]:
        """Return the values of a map by key, as they are in HAProxy's memory.

        Raises:
            RolloutError: HAProxy does not answer, or its configuration does not use this map.
        """
        answer = self.ask(f"show map {name}")
        found: dict[str, list[str]] = {}
        for line in filter(None, answer.splitlines()):
            parts = line.split(" ", 2)
            if not parts[0].startswith("0x") or len(parts) < 2:
                raise RolloutError(
                    f"HAProxy at {self.address} does not show the map {name}: "
                    f"{line.strip()[:200]}; its configuration must look this very path up, see "
                    "deployments/haproxy-canary.cfg"
                )
            found.setdefault(parts[1], []).append(parts[2] if len(parts) > 2 else "")
        return found

    def set_map(self, name: str, key: str, value: str) -> None:
        """Give a key its value, all at once: a request sees the old one or the new one.

        Raises:
            RolloutError: HAProxy does not answer, or does not accept it.
        """
        answer = self.ask(f"set map {name} {key} {value}")
        if answer.startswith("entry not found"):
            answer = self.ask(f"add map {name} {key} {value}")
        if answer:
            raise RolloutError(self._refused(answer))

    def assert_may_set(self, name: str) -> None:
        """Pass when ``set map`` is allowed, tried with a key that cannot exist.

        Raises:
            RolloutError: HAProxy does not answer, or does not allow it.
        """
        answer = self.ask(f"set map {name} .imagegate-probe 0")
        if not answer.startswith("entry not found"):
            raise RolloutError(self._refused(answer))

    def _refused(self, answer: str) -> str:
        return (
            f"HAProxy at {self.address} does not let its map be changed: {answer[:200]}; the "
            "socket needs `level admin`"
        )

    def backends(self) -> dict[str, dict[str, str]]:
        """Return HAProxy's own counters of every backend by its name.

        Raises:
            RolloutError: HAProxy does not answer.
        """
        text = self.ask("show stat -1 2 -1").removeprefix("# ")
        return {
            row["pxname"]: row
            for row in csv.DictReader(io.StringIO(text))
            if row.get("svname") == "BACKEND" and row.get("pxname")
        }


def parse_map_file(text: str) -> dict[str, str]:
    """Return the values of a map's file by key; of a key that stands twice HAProxy takes the first.

    Comments and blank lines are left out.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        said = line.strip()
        if said and not said.startswith("#"):
            key, _, value = said.partition(" ")
            found.setdefault(key, value.strip())
    return found


def render_map_file(values: dict[str, str], path: Path) -> str:
    """Return a map's file with these values."""
    head = (
        f"# {path.name}: written by imagegate, one line a product; HAProxy reads it when it starts "
        "and reloads.\n# By hand nothing changes but what a reload brings back.\n"
    )
    return head + "".join(f"{key} {value}\n" for key, value in sorted(values.items()))
