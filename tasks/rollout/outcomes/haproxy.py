"""Live outcomes from HAProxy's own counters: what every request got, whatever applications log.

A mix has a backend of its own (see :mod:`tasks.rollout.routers.haproxy`), and a backend counts its
answers by class of status, those that HAProxy gave itself (502, 503, 504) too. Requests that ended
without any answer show only in the count of sessions: HAProxy closes silently when a server drops
a connection that was used before. HAProxy keeps no distribution of latency, so latency comes from
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from tasks.errors import RolloutError
from tasks.rollout.outcomes.base import (
    ArmOutcomes,
    Clock,
    OutcomeError,
    Outcomes,
    now_utc,
)
from tasks.rollout.outcomes.config import HaproxyConfig
from tasks.rollout.outcomes.counters import Grown, Sample, SampleFiles, grown

#: Seconds that a window's end may lie back for a sample taken now to stand for it.
FRESH_S: Final = 10.0
_ANSWERS: Final = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")
_COUNTERS: Final = (*_ANSWERS, "srv_abrt", "cli_abrt")
#: Sessions that ended: all so far (``stot``) without those that are under way (``scur``).
_ENDED: Final = "ended"


class Instance(Protocol):
    """The part of :class:`tasks.rollout.routers.haproxy_runtime.Runtime` that is used here."""

    @property
    def address(self) -> str:
        """Where it listens."""
        ...

    def ask(self, command: str) -> str:
        """Send a command and return the answer."""
        ...

    def backends(self) -> Mapping[str, Mapping[str, str]]:
        """Return the counters of every backend by its name."""
        ...


class Owners(Protocol):
    """Knows which backend serves which mix."""

    def backends_of(self, product: str) -> Mapping[str, str]:
        """Return the backend of each mix that has traffic now."""
        ...


class HaproxySource:
    """Counts answers by the counters of HAProxy's backends.

    Args:
        config: Which answers are failures.
        instances: The Runtime APIs of all HAProxys that serve the product.
        owners: Knows which backend serves which mix.
        files: Makes the store of samples of a product.
        clock: Gives the moment.
        backends: Backends by product, all of them when not given; others are not kept.
    """

    def __init__(
        self,
        config: HaproxyConfig,
        instances: Sequence[Instance],
        owners: Owners,
        files: SampleFilesOf,
        clock: Clock = now_utc,
        backends: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._backends = backends
        self._config, self._instances, self._owners = config, instances, owners
        self._files, self._clock = files, clock

    @property
    def name(self) -> str:
        """What notes call the source."""
        return self._config.name or "haproxy"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Take a sample of the counters and return what they grew by in the window.

        Raises:
            OutcomeError: HAProxy does not answer, or the samples cannot be kept.
        """
        now = self._clock()
        end = max(since, min(until, now))
        if not self._config.concerns(product):
            return Outcomes(since, end, {digest: ArmOutcomes() for digest in digests})
        files = self._files(product)
        with files.lock():
            samples = files.load(since)
            try:
                sample = self._sample(product, now)
            except RolloutError as error:
                raise OutcomeError(str(error)) from None
            last = samples[-1] if samples else None
            # A sample taken a moment after the end stands for the end.
            wanted = end if (now - end).total_seconds() <= FRESH_S else now
            stamp = files.stamp(wanted.timestamp(), now.timestamp(), last)
            stamped = Sample(stamp, sample.processes, sample.owners, sample.values)
            files.keep(stamped)
        found = grown([*samples, stamped], since.timestamp(), end.timestamp())
        return self._outcomes(found, digests, since, end)

    def _sample(self, product: str, now: datetime) -> Sample:
        owners = {backend: mix for mix, backend in self._owners.backends_of(product).items()}
        if not owners:
            raise OutcomeError(
                f"HAProxy has no routing of {product!r} yet, so nobody knows whose its counters are"
            )
        wanted = self._backends.get(product) if self._backends is not None else None
        processes, values = {}, {}
        for instance in self._instances:
            info = _info(instance.ask("show info"))
            processes[instance.address] = (
                _whole(info.get("Pid"), instance.address),
                _whole(info.get("Uptime_sec"), instance.address),
            )
            # Those without a mix too: one that gets traffic later began from what is seen now.
            values[instance.address] = {
                name: _counters(row, instance.address)
                for name, row in instance.backends().items()
                if wanted is None or name in wanted
            }
        return Sample(now.timestamp(), processes, owners, values)

    def _outcomes(
        self, found: Grown, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        notes = []
        if found.first is None or found.first > since.timestamp():
            began = datetime.fromtimestamp(found.first or until.timestamp(), UTC)
            notes.append(
                f"{self.name}: counters are known from {began.isoformat(timespec='seconds')} on; "
                "what was before is not counted"
            )
        if found.restarts:
            notes.append(
                f"{self.name}: HAProxy was reloaded {found.restarts} times; what its old process "
                "still answered is not counted"
            )
        if found.unowned:
            notes.append(
                f"{self.name}: a backend changed its mix between two samples; what it answered "
                "meanwhile is not counted"
            )
        arms = {digest: self._arm(found.by_mix.get(digest, {})) for digest in digests}
        others = sum(
            self._arm(values).images
            for digest, values in found.by_mix.items()
            if digest not in digests
        )
        return Outcomes(since, until, arms, tuple(notes), others=others)

    def _arm(self, values: Mapping[str, int]) -> ArmOutcomes:
        """Return the counts of an arm.

        What ended without an answer is a failure, unless clients left: then it is theirs. An
        answer that broke off after its status said 200 is no image either.
        """
        answers = {name: values.get(name, 0) for name in _ANSWERS}
        silent = max(0, values.get(_ENDED, 0) - sum(answers.values())) + answers["hrsp_other"]
        left = min(silent, values.get("cli_abrt", 0))
        images = sum(answers.values()) - answers["hrsp_other"] + silent
        failures = answers["hrsp_5xx"] + silent - left
        for how, count in (
            (self._config.client_errors, answers["hrsp_4xx"]),
            (self._config.client_aborts, left),
        ):
            if how == "failure":
                failures += count
            elif how == "left_out":
                images -= count
        return ArmOutcomes(images, min(images, failures + values.get("srv_abrt", 0)))


class SampleFilesOf(Protocol):
    """Makes the store of samples of a product."""

    def __call__(self, product: str, /) -> SampleFiles:
        """Return the store."""
        ...


def _counters(row: Mapping[str, str], address: str) -> dict[str, int]:
    found = {name: _whole(row.get(name) or "0", address) for name in _COUNTERS}
    total, current = (_whole(row.get(name) or "0", address) for name in ("stot", "scur"))
    return {**found, _ENDED: max(0, total - current)}


def _info(text: str) -> dict[str, str]:
    """Return what ``show info`` says, by name."""
    return {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    }


def _whole(text: str | None, address: str) -> int:
    if text is None or not (text.isascii() and text.isdigit()):
        raise OutcomeError(f"{address}: HAProxy's counters read {text!r:.40}, not a whole number")
    return int(text)
