"""What a source of live outcomes gives, and how several sources become one picture.

A source counts what requests of a product got between two moments, by the mix that served them.
Windows are half open, ``since <= t < until``, so that windows that follow each other hold each
request once. ``until`` in the answer is how far the data is complete; the next look starts there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, runtime_checkable

from tasks.errors import GateError

#: Passes over the sources until all agree on one window.
_PASSES: Final = 4
#: Fields of an arm that one source gives together.
#: The first of each says how much there was.
_GROUPS: Final = (
    ("images", "failures"),
    ("timed", "slow"),
    ("costed", "cost_microusd"),
    ("judged", "defects"),
    ("tickets",),
)

#: The longest window of one look; a longer one is read in parts, look by look.
LONGEST: Final = timedelta(hours=6)
#: How far a source may be behind the others before they go on without it.
BEHIND: Final = timedelta(minutes=15)
#: Images from which a difference between sources is told, and how large it must be.
_MANY: Final = 200
_APART: Final = 1.5

Clock = Callable[[], datetime]


class OutcomeError(GateError):
    """Live outcomes could not be read. This is no evidence of failures, nor of their absence."""


@dataclass(frozen=True, slots=True)
class ArmOutcomes:
    """Counts of one mix in one window; ``None`` is not measured, which is not zero.

    Attributes:
        images: Requests that asked for an image and ended in the window.
        failures: Those that delivered none.
        slow: Of ``timed`` requests, those above the limit of latency.
        timed: Requests whose latency is known.
        cost_microusd: What ``costed`` images cost.
        tickets: Support tickets opened in the window about images of the mix.
        judged: Delivered images that the visual checks judged: a sample.
        defects: Those of ``judged`` with a defect.
        costed: Images whose cost is known.

    Raises:
        ValueError: A negative count, or a part larger than its whole.
    """

    images: int = 0
    failures: int = 0
    slow: int | None = None
    timed: int | None = None
    cost_microusd: int | None = None
    tickets: int | None = None
    judged: int | None = None
    defects: int | None = None
    costed: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            if value is not None and value < 0:
                raise ValueError(f"{name} of live outcomes must not be negative, got {value}")
        for part, whole in (
            ("failures", "images"),
            ("slow", "timed"),
            ("defects", "judged"),
        ):
            some, all_of = getattr(self, part), getattr(self, whole)
            if (some is None) != (all_of is None):
                raise ValueError(f"{part} and {whole} come together, got {some} and {all_of}")
            if some is not None and some > all_of:
                raise ValueError(f"{some} {part} among {all_of} {whole}")
        if (self.cost_microusd is None) != (self.costed is None):
            raise ValueError("cost_microusd and costed come together")

    def as_dict(self) -> dict[str, int | None]:
        """Return the counts by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __add__(self, other: ArmOutcomes) -> ArmOutcomes:
        """Return the counts of two windows, or of two places, together.

        What one of the two did not measure is taken from the other alone.
        """
        mine, theirs = self.as_dict(), other.as_dict()
        return ArmOutcomes(
            **{  # type: ignore[arg-type]
                name: a if b is None else b if a is None else a + b
                for (name, a), b in zip(mine.items(), theirs.values(), strict=True)
            }
        )


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What mixes did in one window.

    Attributes:
        since: Start of the window, included.
        until: How far the data is complete, excluded: late data makes it earlier than asked.
        arms: Counts by mix digest, one for each digest that was asked for.
        notes: What was missing or odd, in sentences.
        errors: Sources that failed while others answered, in sentences. Their fields are ``None``
            unless another source has them. Never let a candidate advance on such a look.
        others: Images of the product that some other mix served, or that name no mix.
    """

    since: datetime
    until: datetime
    arms: Mapping[str, ArmOutcomes]
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    others: int = 0

    def __post_init__(self) -> None:
        for moment in (self.since, self.until):
            if moment.tzinfo is None:
                raise ValueError("the moments of a window need a time zone")
        if self.until < self.since:
            raise ValueError(f"a window from {self.since} to {self.until} ends before it starts")


class OutcomeSource(Protocol):
    """A place that knows what live requests got."""

    @property
    def name(self) -> str:
        """What notes and errors call the source; holds no secret."""
        ...

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Count what the mixes did in the window.

        Raises:
            OutcomeError: The source cannot be read, or what it says makes no sense.
        """
        ...


@runtime_checkable
class InputSource(Protocol):
    """A source that also knows what was asked for."""

    def inputs_seen(
        self, product: str, since: datetime, until: datetime
    ) -> Mapping[tuple[str, str], int]:
        """Return requests by (subtask, locale); an empty text stands for not given.

        Raises:
            OutcomeError: The source cannot be read.
        """
        ...


def now_utc() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


def nothing(digests: Sequence[str], since: datetime, until: datetime, *notes: str) -> Outcomes:
    """Return a window in which nothing was counted."""
    return Outcomes(since, max(since, until), {digest: ArmOutcomes() for digest in digests}, notes)


