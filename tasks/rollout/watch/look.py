"""One look: read live outcomes since the last one, judge them, store the result. I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.incidents import raise_alarm, read_incident, resolve_alarm
from tasks.errors import EvidenceError
from tasks.mix.freeze import stamp
from tasks.mix.production import (
    Production,
    journal_of,
    require_production,
    serving_order,
)
from tasks.plan import Remote, RunFolder
from tasks.policy import Policy
from tasks.rollout.faults import fault
from tasks.rollout.outcomes.base import LONGEST, InputSource, OutcomeError, OutcomeSource, read_all
from tasks.rollout.watch.inputs import sample_of
from tasks.rollout.watch.judge import Judged, Look, judge, with_limits
from tasks.rollout.watch.memory import Alarm, Memory, Sample, begin, begin_next
from tasks.rollout.watch.store import (
    Watch,
    blind_key,
    inputs_key,
    read_watch,
    write_watch,
)
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import runs

#: A watch that begins, or was off for long, counts no outcomes older than this.
LOOK_BACK = timedelta(days=1)

Samples = Callable[[str], "Sample | None"]


@dataclass(frozen=True, slots=True)
class Looked:
    """A look that was stored."""

    watch: Watch
    judged: Judged
    #: What was odd about the data, in sentences.
    notes: tuple[str, ...] = ()


def look(
    state: State,
    product: str,
    policy: Policy,
    sources: Sequence[OutcomeSource],
    now: datetime,
    samples: Samples = lambda _digest: None,
) -> Looked:
    """Look at what serves a product; an alarm is stored before anything is done about it.

    Args:
        state: The database.
        product: Name of the product.
        policy: The limits.
        sources: Where live outcomes come from.
        now: The present moment.
        samples: Returns what the gate judged when it judged a mix; asked once a mix.

    Raises:
        RefusedError: The product has no production mix.
        StateError: What the watch remembers cannot be read.
        FencedError: Another process looked at the same time; its look stands.
    """
    before = read_watch(state, product)
    serving = require_production(state, product)
    if before is not None and before.status == "stopped":
        return Looked(before, Judged(before.memory, "watching", before.reason))
    watch = _current(before, serving, policy, now, samples)
    judged, until, notes = _seen(sources, watch, policy, now)
    with state.begin() as connection:
        memory = judged.memory
        if judged.status == "alarm":
            memory = replace(memory, alarm=_alarm(connection, watch, judged, policy, now))
        changed = before is None or before.status != judged.status
        after = replace(
            watch,
            memory=memory,
            counted_until=until,
            status=judged.status,
            reason=judged.reason,
            since=stamp(now) if changed else watch.since,
            updated_at=stamp(now),
        )
        write_watch(connection, after, before)
        fault("look written")
        _tell_sight(connection, before, after, judged, now)
        _tell_inputs(connection, after, judged, now)
    fault("look kept")
    return Looked(after, judged, notes)


def _current(
    before: Watch | None, serving: Production, policy: Policy, now: datetime, samples: Samples
) -> Watch:
    """Return the watch of what serves now: the one before, or a new one for a new mix."""
    if before is not None and before.mix_digest == serving.mix_digest:
        memory = before.memory
        if memory.sample is None and not memory.images:
            # Begun anew, perhaps because the gate's plan was not to be had before.
            memory = replace(memory, sample=samples(serving.mix_digest))
        if before.policy_digest != policy.digest:
            memory = with_limits(memory, policy)
        return replace(before, policy_digest=policy.digest, memory=memory)
    since = max(datetime.fromisoformat(serving.changed_at), now - LOOK_BACK)
    since = min(since, now)
    memory = (
        begin(policy, since)
        if before is None
        else begin_next(before.memory, before.mix_digest, policy, since)
    )
    return Watch(
        product=serving.product,
        mix_digest=serving.mix_digest,
        policy_digest=policy.digest,
        memory=replace(memory, sample=samples(serving.mix_digest)),
        counted_until=since,
        status="watching",
        reason="",
        since=stamp(now),
        updated_at=stamp(now),
    )


def _seen(
    sources: Sequence[OutcomeSource], watch: Watch, policy: Policy, now: datetime
) -> tuple[Judged, datetime, tuple[str, ...]]:
    """Return what came since the last look means, how far it reaches, and what was odd about it.

    After a pause it is read part by part, until it reaches the present or an alarm.
    """
    since, memory = watch.counted_until, watch.memory
    notes: tuple[str, ...] = ()
    if now - since > LOOK_BACK:
        # Older outcomes say nothing about now, and days of logs would take long to read.
        since = now - LOOK_BACK
        notes = (f"outcomes before {since:%Y-%m-%d %H:%M} UTC were not looked at",)
    while True:
        seen, until, odd = _read(sources, watch.product, watch.mix_digest, since, now)
        notes = (*notes, *(note for note in odd if note not in notes))
        catching_up = since + LONGEST < now and until > since
        judged = judge(memory, seen, watch.mix_digest, policy, until if catching_up else now)
        if not catching_up or judged.status == "alarm":
            return judged, until, notes
        since, memory = until, judged.memory


def _read(
    sources: Sequence[OutcomeSource], product: str, digest: str, since: datetime, now: datetime
) -> tuple[Look, datetime, tuple[str, ...]]:
    """Return what came since a moment, how far it reaches, and what was odd about it."""
    notes: tuple[str, ...] = ()
    if now <= since:
        return Look(None, "nothing is newer than what was counted"), since, notes
    try:
        outcomes = read_all(sources, product, [digest], since, now)
    except OutcomeError as error:
        return Look(None, str(error)), since, notes
    inputs: Counter[tuple[str, str]] | None = None
    if outcomes.until > since:
        for source in sources:
            if not isinstance(source, InputSource):
                continue
            try:
                inputs = Counter(source.inputs_seen(product, since, outcomes.until))
                break
            except OutcomeError as error:
                notes = (*notes, f"inputs are not known: {error}")
    return (
        Look(outcomes, inputs=inputs),
        outcomes.until,
        (*notes, *outcomes.notes, *outcomes.errors),
    )


def _alarm(
    connection: Connection, watch: Watch, judged: Judged, policy: Policy, now: datetime
) -> Alarm:
    """Return the alarm to remember: a new one, or the one about this mix that lasts."""
    known = watch.memory.alarm
    if known is not None and known.mix_digest == watch.mix_digest:
        return known
    target = None
    # A mix that the watch itself put back is not rolled back again: what hits both is hardly
    # theirs, and each step would lead to an older mix.
    if policy.watch.roll_back and (known is None or known.target != watch.mix_digest):
        target = last_good(connection, watch.product, watch.memory)
    return Alarm(watch.mix_digest, judged.reason, stamp(now), target)


def last_good(connection: Connection, product: str, memory: Memory) -> str | None:
    """Return the newest mix before the present one that the watch never found bad, if any."""
    bad = {past.mix_digest for past in memory.past if past.how == "alarm"}
    order = serving_order(journal_of(connection, product))
    return next((digest for digest in reversed(order[:-1]) if digest not in bad), None)


def _tell_sight(
    connection: Connection, before: Watch | None, after: Watch, judged: Judged, now: datetime
) -> None:
    """Open the alarm that nothing is seen, or close it."""
    product = after.product
    was = before is not None and before.status == "blind"
    if judged.status == "blind" and (not was or (before and before.reason != after.reason)):
        raise_alarm(
            connection,
            blind_key(product),
            title=f"{product}: {'traffic stopped' if judged.stopped else 'the watch sees nothing'}",
            severity="page" if judged.stopped else "warning",
            product=product,
            lines=(
                after.reason[:1].upper() + after.reason[1:] + ".",
                "Whether users get good images is not known; nothing was rolled back.",
            ),
            asked=(
                "See whether requests arrive, and whether the sources of outcomes answer: "
                f"`imagegate watch status --product {product}`",
            ),
            now=now,
        )
    elif was and judged.status != "blind":
        resolve_alarm(connection, blind_key(product), how="Images are counted again.", now=now)


def _tell_inputs(connection: Connection, after: Watch, judged: Judged, now: datetime) -> None:
    """Open the alarm that the gate's cases do not cover production; a new mix closes it."""
    key = inputs_key(after.product)
    if not judged.warning:
        resolve_alarm(
            connection, key, how="The cases of the gate cover what is asked for.", now=now
        )
        return
    known = read_incident(connection, key)
    if known is not None and known.status == "open":
        return
    raise_alarm(
        connection,
        key,
        title=f"{after.product}: production asks for what the gate did not judge",
        severity="warning",
        product=after.product,
        lines=(judged.warning + ".",),
        asked=(
            "Nothing is on fire. Draw the gate's cases from a newer log: "
            "`imagegate run --inputs LOG`",
        ),
        now=now,
    )


def gate_samples(state: State, settings: Settings, product: str) -> Samples:
    """Return a function that finds what the gate judged when it judged a mix.

    It gives ``None`` where no run of the mix, or no plan of it, is to be had.
    """

    def find(digest: str) -> Sample | None:
        from tasks.evidence.remote import open_remote

        with state.begin() as connection:
            names = _runs_of(connection, product, digest)
        try:
            remote: Remote | None = open_remote(settings)
        except EvidenceError:
            remote = None
        for run_id in names:
            try:
                plan = RunFolder(settings.runs / run_id, remote).load_plan()
            except EvidenceError:
                continue
            return sample_of(run_id, plan.cases)
        return None

    return find


def _runs_of(connection: Connection, product: str, digest: str) -> list[str]:
    """Return the runs that judged a mix: the one that promoted it, then newer before older."""
    promoted = [
        change.run_id
        for change in reversed(journal_of(connection, product))
        if change.to_digest == digest and change.run_id is not None
    ]
    query = (
        sa.select(runs.c.run_id)
        .where(runs.c.product == product, runs.c.candidate_digest == digest)
        .order_by(runs.c.started_at.desc())
        .limit(5)
    )
    return list(dict.fromkeys([*promoted, *connection.execute(query).scalars()]))
