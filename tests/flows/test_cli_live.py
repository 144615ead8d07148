"""``imagegate watch`` and ``imagegate drill`` as real processes, on real logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.flows.live_shop import Shop


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
    assert "110 of the last " in seen["reason"]
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
