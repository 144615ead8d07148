"""A shop with buttons, and those who press them: for the tests of clicks."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from flows.slack_deeds import CommandDeeds
from tasks.alerts.config import load_alerts
from tasks.alerts.interactive.decide import (
    Click,
    Workspace,
)
from tasks.alerts.interactive.handler import Handler
from tasks.alerts.kit import Button
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt, require_production
from tasks.rollout.change import promote, reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.runs import begin_run, end_run
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import slack_clicks
from tests.fakes.mixes import mix
from tests.fakes.socket_mode_server import (
    CHANNEL,
    TEAM,
    block_actions,
)

OURS = Workspace(TEAM)
MIA, LEO, EVE = "U0000MIA", "U0000LEO", "U0000EVE"
ROUTING = f"""
schema_version: 1
default:
  channel: {CHANNEL}
  authority:
    {MIA}: {{name: mia@example.org, may: [acknowledge, roll_back, approve]}}
    {LEO}: {{name: leo@example.org, may: [acknowledge]}}
products:
  other:
    authority: {{}}
"""
RUN = "run-1"
WINTER, SUMMER, AUTUMN = (
    mix(name, f"folio-{number}") for number, name in enumerate(("winter", "summer", "autumn"), 1)
)


class Ear:
    """Hears what is answered."""

    def __init__(self) -> None:
        self.replies: list[str] = []
        self.whispers: list[tuple[str, str]] = []

    def reply(self, click: Click, facts: Any, text: str) -> None:
        self.replies.append(text)

    def whisper(self, click: Click, text: str) -> None:
        self.whispers.append((click.user_id, text))


class Shop:
    """Production of ``shop``: first winter, then summer by run-1; buttons and those who press."""

    def __init__(self, state: State, settings: Settings) -> None:
        self.state, self.settings = state, settings
        self.router = FileRouter(settings.routing_file)
        adopt(state, WINTER, "test", "first")
        reconcile(state, self.router, "shop")
        begin_run(state, RUN, "shop", SUMMER.digest, WINTER.digest, requester="ann@host")
        self.promote(SUMMER)
        end_run(state, RUN, "finished", "PROMOTE")
        self.ear = Ear()
        self.log: list[str] = []
        self.handler = self.handler_with(self.ear)

    def handler_with(self, speaker: Any, deeds: Any = None) -> Handler:
        return Handler(
            self.state,
            lambda: load_alerts(self.settings.alerts_file),
            OURS,
            deeds or CommandDeeds(self.state, self.settings, self.log.append),
            speaker,
            self.log.append,
        )

    def promote(self, new: ResolvedMix) -> None:
        promote(self.state, self.router, "shop", new, actor="ann", reason="better")

    @property
    def serves(self) -> str:
        shown = self.router.read("shop")
        pointer = require_production(self.state, "shop")
        assert shown is not None
        assert shown.mix_digest == pointer.mix_digest
        return {m.digest: m.mix.name for m in (WINTER, SUMMER, AUTUMN)}[pointer.mix_digest]

    @property
    def changes(self) -> int:
        return require_production(self.state, "shop").epoch

    def press(self, action: str, value: Any, **more: Any) -> None:
        self.handler.handle(block_actions(f"imagegate_{action}", value, **more))

    def clicks(self) -> list[tuple[str, str, str]]:
        query = sa.select(slack_clicks).order_by(slack_clicks.c.at)
        with self.state.begin() as connection:
            return [(c.action, c.user_id, c.status) for c in connection.execute(query)]


def value(name: Any, **fields: str) -> str:
    """Return the value as the button itself writes it."""
    return Button(name, **fields).value


UNDO = value("roll_back", run_id=RUN, product="shop", to=WINTER.digest)
NOW_TS = f"{time.time() + 86_400:.6f}"
