"""``imagegate watch`` and ``imagegate drill`` as real processes, on real logs."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt
from tasks.rollout.change import promote, reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tests.conftest import Command

_spec = importlib.util.spec_from_file_location(
    "imagegate_test_mixes_live", Path(__file__).parent.parent / "fakes" / "mixes.py"
)
assert _spec is not None
assert _spec.loader is not None
_mixes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_mixes)


class Shop:
    """Winter, then summer, in production since an hour; the log says how summer does."""

    def __init__(self, command: Command) -> None:
        self.command, self.home = command, command.home
        self.home.mkdir()
        self.winter: ResolvedMix = _mixes.mix("winter", "folio-1")
        self.summer: ResolvedMix = _mixes.mix("summer", "folio-2")
        self.log = self.home / "requests.jsonl"
        self.log.touch()
        state = State(f"sqlite:///{self.home / 'state.db'}", home=self.home)
        self.router = FileRouter(self.home / "routing.json")
        adopt(state, self.winter, "test", "first")
        reconcile(state, self.router, "shop")
        promote(state, self.router, "shop", self.summer, actor="test", reason="gate")
        state.close()
        hour = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        with sqlite3.connect(self.home / "state.db") as database:
            database.execute("UPDATE production SET changed_at = ?", (hour,))
        database.close()
        rollout = self.home / "rollout.yaml"
        rollout.write_text(
            json.dumps(
                {
                    "schema_version": 1,
                    "outcomes": [{"kind": "logs", "files": str(self.log), "lag_s": 0}],
                }
            )
        )
        self.env = {"IMAGEGATE_ROLLOUT_FILE": str(rollout)}

    def serve(self, mix: ResolvedMix, images: int, failures: int) -> None:
        """Append requests of the last half hour."""
        start = datetime.now(UTC) - timedelta(minutes=30)
        step = timedelta(minutes=29) / images
        rows = [
            {
                "time": (start + i * step).isoformat(),
                "product": "shop",
                "mix_digest": mix.digest,
                "ok": i >= failures,
                "failure": "server" if i < failures else None,
            }
            for i in range(images)
        ]
        with self.log.open("a") as log:
            log.writelines(json.dumps(row) + "\n" for row in rows)

    def __call__(self, *arguments: str) -> Any:
        return self.command(*arguments, **self.env)

    @property
    def serves(self) -> str | None:
        shown = self.router.read("shop")
        return shown and shown.mix_digest


@pytest.fixture
def shop(light_imagegate: Command) -> Shop:
    return Shop(light_imagegate)


def test_good_traffic_ends_with_0_and_says_how_it_does(shop: Shop) -> None:
    shop.serve(shop.summer, 2_000, 25)
    done = shop("watch", "--once")
    assert done.code == 0, done.err
    assert "shop: watching, summer, 2,000 images, 1.25 % failed" in done.out
    status = shop("status", "--product", "shop")
    assert "watched" in status.out
    assert "2,000 images" in status.out


def test_a_bad_mix_is_rolled_back_and_promotions_wait_for_a_person(shop: Shop) -> None:
    shop.serve(shop.summer, 2_000, 110)
    done = shop("watch", "--once", "--json")
    assert done.code == 1, done.err
    seen = done.json["products"][0]
    assert seen["status"] == "alarm"
    assert seen["acted"]["what"] == "rolled_back"
    assert "110 of 2,000 requests got no image" in seen["reason"]
    assert shop.serves == shop.winter.digest

    shown = shop("status", "--product", "shop")
    assert "incident" in shown.out
    refused = shop("watch", "restore", "summer", "--why", "again", "--product", "shop")
    assert refused.code == 2
    assert "open incident" in refused.err
    closed = shop(
        "watch", "close", "--why", "provider mended", "--cleared", "--product", "shop", "--json"
    )
    assert closed.code == 0, closed.err
    back = shop("watch", "restore", "summer", "--why", "mended", "--product", "shop")
    assert back.code == 0, back.err
    assert "within the rollback window" in back.out
    assert shop.serves == shop.summer.digest


def test_silence_ends_with_3(shop: Shop) -> None:
    done = shop("watch", "--once")
    assert done.code == 3
    assert "blind" in done.out
    assert "traffic has stopped" in done.out


def test_a_freeze_window_stops_a_return_and_says_who_may_lift_it(shop: Shop) -> None:
    rollout = Path(shop.env["IMAGEGATE_ROLLOUT_FILE"])
    rollout.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "calendar": [
                    {
                        "name": "launch",
                        "from": "2020-01-01",
                        "until": "2098-12-31",
                        "lift": ["dana"],
                    }
                ],
            }
        )
    )
    assert shop("rollback", "--product", "shop", "--reason", "outage").code == 0
    done = shop("watch", "restore", "summer", "--why", "over", "--product", "shop")
    assert done.code == 2
    text = " ".join(done.err.split())
    assert "freeze window 'launch' until 2099-01-01 00:00 UTC, lifted by dana" in text
    assert shop.serves == shop.winter.digest


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("watch", "--once", "--product", "press"), "no production mix"),
        (("watch", "--once", "--policy", "nowhere.yaml"), "no such file"),
        (("watch", "close", "--why", "x", "--product", "shop"), "no open incident"),
        (("watch", "restore", "nothing", "--why", "x", "--product", "shop"), "was ever judged"),
    ],
)
def test_wrong_use_ends_with_2_and_a_sentence(
    shop: Shop, arguments: tuple[str, ...], what: str
) -> None:
    done = shop(*arguments)
    assert done.code == 2
    assert what in " ".join(done.err.split())


def test_stopped_and_begun_again(shop: Shop) -> None:
    shop.serve(shop.summer, 500, 5)
    assert shop("watch", "--once").code == 0
    assert shop("watch", "stop", "--why", "maintenance", "--product", "shop").code == 0
    assert "stopped by" in shop("watch", "status", "--product", "shop").out
    assert shop("watch", "restart", "--product", "shop").code == 0
    shown = shop("watch", "status", "--product", "shop", "--json").json
    assert shown["watch"]["status"] == "watching"


def test_a_drill_is_timed_and_its_age_shown(shop: Shop) -> None:
    assert "never rehearsed" in shop("status", "--product", "shop").out
    done = shop("drill", "--product", "shop", "--shadow", "shop-drill")
    assert done.code == 0, done.out + done.err
    assert "verified rollback in" in done.out
    assert "rollback rehearsed today" in shop("status", "--product", "shop").out
    assert shop.serves == shop.summer.digest


def test_a_drill_that_finds_something_ends_with_4_and_is_told(shop: Shop) -> None:
    routing = shop.home / "routing.json"
    routing.write_text("{}")
    done = shop("drill", "--dry", "--product", "shop", "--json")
    assert done.code == 4
    assert not done.json["ok"]
    assert "a rollback would not go" in shop("alerts").out
