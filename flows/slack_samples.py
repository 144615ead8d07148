"""Samples of what on-call gets to see, made by the functions that make the real messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from tasks.alerts.blocks import Figure, GateSummary, TopFailure
from tasks.alerts.incidents import raise_alarm, shown_time
from tasks.alerts.links import rollback_command, run_links
from tasks.alerts.run_approval import run_waits
from tasks.alerts.run_thread import run_ended, run_failed, run_started
from tasks.mix.freeze import stamp
from tasks.records import Rate, VerdictName
from tasks.settings import Settings
from tasks.state import State

#: No such run and no such mixes exist.
PRODUCT = "storefront"
_RUN = "20261125-021407-aurora-5f3c"
_CLASSIC = "sha256:7cc1d4e0a9b2" + "0" * 52
_GOOD = Rate(estimate=0.018, lower=0.0029, upper=0.0539, n=278, failures=5)
_BAD = Rate(estimate=0.1223, lower=0.0700, upper=0.1949, n=278, failures=34)

Sample = Callable[[State, Settings, datetime], None]


def _begun(state: State, settings: Settings, now: datetime) -> str:
    """Open the thread of the sample's run and return when that was, as people read it."""
    since = now - timedelta(minutes=18)
    run_started(
        state,
        settings,
        run_id=_RUN,
        product=PRODUCT,
        candidate="aurora",
        baseline="classic",
        requester="nightly schedule",
        cases=278,
        budget_usd=25.0,
        now=since,
    )
    return shown_time(stamp(since))


def _ended(
    state: State,
    settings: Settings,
    now: datetime,
    verdict: VerdictName,
    *,
    after: Rate,
    cost: str,
    reasons: tuple[str, ...],
    done: tuple[str, ...],
    asked: tuple[str, ...] = (),
    failing: tuple[TopFailure, ...] = (),
) -> None:
    since = _begun(state, settings, now)
    before = _GOOD if verdict == "ROLLBACK" else _BAD
    summary = GateSummary(
        verdict=verdict,
        product=PRODUCT,
        candidate_name="aurora",
        baseline_name="classic",
        run_id=_RUN,
        reasons=reasons,
        top_failures=failing,
        figures=(
            Figure("Failure rate", _words(before), _words(after)),
            Figure("Effective cost / 1,000", "$19.11", cost),
            Figure("p95 latency", "3.10 s", "3.42 s"),
        ),
        done=done,
        asked=asked,
        spend_usd=4.47,
        failure=after,
        baseline_failure=before,
        since=since,
        decided=shown_time(stamp(now)),
        rollback=rollback_command(PRODUCT, _CLASSIC),
        baseline_digest=_CLASSIC,
    )
    run_ended(state, settings, summary)


def _words(rate: Rate) -> str:
    return f"{rate.estimate or 0:.1%} ({rate.lower:.1%} to {rate.upper:.1%})"


def _rollback(state: State, settings: Settings, now: datetime) -> None:
    _ended(
        state,
        settings,
        now,
        "ROLLBACK",
        after=_BAD,
        cost="$27.90",
        reasons=(
            "12.2 % of 278 images failed; the policy rolls back above 2 %, and at least 7.0 % fail "
            "with 97.5 % confidence.",
            "Slice locale=th: 21 of 40 failed; the policy rolls back above 20 % in a slice.",
        ),
        done=("Production of storefront stays classic, verified at the router in 0.02 s.",),
        failing=(
            TopFailure("typography.text", "locale=th", 21, 40),
            TopFailure("colour.cast", "", 9, 278),
        ),
    )


def _promote(state: State, settings: Settings, now: datetime) -> None:
    _ended(
        state,
        settings,
        now,
        "PROMOTE",
        after=_GOOD,
        cost="$19.02",
        reasons=(
            "1.8 % of 278 images failed; with 95 % confidence fewer than 5 % fail, and the policy "
            "promotes below 5 %.",
        ),
        done=("Production of storefront is now aurora, verified at the router in 0.02 s.",),
    )


def _hold(state: State, settings: Settings, now: datetime) -> None:
    _ended(
        state,
        settings,
        now,
        "HOLD",
        after=_GOOD,
        cost="$19.02",
        reasons=(
            "The run ended early: the budget of this run is used up.",
            "141 of 278 cases finished with the candidate.",
        ),
        done=("Production of storefront stays classic.",),
        asked=(
            "nothing is on fire, production is as it was; mend the cause, then "
            f"`imagegate run --resume {_RUN}`",
        ),
    )


def _failure(state: State, settings: Settings, now: datetime) -> None:
    _begun(state, settings, now)
    run_failed(
        state,
        settings,
        run_id=_RUN,
        product=PRODUCT,
        candidate="aurora",
        what="EvidenceError: the disk of the evidence is full (/srv/imagegate/runs)",
        now=now,
    )


def _budget(state: State, settings: Settings, now: datetime) -> None:
    del settings
    raise_alarm(
        state,
        f"budget:{PRODUCT}:month:hard",
        title=f"BUDGET ALARM: hard limit of the month reached for {PRODUCT}",
        severity="page",
        product=PRODUCT,
        lines=(
            "Users: not affected; production serves as before. New gates are refused.",
            "Spent: $1,602.10 of $1,600.00 in November 2026.",
            "Refused: new and resumed runs, until 2026-12-01 00:00 (UTC) or until the limit is "
            "raised; runs under way stop as HOLD. Rollbacks go on as ever.",
        ),
        asked=(
            "decide whether gates may wait; if not, the release engineering lead "
            f"(#image-releases) can raise month_usd.hard of {PRODUCT} in the budgets file",
        ),
        links=(("Spend now", "imagegate budget"),),
        brief=f"BUDGET ALARM: users are not affected, new gates refused; {PRODUCT} spent "
        "$1,602.10 of $1,600.00 this month",
        now=now,
    )


def _approval(state: State, settings: Settings, now: datetime) -> None:
    _begun(state, settings, now)
    with state.begin() as connection:
        links = run_links(connection, settings, _RUN)
    run_waits(
        state,
        _RUN,
        product=PRODUCT,
        because="The policy asks a person before every promotion. The machine says PROMOTE: "
        "1.8 % of 278 images failed.",
        until=stamp(now + timedelta(hours=24)),
        links=links,
    )


SAMPLES: Mapping[str, Sample] = {
    "rollback": _rollback,
    "promote": _promote,
    "hold": _hold,
    "failure": _failure,
    "budget": _budget,
    "approval": _approval,
}
