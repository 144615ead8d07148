"""`imagegate rollback` and `imagegate status` with a real HAProxy as production's router."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasks.mix.production import adopt, keep_mix
from tasks.rollout.change import promote, reconcile, set_share
from tasks.rollout.config import open_router
from tasks.settings import Settings, load_settings
from tasks.state import State
from tests.conftest import ROOT, clean_environment
from tests.fakes import mixes
from tests.real.cluster import find_program
from tests.real.haproxy_canary import Application, Haproxy

pytestmark = pytest.mark.skipif(
    find_program("haproxy") is None, reason="needs HAProxy (Debian: haproxy)"
)
WINTER, SUMMER, AUTUMN = (
    mixes.mix("winter", "folio-1"),
    mixes.mix("summer", "folio-2"),
    mixes.mix("autumn", "folio-3"),
)
WHO = {"actor": "test", "reason": "the reason"}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Haproxy]:
    with Application("blue") as blue, Application("green") as green:
        proxy = Haproxy(tmp_path, blue.port, green.port)
        proxy.start()
        yield proxy
        proxy.stop()


@pytest.fixture
def environment(haproxy: Haproxy, tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump({"router": haproxy.rollout}), encoding="utf-8")
    return {"IMAGEGATE_ROLLOUT_FILE": str(path), "IMAGEGATE_HOME": str(tmp_path / "home")}


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """Production on summer with a quarter of the traffic on autumn; winter served before."""
    found = load_settings(environment)
    state, router = State(found.state_url.get_secret_value()), open_router(found)
    for mix in (WINTER, SUMMER, AUTUMN):
        keep_mix(state, mix)
    adopt(state, WINTER, "test", "first")
    reconcile(state, router, "shop")
    promote(state, router, "shop", SUMMER, **WHO)
    set_share(state, router, "shop", AUTUMN, 0.25, **WHO)
    state.close()
    return found


@pytest.fixture
def imagegate(environment: dict[str, str]) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows", *arguments],
            cwd=ROOT,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            stdin=subprocess.DEVNULL,
        )

    return run


def served(haproxy: Haproxy) -> set[str]:
    """Return the digests of the mixes that requests of many users get."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        answers = [
            client.get(haproxy.url, headers={"X-Request-Key": f"user-{n}"}) for n in range(60)
        ]
    assert all(answer.status_code == 200 for answer in answers)
    return {answer.headers["X-Imagegate-Mix"] for answer in answers}


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_rollback_takes_the_canary_off_haproxy(
    haproxy: Haproxy, settings: Settings, imagegate: Run
) -> None:
    assert served(haproxy) == {SUMMER.digest, AUTUMN.digest}
    done = said(imagegate("rollback", "--product", "shop", "--reason", "garbled text", "--json"))
    assert done["to_digest"] == SUMMER.digest
    assert served(haproxy) == {SUMMER.digest}
    assert said(imagegate("status", "--product", "shop", "--json"))["production"]["router_shows_it"]
    # A reload brings nothing back.
    haproxy.reload()
    assert served(haproxy) == {SUMMER.digest}


def test_a_rollback_goes_without_the_state_database(
    haproxy: Haproxy, settings: Settings, imagegate: Run
) -> None:
    (settings.home / "state.db").write_bytes(b"not a database" * 1_000)
    done = imagegate("rollback", "--product", "shop", "--reason", "garbled text")
    assert done.returncode == 0, done.stderr
    assert "database was not to be had" in done.stdout + done.stderr
    assert served(haproxy) == {SUMMER.digest}


def test_a_stopped_haproxy_is_said_and_the_rollback_done_when_it_is_back(
    haproxy: Haproxy, settings: Settings, imagegate: Run
) -> None:
    haproxy.stop()
    failed = imagegate("rollback", "--product", "shop", "--reason", "garbled text")
    assert failed.returncode == 4, failed.stdout
    assert haproxy.socket in "".join((failed.stdout + failed.stderr).split())
    status = said(imagegate("status", "--product", "shop", "--json"))
    assert not status["production"]["router_shows_it"]
    haproxy.start()
    # It came back with what it served before: the canary is still on, and status says so.
    assert served(haproxy) == {SUMMER.digest, AUTUMN.digest}
    said(imagegate("rollback", "--product", "shop", "--reason", "garbled text", "--json"))
    assert served(haproxy) == {SUMMER.digest}
