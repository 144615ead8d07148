"""A shop in production whose live requests are in a log."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt
from tasks.rollout.change import promote, reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tests.conftest import Command
from tests.fakes import mixes


class Shop:
    """Winter, then summer, in production since an hour; the log says how summer does."""

    def __init__(self, command: Command) -> None:
        self.command, self.home = command, command.home
        self.home.mkdir()
        self.winter: ResolvedMix = mixes.mix("winter", "folio-1")
        self.summer: ResolvedMix = mixes.mix("summer", "folio-2")
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
