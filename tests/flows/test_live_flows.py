"""The watch and the rehearsal as flows, against a real Prefect server and a Slack on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, Command
from tests.fakes import slack_server
from tests.flows.live_shop import Shop
from tests.flows.test_budget_alarm import CODE, posted

WATCH = ("flows.live_watch", "live_watch", {})
DRILL = ("flows.rollback_drill", "rollback_drill", {})


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[Any]:
    with slack_server.SlackServer(log=tmp_path / "slack.jsonl") as server:
        yield server


def run_flows(shop: Shop, slack: Any, *calls: Any, **env: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=ROOT,
        env=shop.command.env
        | shop.env
        | {
            "SLACK_BOT_TOKEN": slack_server.TOKEN,
            "IMAGEGATE_SLACK_CHANNEL": slack_server.CHANNEL,
            "IMAGEGATE_SLACK_URL": slack.base_url,
        }
        | env,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def artifact(server: str, key: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{server}/artifacts/{key}/latest", timeout=30, trust_env=False).json()
    return json.loads(found["data"])


def test_a_bad_mix_is_rolled_back_by_the_flow_and_told_in_slack(
    imagegate: Command, slack: Any, prefect_server: str
) -> None:
    shop = Shop(imagegate)
    shop.serve(shop.summer, 2_000, 110)
    first, again, drill = run_flows(shop, slack, WATCH, WATCH, DRILL)
    assert first["name"] == "Alarm"
    assert first["data"]["products"][0]["acted"]["what"] == "rolled_back"
    assert shop.serves == shop.winter.digest
    texts = posted(slack)
    assert len([text for text in texts if "ROLLED BACK: shop serves winter again" in text]) == 1
    # Winter is watched now; the alarm is not told again.
    assert again["data"]["products"][0]["mix_name"] == "winter"
    assert drill["name"] == "Would not go"
    assert "no mix served before" in json.dumps(drill["data"])
    steps = artifact(prefect_server, "rollback-drill")
    assert {row["went"] for row in steps} == {"yes", "NO"}
    assert artifact(prefect_server, "live-watch")[0]["mix"] == "winter"


def test_an_installation_without_outcomes_is_not_called_blind(
    imagegate: Command, slack: Any
) -> None:
    shop = Shop(imagegate)
    (done,) = run_flows(shop, slack, WATCH, IMAGEGATE_ROLLOUT_FILE="")
    assert done["name"] == "Not configured"
    assert "name at least one source" in done["message"]
    assert not slack.log.exists() or not posted(slack)
    refused = shop.command("watch", "--once")
    assert refused.code == 2
