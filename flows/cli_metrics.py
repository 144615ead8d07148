"""``imagegate metrics``: the gate's own figures for Prometheus, printed or served."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

import typer

from tasks.errors import ConfigError, GateError
from tasks.settings import Settings, load_settings

LOOPBACK = "127.0.0.1"


def metrics(
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            help="Serve them for Prometheus until Ctrl-C; the host is this machine by default.",
            metavar="[HOST:]PORT",
        ),
    ] = None,
) -> None:
    """Print the gate's metrics in Prometheus' text format, read from the state database."""
    from prometheus_client import generate_latest

    from tasks.metrics_export import registry_of

    settings = load_settings()
    if serve is not None:
        serve_metrics(settings, *address_of(serve))
        return
    text = generate_latest(registry_of(settings)).decode("utf-8")
    sys.stdout.write(text)
    sys.stdout.flush()
    if "\nimagegate_state_up 1.0\n" not in f"\n{text}":
        raise GateError("the state database cannot be read; `imagegate doctor` says more")


def serve_metrics(settings: Settings, host: str, port: int) -> None:
    """Serve the metrics until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: The address cannot be used.
    """
    from prometheus_client import start_http_server

    from tasks.metrics_export import registry_of

    try:
        server, thread = start_http_server(port, host, registry_of(settings))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--serve {host}:{port}: cannot listen there: {error}; choose another port"
        ) from None
    over = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: over.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    shown = f"[{host}]" if ":" in host else host
    try:
        sys.stderr.write(f"metrics at http://{shown}:{server.server_port}/metrics, Ctrl-C ends\n")
        sys.stderr.flush()
        over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.shutdown()
        server.server_close()
        thread.join()


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``; an IPv6 address stands in square brackets.

    Raises:
        ConfigError: It is none.
    """
    host, _, number = text.strip().rpartition(":")
    host = host.strip("[]") or LOOPBACK
    if not (number.isascii() and number.isdigit() and int(number) <= 65535):
        raise ConfigError(
            f"--serve {text!r}: expected [HOST:]PORT with a port from 0 to 65535, e.g. 9464"
        )
    return host, int(number)
