"""Real traffic for canaries: an application server and a load, each a process of its own.

``python -m tests.real.traffic server NAME``: answers every GET with a small picture. It prints its
port, and obeys ``/control?mix=DIGEST&rate=0.12``: that share of the requests of a mix gets a 500
with the header ``X-Injected``, evenly spread.

``python -m tests.real.traffic load PORT RATE KEYS LOG``: an open loop of RATE requests a second
with sticky keys in turn, one CSV line a request: start, end, key, status, mix, injected, error.
It ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from urllib.parse import parse_qs, urlsplit

#: A PNG of one pixel.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


class Server:
    """An application that serves whatever mix the request names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rates: dict[str, float] = {}
        self.owed: dict[str, float] = {}

    async def serve(self) -> None:
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
        await _until_stdin_closes()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                writer.write(self.answer(head))
                await writer.drain()
        writer.close()

    def answer(self, head: str) -> bytes:
        first, *lines = head.split("\r\n")
        target = urlsplit(first.split(" ")[1])
        if target.path == "/control":
            query = parse_qs(target.query)
            self.rates[query["mix"][0]] = float(query["rate"][0])
            return _answer(200)
        fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        mix = fields.get("x-imagegate-mix", "")
        self.owed[mix] = self.owed.get(mix, 0.0) + self.rates.get(mix, 0.0)
        if target.path == "/health" or self.owed[mix] < 1:
            return _answer(200)
        self.owed[mix] -= 1
        return _answer(500, "X-Injected: 1\r\n")


def _answer(status: int, more: str = "") -> bytes:
    body = PICTURE if status == 200 else b""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}\r\n".encode() + body


class Load:
    """Requests at a fixed rate, whatever the answers take."""

    def __init__(self, port: int, rate: float, keys: int, log: str) -> None:
        self.port, self.rate, self.keys = port, rate, keys
        self.file = open(log, "a", buffering=1)  # noqa: PTH123, SIM115
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.going: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        over = asyncio.ensure_future(_until_stdin_closes())
        began, sent = time.monotonic(), 0
        while not over.done():
            due = began + sent / self.rate
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.wait({over}, timeout=wait)
                continue
            request = asyncio.ensure_future(self.request(f"user-{sent % self.keys}"))
            self.going.add(request)
            request.add_done_callback(self.going.discard)
            sent += 1
            # Catching up after a stall must not keep answers from being read.
            await asyncio.wait({over}, timeout=0)
        if self.going:
            await asyncio.wait(self.going)
        for _, writer in self.idle:
            writer.close()
        self.file.close()

    async def request(self, key: str) -> None:
        start, error, status, fields = time.time(), "", 0, {}
        try:
            status, fields = await self.ask(key)
        except (OSError, asyncio.IncompleteReadError, ValueError) as problem:
            error = type(problem).__name__
        mix, injected = fields.get("x-imagegate-mix", ""), fields.get("x-injected", "")
        self.file.write(f"{start:.6f},{time.time():.6f},{key},{status},{mix},{injected},{error}\n")

    async def ask(self, key: str) -> tuple[int, dict[str, str]]:
        reader, writer = (
            self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        )
        writer.write(f"GET /image HTTP/1.1\r\nHost: shop\r\nX-Request-Key: {key}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return int(first.split(" ")[1]), fields


async def _until_stdin_closes() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def main() -> None:
    if sys.argv[1] == "server":
        asyncio.run(Server(sys.argv[2]).serve())
    else:
        port, rate, keys, log = sys.argv[2:]
        asyncio.run(Load(int(port), float(rate), int(keys), log).run())


if __name__ == "__main__":
    main()
