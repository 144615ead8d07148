"""The watch as a process beside live traffic: failures rise, and users are spared."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from tasks.rollout.watch.detector import longest_delay
from tests.conftest import Command
from tests.flows.live_shop import Shop

pytestmark = pytest.mark.real

#: Requests that the writer adds at a time, and its pause between.
BATCH, PAUSE_S = 20, 0.1


class Traffic:
    """Writes requests of what the router serves until it is stopped; summer fails at ``rate``."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.rate, self.stop = shop, 0.01, threading.Event()
        self.served: dict[str, list[int]] = {}
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._luck = Random(7)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self.stop.wait(PAUSE_S):
            mix = self.shop.serves
            assert mix is not None
            rate = self.rate if mix == self.shop.summer.digest else 0.01
            with self.shop.log.open("a", encoding="utf-8") as log:
                for _ in range(BATCH):
                    number += 1
                    bad = self._luck.random() < rate
                    counts = self.served.setdefault(f"{mix} {self.rate}", [0, 0])
                    counts[0], counts[1] = counts[0] + 1, counts[1] + bad
                    row = {
                        "time": datetime.now(UTC).isoformat(),
                        "request_id": str(number),
                        "product": "shop",
                        "mix_digest": mix,
                        "ok": not bad,
                    }
                    log.write(json.dumps(row) + "\n")


@pytest.fixture
def watched(light_imagegate: Command) -> Iterator[tuple[Shop, Any]]:
    shop = Shop(light_imagegate)
    process = shop.command.start("watch", "--every", "1", "--json", **shop.env)
    try:
        yield shop, process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def rounds(process: Any) -> Iterator[dict[str, Any]]:
    # An end, so that what never comes is a failure and no silence.
    for line in itertools.islice(process.stdout, 400):
        yield json.loads(line)["products"][0]


def test_two_to_five_percent_is_found_rolled_back_and_told(watched: tuple[Shop, Any]) -> None:
    shop, process = watched
    with Traffic(shop) as traffic:
        looks = rounds(process)
        good = next(r for r in looks if (r["watch"] or {}).get("images", 0) >= 1_000)
        assert good["status"] == "watching"
        traffic.rate = 0.05
        alarm = next(r for r in looks if r["status"] == "alarm")
        assert alarm["acted"]["what"] == "rolled_back"
        assert shop.serves == shop.winter.digest
        exposed = traffic.served[f"{shop.summer.digest} 0.05"]
        # Winter is watched from now on.
        after = next(r for r in looks if r["mix_name"] == "winter" and r["watch"]["images"] > 200)
        assert after["status"] == "watching"
        assert after["watch"]["incident"]["rolled_back_to"] == shop.winter.digest
    # Half of the promise is for failures. One stream may be three times as slow as the mean.
    assert exposed[0] <= 3 * longest_delay(0.02, 0.05, 100_000) + 60 * BATCH / PAUSE_S
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    told = shop("alerts", "--json").json
    assert "ROLLED BACK: shop serves winter again" in json.dumps(told)
