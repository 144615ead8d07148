"""What people do between gates: freeze, thaw, look, roll back, read, deliver."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import ConfigError, RolloutError, StateError, known
from tasks.settings import Settings
from tasks.state import State

if TYPE_CHECKING:
    from tasks.rollout.decision import RolloutResult
    from tasks.rollout.routers.base import Router, RouterState

#: A rollback without a name is not repeated within this time: two people who are called at the
#: same time, or one whose command was cut off, go one mix back together, not two.
ONCE_IN = timedelta(minutes=10)


@contextmanager
def opened(settings: Settings) -> Iterator[State]:
    """Yield the state database."""
    state = State(settings.state_url.get_secret_value(), home=settings.home)
    try:
        yield state
    finally:
        state.close()


def freeze(
    settings: Settings, product: str, owner: str, reason: str, days: float
) -> dict[str, Any]:
    """Freeze a product for a person and return the freeze."""
    from tasks.mix.freeze import freeze as freeze_now

    with opened(settings) as state:
        held = freeze_now(
            state, product, owner=owner, reason=reason, days=days, now=datetime.now(UTC)
        )
    return {
        "product": held.product,
        "mix_digest": held.mix_digest,
        "owner": held.owner,
        "reason": held.reason,
        "from_at": held.from_at,
        "until_at": held.until_at,
    }


def thaw(settings: Settings, product: str, actor: str) -> int:
    """Lift every freeze of a product and return how many there were."""
    from tasks.mix.freeze import thaw as thaw_now

    with opened(settings) as state:
        return len(thaw_now(state, product, actor=actor, now=datetime.now(UTC)))


def status(settings: Settings, product: str) -> dict[str, Any]:
    """Return what serves, whether the router shows it, the freezes and the newest run."""
    from flows.rehearsal import rollout_status, windows_now
    from tasks.evidence.history import history as read_history
    from tasks.mix.freeze import active_freezes
    from tasks.mix.production import kept_mix, read_production
    from tasks.rollout.config import open_router

    with opened(settings) as state:
        pointer = read_production(state, product)
        if pointer is None:
            return {"product": product, "production": None, "freezes": [], "last_run": None}
        shown, router_error = _asked(open_router(settings), product)
        runs = [row for row in read_history(state, product, 20) if row.run_id is not None]
        held = active_freezes(state, product, datetime.now(UTC))
        name = kept_mix(state, pointer.mix_digest).mix.name
        rollout = rollout_status(state, product, datetime.now(UTC))
    return {
        "product": product,
        "production": {
            "mix_name": name,
            "mix_digest": pointer.mix_digest,
            "epoch": pointer.epoch,
            "since": pointer.changed_at,
            "weights": pointer.weights,
            "router_shows_it": shown is not None
            and pointer.shown_by(shown.mix_digest, shown.epoch, shown.weights),
            "router_error": router_error,
        },
        "freezes": [
            {
                "owner": f.owner,
                "reason": f.reason,
                "run_id": f.run_id,
                "mix_digest": f.mix_digest,
                "until_at": f.until_at,
            }
            for f in held
        ],
        "windows": windows_now(settings, product),
        "last_run": runs[0].to_dict() if runs else None,
        **rollout,
    }


def _asked(router: Router, product: str) -> tuple[RouterState | None, str]:
    """Return what the router shows, and why it could not be asked (empty when it could)."""
    try:
        return router.read(product), ""
    except RolloutError as error:
        return None, str(error)


def render_status(shown: dict[str, Any]) -> str:
    """Return the status in lines."""
    from flows.rehearsal import rollout_lines

    production = shown["production"]
    if production is None:
        return f"{shown['product']}: nothing was released here yet; start with `imagegate run`"
    router = (
        "the router shows it"
        if production["router_shows_it"]
        else f"the router cannot be asked: {production['router_error']}"
        if production["router_error"]
        else "the router does NOT show it; `imagegate rollback` or a new run applies it"
    )
    lines = [
        f"{shown['product']} serves {production['mix_name']} "
        f"({production['mix_digest'][:19]}…) since {production['since']}; {router}"
    ]
    lines += [
        f"canary: {100 * weight:g} % of the traffic goes to {digest[:19]}…"
        for digest, weight in production["weights"].items()
        if digest != production["mix_digest"]
    ]
    lines += [
        f"frozen until {held['until_at']} by {held['owner']}: {held['reason']}"
        + (f" (run {held['run_id']}; the next run takes it over)" if held["run_id"] else "")
        for held in shown["freezes"]
    ]
    lines += [f"freeze window {held}" for held in shown["windows"]]
    if not shown["freezes"] and not shown["windows"]:
        lines.append("not frozen")
    lines += rollout_lines(shown, datetime.now(UTC))
    last = shown["last_run"]
    if last is not None:
        lines.append(f"last run {last['run_id']}: {_ended(last)}")
    return "\n".join(lines)


def rollback(
    settings: Settings,
    product: str,
    to: str | None,
    actor: str,
    reason: str,
    *,
    expected_epoch: int | None = None,
    expected_mixes: Collection[str] = (),
) -> dict[str, Any]:
    """Put an earlier mix back, verified at the router, and queue a message about it.

    With the state database down, production goes back by what this machine verified last, and
    ``warning`` says so.

    A button in an old message says by ``expected_epoch`` or ``expected_mixes`` what production
    may be on for its press to hold; a person at the keyboard needs neither.
    """
    from tasks.rollout.config import open_router
    from tasks.rollout.readback import shown_by

    started = time.monotonic()
    router = open_router(settings)
    before = shown_by(router, product)
    try:
        done = _rolled_back(
            settings,
            router,
            product,
            to,
            actor,
            reason,
            expected_epoch=expected_epoch,
            expected_mixes=expected_mixes,
            started=started,
        )
    except StateError as error:
        # What a button's press rests on cannot be asked now; and a router that was changed has
        # the rollback already: going by the file would go one mix too far.
        fenced = expected_epoch is not None or bool(expected_mixes)
        if fenced or shown_by(router, product) != before:
            raise
        done = _pushed(settings, router, product, to, actor, reason, error, started)
    return done.model_dump(mode="json") | {"mix_digest": done.to_digest}


def _rolled_back(
    settings: Settings,
    router: Router,
    product: str,
    to: str | None,
    actor: str,
    reason: str,
    *,
    expected_epoch: int | None,
    expected_mixes: Collection[str],
    started: float,
) -> RolloutResult:
    """Roll back by the state database, with the message about it."""
    from flows.approval_words import tell_closed
    from tasks.alerts.change_words import tell_rollback
    from tasks.mix.production import find_mix
    from tasks.rollout.change import roll_back

    with opened(settings) as state:
        digest = None if to is None else find_mix(state, to).digest
        done = roll_back(
            state,
            router,
            product,
            digest,
            actor=actor,
            reason=reason,
            expected_epoch=expected_epoch,
            expected_mixes=expected_mixes,
            now=datetime.now(UTC),
            once_in=ONCE_IN,
            trigger=started,
            tell=tell_rollback,
        )
        # What waited for a person's approval of a promotion was closed with it.
        tell_closed(state, settings, product)
    return done


def _pushed(
    settings: Settings,
    router: Router,
    product: str,
    to: str | None,
    actor: str,
    reason: str,
    why: StateError,
    started: float,
) -> RolloutResult:
    """Roll back by the file of the last good mixes, because the database is not to be had.

    Raises:
        RolloutError: That does not go either; says what is wrong with both.
    """
    from tasks.errors import RefusedError
    from tasks.rollout.last_good import push_last_good
    from tasks.state import last_good_folder

    folder = last_good_folder(settings.home)
    try:
        done = push_last_good(
            router, folder, product, actor, reason, to=to, once_in=ONCE_IN, trigger=started
        )
    except (RefusedError, RolloutError) as error:
        raise RolloutError(f"{why}\nWithout the state database: {error}") from error
    return done.model_copy(update={"warning": f"{why}. {done.warning}"})


def history(settings: Settings, product: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the newest runs and changes."""
    from tasks.evidence.history import history as read_history

    with opened(settings) as state:
        return [row.to_dict() for row in read_history(state, product, limit)]


