"""The flags of ``imagegate plan`` and ``imagegate simulate``: their meaning, what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli_io import err
from flows.figures import chosen, parse_amount, parse_share
from tasks.errors import ConfigError

if TYPE_CHECKING:
    from tasks.policy import Policy
    from tasks.verdict.traffic import SliceSpec

#: Share of the cases of a slice that was named without one.
SLICE_SHARE = 0.10
#: Share of the cases of a critical slice that was not named: one of five subtasks.
CRITICAL_SHARE = 0.20
DEFAULT_POLICY = "deployments/policies/default.yaml"
_SLICE = re.compile(r"(?P<name>[^@:,]+)(?:@(?P<share>[^@:,]*))?(?::(?P<rate>[^@:,]*))?")
_PICTURES = (".svg", ".png")


@dataclass(frozen=True, slots=True)
class Costs:
    """What one case costs, in dollars, and takes, in seconds."""

    price: float
    #: Of the baseline on the same case; 0 when its images are cached.
    price_baseline: float
    seconds: float

    def candidate(self, images: float) -> float:
        """Return the dollars for a number of the candidate's images."""
        return images * self.price

    def both(self, images: float) -> float:
        """Return the dollars for these images and the baseline's on the same cases."""
        return images * (self.price + self.price_baseline)

    def time(self, images: float) -> float:
        """Return the seconds that a gate of so many cases takes."""
        return images * self.seconds


#: Cases that a gate finishes in a minute when nobody says otherwise.
PER_MINUTE = 30.0


def costs_of(
    price: float,
    price_baseline: float | None,
    per_minute: float | None = None,
    seconds_per_image: float | None = None,
) -> Costs:
    """Return prices and pace.

    Raises:
        ConfigError: One of them is negative or no number, or the pace is given twice.
    """
    if per_minute is not None and seconds_per_image is not None:
        raise ConfigError("give either --per-minute or --seconds-per-image, not both")
    pace = parse_amount(
        PER_MINUTE if per_minute is None else per_minute, "--per-minute", zero=False
    )
    seconds = 60 / pace
    if seconds_per_image is not None:
        seconds = parse_amount(seconds_per_image, "--seconds-per-image")
    own = parse_amount(price, "--price")
    other = own if price_baseline is None else parse_amount(price_baseline, "--price-baseline")
    return Costs(own, other, seconds)


def picture_kind(plot: Path | None) -> str:
    """Return ``.svg`` or ``.png``; empty without a picture.

    Raises:
        ConfigError: The file's name ends in something else.
    """
    if plot is None:
        return ""
    if plot.suffix.lower() not in _PICTURES:
        raise ConfigError(f"--plot {plot}: give a name that ends in .svg or .png")
    return plot.suffix.lower()


def read_slices(given: Sequence[str]) -> list[SliceSpec]:
    """Return the slices of ``--slices``.

    A slice without a share gets 10 % of the cases, or an equal part of what the others of its
    dimension leave when that is less.

    Raises:
        ConfigError: With what was found and what is allowed.
    """
    from tasks.verdict.traffic import SliceSpec

    parts = [part.strip() for text in given for part in text.split(",")]
    if len(parts) == 1 and parts[0].isascii() and parts[0].isdigit():
        count = int(parts[0])
        if not 1 <= count <= 200:
            raise ConfigError(f"--slices: expected 1 to 200 equal slices; found {parts[0]}")
        return [SliceSpec(f"slice={n}", 1 / count) for n in range(1, count + 1)]
    read: list[tuple[str, float | None, float | None]] = []
    for part in parts:
        found = _SLICE.fullmatch(part)
        if found is None or not found["name"].strip():
            raise ConfigError(
                "--slices: expected slices such as locale=th@5%:15% (name, share of the cases, "
                f"failure rate), separated by commas, or a number; found {part[:60]!r}"
            )
        name = found["name"].strip()
        share, own = found["share"], found["rate"]
        read.append(
            (
                name,
                None
                if share is None
                else parse_share(share, f"--slices, share of {name!r}", one=True),
                None
                if own is None
                else parse_share(own, f"--slices, failure rate of {name!r}", zero=True, one=True),
            )
        )
    specs = [SliceSpec(name, share or 0.0, own) for name, share, own in read]
    return [
        spec
        if share is not None
        else SliceSpec(spec.name, _defaultparse_share(spec, specs), spec.rate)
        for spec, (_, share, _) in zip(specs, read, strict=True)
    ]


def _defaultparse_share(spec: SliceSpec, specs: Sequence[SliceSpec]) -> float:
    same = [other for other in specs if other.dimension == spec.dimension]
    left = 1 - sum(other.share for other in same)
    if left <= 1e-9:
        raise ConfigError(
            f"--slices: slice {spec.name!r} has no share, and the others of {spec.dimension!r} "
            "leave no case for it; write e.g. "
            f"{spec.name}@10%"
        )
    return min(SLICE_SHARE, left / sum(other.share == 0 for other in same))


def assumed_critical(specs: Sequence[SliceSpec], policy: Policy) -> list[SliceSpec]:
    """Return the critical slices of the policy that were not named, where there is room for them.

    Each is taken for 20 % of the cases, failing at the rate of the build.
    """
    from tasks.verdict.traffic import SliceSpec

    found: list[SliceSpec] = []
    for name in policy.slices.critical:
        spec = SliceSpec(name, CRITICAL_SHARE)
        taken = sum(s.share for s in (*specs, *found) if s.dimension == spec.dimension)
        share = min(CRITICAL_SHARE, 1 - taken)
        if name not in {s.name for s in specs} and share > 0.01:
            found.append(SliceSpec(name, share))
    return found


def read_policy(
    file: str | None,
    *,
    limit: str | None = None,
    promote_below: str | None = None,
    alpha: str | None = None,
    beta: str | None = None,
    mode: str | None = None,
    cases: int | None = None,
) -> Policy:
    """Return the policy with the flags laid over it.

    Without a file it is the one that ``imagegate run`` uses by default.

    Raises:
        ConfigError: The file or a flag is wrong.
    """
    from tasks.mix.selection import find_file
    from tasks.policy import Policy, load_policy, parse_strict

    rules = load_policy(find_file(file or DEFAULT_POLICY))
    given: dict[str, Any] = {
        "limit": None if limit is None else parse_share(limit, "--limit"),
        "promote_below": (
            None if promote_below is None else parse_share(promote_below, "--promote-below")
        ),
        "alpha": None if alpha is None else parse_share(alpha, "--alpha"),
        "beta": None if beta is None else parse_share(beta, "--beta"),
        "mode": mode,
    }
    failure = rules.failure.model_dump() | {k: v for k, v in given.items() if v is not None}
    if limit is not None and promote_below is None:
        # A limit above the policy's other threshold asks for the strict rule.
        failure["promote_below"] = max(failure["promote_below"], failure["limit"])
    if failure["promote_below"] < failure["limit"]:
        raise ConfigError(
            f"--promote-below: expected the limit ({chosen(failure['limit'])}) or more; "
            f"found {chosen(failure['promote_below'])}"
        )
    sampling = rules.sampling.model_dump() | ({} if cases is None else {"cases": cases})
    laid = rules.model_dump() | {"failure": failure, "sampling": sampling}
    return parse_strict(Policy, laid, "flags")


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show on stderr that work is going on; nothing when stderr is no terminal."""
    if not err.is_terminal:
        yield
        return
    with err.status(what):
        yield


@contextmanager
def bar_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while something is counted; nothing when stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    progress = Progress(
        what,
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    task = progress.add_task(what, total=total)
    with progress:
        yield lambda count: progress.advance(task, count)
