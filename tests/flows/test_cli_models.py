"""``imagegate models`` and ``models verify`` as a user meets them."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command


@pytest.fixture
def provider() -> Iterator[str]:
    """A server of the raw protocol that serves ``bold-1`` and nothing else; wants a key."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.headers.get("Authorization") == "Bearer right-key"
            served = {"models": [{"name": "bold-1", "version": "bold-1-2026-01-01"}]}
            body = json.dumps(served if right else {"error": "no"}).encode()
            self.send_response(200 if right else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def catalog(tmp_path: Path, provider: str) -> Path:
    entry: dict[str, Any] = {
        "protocol": "raw",
        "endpoint": provider,
        "pin": "dated",
        "operations": ["generate"],
        "key_env": "BOLD_KEY",
        "licence": {"id": "Terms [bold]", "uses": ["commercial"]},
        "price": {"usd": 0.02, "source": "https://example.com/prices", "date": "2026-01-01"},
    }
    models = [
        entry | {"name": "bold-1", "version": "bold-1-2026-01-01"},
        entry | {"name": "bold-2", "version": "bold-2-2026-02-01", "retires": "2026-06-01"},
        entry | {"name": "local", "version": "local-1", "endpoint": "embedded", "key_env": None},
    ]
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({"models": models}))
    return path


def test_the_library_is_listed_with_what_is_wrong(light_imagegate: Command, catalog: Path) -> None:
    done = light_imagegate("models", "--catalog", str(catalog), COLUMNS="160")
    assert done.code == 0, done.err
    # Markup in a licence's name is text.
    assert "Terms [bold]" in done.out
    assert "bold-2: retired on 2026-06-01" in done.out
    assert "3 models; 1 that no run may use, 3 with remarks" in done.out
    shown = light_imagegate("models", "--catalog", str(catalog), "--json").json
    assert [row["usable"] for row in shown["models"]] == [True, False, True]
    fields = {remark["field"] for remark in shown["models"][0]["remarks"]}
    assert fields == {"key_env", "price.date", "licence.evidence"}


def test_verify_asks_the_providers(light_imagegate: Command, catalog: Path) -> None:
    asked = ("models", "verify", "--catalog", str(catalog))
    done = light_imagegate(*asked, "--json", BOLD_KEY="right-key")
    assert done.code == 2, done.err
    assert [(row["name"], row["ok"]) for row in done.json["models"]] == [
        ("bold-1", True),
        ("bold-2", False),
    ]
    assert done.json["left_out"] == ["local"]
    one = light_imagegate(*asked, "bold-1", BOLD_KEY="right-key")
    assert one.code == 0, one.err
    assert "✓ bold-1: as the catalog says" in one.out


def test_verify_without_a_right_key_is_no_success(light_imagegate: Command, catalog: Path) -> None:
    asked = ("models", "verify", "bold-1", "--catalog", str(catalog))
    for keys, text in (({}, "BOLD_KEY is not set"), ({"BOLD_KEY": "wrong-key"}, "HTTP 401")):
        done = light_imagegate(*asked, **keys)
        assert done.code == 2
        assert text in done.out
        assert "wrong-key" not in done.out + done.err


def test_a_model_that_is_not_there_is_refused(light_imagegate: Command, catalog: Path) -> None:
    done = light_imagegate("models", "verify", "bald-1", "--catalog", str(catalog))
    assert done.code == 2
    assert "no model 'bald-1'" in done.err
    assert "bold-1" in done.err


@pytest.mark.parametrize("columns", [100, 160])
def test_the_shipped_library_is_read_at_once(light_imagegate: Command, columns: int) -> None:
    done = light_imagegate("models", COLUMNS=str(columns))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    shown = light_imagegate("models", "--json").json["models"]
    for row in shown:
        # Names stay whole at the start of a line, each once.
        assert sum(line.split()[:1] == [row["name"]] for line in lines) == 1, row["name"]
    # A key is missed once for a provider, not for each model.
    keys = {(row["endpoint"], row["key_env"]) for row in shown if row["key_env"]}
    assert done.out.count("is not set") <= len(keys) + 1
    assert "· the price is" in done.out or "look it up again" in done.out
    assert max(map(len, lines)) <= columns


def test_a_server_of_this_machine_that_does_not_run_is_no_failure(
    light_imagegate: Command, tmp_path: Path, catalog: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    read = yaml.safe_load(catalog.read_text())
    read["models"] = [
        read["models"][0],
        read["models"][2] | {"name": "own", "endpoint": endpoint, "protocol": "automatic1111"},
    ]
    catalog.write_text(yaml.safe_dump(read))
    asked = ("models", "verify", "--catalog", str(catalog))
    done = light_imagegate(*asked, BOLD_KEY="right-key")
    assert done.code == 0, done.out
    assert f"· own: not running at {endpoint}" in " ".join(done.out.split())
    named = light_imagegate(*asked, "own", BOLD_KEY="right-key")
    assert named.code == 2
    assert "✗ own: not running" in named.out