def _ended(row: dict[str, Any]) -> str:
    """Return how a run ended, or that a person has to decide about it."""
    if row["status"] == "waiting":
        return "waits for a person"
    ended = str(row["verdict"] or row["status"])
    share = row["changes"][0]["weight"] if ended == "canary" else None
    return ended if share is None else f"canary {100 * share:g} %"


def render_history(rows: list[dict[str, Any]]) -> str:
    """Return the history as a table in lines."""
    if not rows:
        return "no runs yet; start with `imagegate run`"

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    cells = [("when", "what", "verdict", "candidate", "baseline", "failures", "spend")]
    for row in rows:
        rates = f"{percent(row['baseline_failure_rate'])} → {percent(row['failure_rate'])}"
        spend = row["spend_usd"]
        cells.append(
            (
                row["at"][:19].replace("T", " "),
                row["run_id"] or f"change by {row['changes'][0]['actor']}",
                _ended(row),
                row["candidate"],
                row["baseline"],
                rates if row["run_id"] else "",
                "" if spend is None else f"${spend:.2f}",
            )
        )
    widths = [max(len(line[i]) for line in cells) for i in range(7)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def report_path(settings: Settings, run_id: str | None) -> Path:
    """Return the HTML report of a run; of the newest one with a report when none is named.

    A run that another machine made is fetched from the shared store.

    Raises:
        ConfigError: There is no such run or it has no report.
        EvidenceError: The shared store cannot be reached, or the run in it was altered.
    """
    reports = sorted(settings.runs.glob("*/report.html"), key=lambda p: p.stat().st_mtime)
    by_run = {path.parent.name: path for path in reports}
    if run_id is None:
        if not reports:
            raise ConfigError(f"no report in {settings.runs} yet; start with `imagegate run`")
        return reports[-1]
    if run_id not in by_run:
        return _shared_report(settings, run_id, by_run)
    return by_run[run_id]


def _shared_report(settings: Settings, run_id: str, here: dict[str, Path]) -> Path:
    """Return the report of a run that another machine sealed, fetched from the shared store."""
    from tasks.evidence.remote import open_remote
    from tasks.evidence.sharing import is_sealed, pull_run, remote_runs
    from tasks.plan import RunFolder

    remote = open_remote(settings)
    if remote is None or run_id not in (there := remote_runs(remote)):
        names = here if remote is None else {*here, *there}
        raise ConfigError(f"run {run_id!r} has no report {known(names)}")
    if not is_sealed(remote, run_id):
        raise ConfigError(f"run {run_id!r} has no report yet: it goes on, or was stopped")
    folder = RunFolder(settings.runs / run_id)
    pull_run(remote, folder)
    return folder.path / "report.html"
