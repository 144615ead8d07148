"""Run the embedded image server: ``python -m tasks.providers.embedded --port 8099``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tasks.settings import DATASETS

_EXAMPLE = """\
example:
  python -m tasks.providers.embedded --port 8099 &
  curl -s http://127.0.0.1:8099/generate -o poster.png -d '{"model": "folio-2",
    "prompt": "Poster of a coffee mug, headline \\"Fresh every morning\\"", "size": "512x512"}'
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.providers.embedded",
        description="Serve the embedded image models on loopback.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one (default)")
    parser.add_argument(
        "--log", type=Path, help="request log, JSON lines (default: a new temporary file)"
    )
    parser.add_argument(
        "--brands", type=Path, default=DATASETS / "brands", help="folder 'brands' with the kits"
    )
    parser.add_argument(
        "--parent",
        type=int,
        help="process id of the starter: end when it ends or when standard input closes",
    )
    return parser.parse_args(argv)


async def _serve(arguments: argparse.Namespace, listener: socket.socket, log: Path) -> None:
    import uvicorn

    from tasks.providers.embedded import fonts
    from tasks.providers.embedded.app import create_app

    app = create_app(log, arguments.brands)
    config = uvicorn.Config(
        app,
        http=app.state.server.connections.protocol(),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        # Stalled requests must not hold up the end.
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    if arguments.parent is not None:

        def watch() -> None:
            # Not sys.stdin: a thread inside it would hold its lock while the interpreter ends.
            while os.read(0, 4096):
                pass
            loop.call_soon_threadsafe(end)

        threading.Thread(target=watch, daemon=True).start()

        async def orphaned() -> None:
            # A forked sister may hold the pipe open after the parent's death.
            while os.getppid() == arguments.parent:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.5)
            end()

        watcher = asyncio.create_task(orphaned())
    else:
        watcher = None
    fonts.faces()
    host, port = listener.getsockname()[:2]
    announced = {"port": port, "base_url": f"http://{host}:{port}", "log": str(log)}
    sys.stdout.write(json.dumps(announced) + "\n")
    sys.stdout.flush()
    await server.serve(sockets=[listener])
    if watcher is not None:
        watcher.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    arguments = _arguments(argv)
    # Read by OpenMP when the upscaler loads: one picture, one core; two are drawn at a time.
    os.putenv("OMP_NUM_THREADS", "1")
    try:
        listener = socket.create_server(("127.0.0.1", arguments.port), backlog=256)
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"port {arguments.port} cannot be used: {error}\n")
        return 2
    log = arguments.log
    if log is None:
        log = Path(tempfile.mkdtemp(prefix="embedded-")) / "requests.jsonl"
    asyncio.run(_serve(arguments, listener, log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
