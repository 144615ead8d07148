"""Two mixes of a shop, its production, and a question about the second one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.approval import store
from tasks.approval.rules import Approval
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt, keep_mix
from tasks.policy import ApprovalRule
from tasks.records import Verdict
from tasks.rollout.change import reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.runs import begin_run, end_run
from tasks.settings import Settings, load_settings
from tasks.state import State
from tests.fakes import mixes

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RUN = "20261125-120000-summer-0001"
PROMOTE = Verdict(verdict="PROMOTE", reasons=("0.4 % of 240 images failed.",))

Ask = Callable[..., Approval]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"IMAGEGATE_HOME": str(tmp_path / "home")})


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    database = State(settings.state_url.get_secret_value())
    yield database
    database.close()


@pytest.fixture
def winter() -> ResolvedMix:
    return mixes.mix("winter", "folio-1")


@pytest.fixture
def summer() -> ResolvedMix:
    return mixes.mix("summer", "folio-2")


@pytest.fixture
def router(settings: Settings) -> FileRouter:
    return FileRouter(settings.routing_file, lock_timeout_s=0.2)


@pytest.fixture
def shop(state: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix) -> State:
    """Production of ``shop`` on ``winter``, and a run of Ada's about ``summer`` that waits."""
    adopt(state, winter, "test", "first")
    reconcile(state, router, mixes.PRODUCT)
    keep_mix(state, summer)
    begin_run(state, RUN, mixes.PRODUCT, summer.digest, winter.digest, requester="Ada@laptop")
    end_run(state, RUN, "waiting", "HOLD")
    return state


@pytest.fixture
def ask(shop: State) -> Ask:
    def call(
        run_id: str = RUN,
        *,
        rules: ApprovalRule | None = None,
        verdict: Verdict = PROMOTE,
        hours: float = 24.0,
        now: datetime = NOW,
        **other: Any,
    ) -> Approval:
        return store.request(
            shop,
            run_id,
            other.get("product", mixes.PRODUCT),
            other.get("requester", "Ada@laptop"),
            other.get("because", "The policy asks a person before every promotion."),
            now + timedelta(hours=hours),
            rules=rules or ApprovalRule(require=("always",)),
            verdict=verdict,
            now=now,
        )

    return call