def combine(outcomes: Sequence[Outcomes]) -> Outcomes:
    """Return one picture of the same window as several sources saw it.

    Nothing is added up: two sources see the same requests. Each group of fields (images and
    failures; latency; cost; tickets; judged images) comes from the first source, in the order
    given, that measured it for any arm, and for all arms from that one.

    Raises:
        ValueError: No outcomes, or windows that differ (:func:`read_all` brings them to agree).
    """
    if not outcomes:
        raise ValueError("no outcomes to combine")
    first = outcomes[0]
    if any((o.since, o.until) != (first.since, first.until) for o in outcomes):
        raise ValueError("outcomes of different windows cannot be combined")
    digests = list(dict.fromkeys(digest for o in outcomes for digest in o.arms))
    counts: dict[str, dict[str, int | None]] = {digest: {} for digest in digests}
    for group in _GROUPS:
        # One that had something goes before one that measures it and had nothing.
        source = next((o for o in outcomes if _has(o, group[0])), None) or next(
            (o for o in outcomes if _measures(o, group[0])), None
        )
        for digest in digests if source is not None else ():
            arm = source.arms.get(digest, ArmOutcomes()) if source is not None else ArmOutcomes()
            counts[digest].update({name: getattr(arm, name) for name in group})
    return Outcomes(
        since=first.since,
        until=first.until,
        arms={
            digest: ArmOutcomes(**named)  # type: ignore[arg-type]
            for digest, named in counts.items()
        },
        notes=tuple(dict.fromkeys(note for o in outcomes for note in o.notes)),
        errors=tuple(dict.fromkeys(error for o in outcomes for error in o.errors)),
        others=max(o.others for o in outcomes),
    )


def _has(outcomes: Outcomes, name: str) -> bool:
    """Tell whether a source counted anything; no ticket is as good a count as one."""
    return name != "tickets" and any(getattr(arm, name) for arm in outcomes.arms.values())


def _measures(outcomes: Outcomes, name: str) -> bool:
    """Tell whether a source has a field. Nobody is obliged to count images: zero is none."""
    values = [getattr(arm, name) for arm in outcomes.arms.values()]
    return any(values) if name == "images" else any(value is not None for value in values)


@dataclass(slots=True)
class _Pass:
    """One pass over the sources."""

    read: list[tuple[OutcomeSource, Outcomes]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def read_all(
    sources: Sequence[OutcomeSource],
    product: str,
    digests: Sequence[str],
    since: datetime,
    until: datetime,
) -> Outcomes:
    """Read all sources for one common window and combine them.

    The window ends where the data of every source is complete, and after six hours at the latest. A
    source that fails, or is a quarter of an hour behind the others, leaves its fields unmeasured
    and a sentence in ``errors``, so that a broken help desk hides no failure that the logs show.

    Raises:
        OutcomeError: There are no sources, one failed and no other counted images, or they agree
            on no window.
    """
    if not sources:
        raise OutcomeError(
            f"no source of live outcomes for {product!r}: name one under 'outcomes' in the rollout "
            "file"
        )
    end, kept = min(until, since + LONGEST), list(sources)
    behind: list[str] = []
    for _ in range(_PASSES):
        this = _read_once(kept, product, digests, since, end)
        # Without images and with a failure nobody can tell silence from blindness.
        if not any(_measures(outcomes, "images") for _, outcomes in this.read) and this.errors:
            raise OutcomeError("; ".join(this.errors))
        late = _late(this)
        if late:
            behind += [
                f"{source.name}: its data ends at {outcomes.until.isoformat(timespec='seconds')}, "
                "far behind the others"
                for source, outcomes in late
            ]
            kept = [source for source in kept if all(source is not one for one, _ in late)]
            continue
        earliest = min(outcomes.until for _, outcomes in this.read)
        if all(outcomes.until == earliest for _, outcomes in this.read):
            whole = combine([outcomes for _, outcomes in this.read])
            return replace(
                whole,
                notes=(*whole.notes, *_disagreements(this)),
                errors=(*whole.errors, *behind, *this.errors),
            )
        end = earliest
    raise OutcomeError(
        f"the sources of live outcomes of {product!r} agree on no window after {_PASSES} passes: "
        + ", ".join(sorted(source.name for source in kept))
    )


def _disagreements(this: _Pass) -> list[str]:
    """Return where two sources count the same images far apart: one of them loses some."""
    notes = []
    for digest in this.read[0][1].arms:
        counts = [
            (outcomes.arms[digest].images, source.name)
            for source, outcomes in this.read
            if digest in outcomes.arms and outcomes.arms[digest].images
        ]
        if counts and max(counts)[0] >= _MANY and max(counts)[0] > _APART * min(counts)[0]:
            told = ", ".join(f"{name} {count:,}" for count, name in counts)
            notes.append(f"the sources disagree on how many images {digest[:19]} served: {told}")
    return notes


def _late(this: _Pass) -> list[tuple[OutcomeSource, Outcomes]]:
    """Return the sources that are far behind, as long as one that counts images is not."""
    latest = max(outcomes.until for _, outcomes in this.read)
    late = [(s, o) for s, o in this.read if o.until < latest - BEHIND]
    prompt = [o for _, o in this.read if o.until >= latest - BEHIND]
    return late if any(_measures(outcomes, "images") for outcomes in prompt) else []


def _read_once(
    sources: Sequence[OutcomeSource],
    product: str,
    digests: Sequence[str],
    since: datetime,
    until: datetime,
) -> _Pass:
    this = _Pass()
    for source in sources:
        try:
            this.read.append((source, source.read(product, digests, since, until)))
        except OutcomeError as error:
            this.errors.append(f"{source.name}: {error}")
    return this
