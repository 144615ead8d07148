"""Shadow judging: a sample of what users got goes through the visual checks.

A server that answers 200 with garbled text fails nobody's metrics. Here delivered pictures, as the
log of requests names them, are judged as the gate judges a candidate's. The sample is drawn by a
seed and the request's id, so that nobody can choose it and a second look chooses the same; a budget
of pictures and seconds bounds each look. What was judged is kept: no picture is judged twice.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tasks.inputs import infer
from tasks.records import SUBTASKS, ImageReport
from tasks.rollout.outcomes.base import ArmOutcomes, Clock, OutcomeError, Outcomes, now_utc
from tasks.rollout.outcomes.config import ShadowConfig
from tasks.rollout.outcomes.files import DayFiles
from tasks.rollout.outcomes.pictures import NoPictureError, fetch, is_address, local
from tasks.rollout.outcomes.rows import Request, mix_named

if TYPE_CHECKING:
    from tasks.checks.base import Expected
    from tasks.rollout.outcomes.logs import LogSource

#: Of pictures that were to be judged, the share that may stay unjudged before it is blindness.
MOST_UNJUDGED: Final = 0.5
_FEWEST: Final = 5

Verdict = Literal["ok", "defect", "unmeasured"]
#: Judges pictures: path and what each should be by key, and seconds.
Judge = Callable[[Mapping[str, "tuple[Path, Expected]"], float], Mapping[str, ImageReport]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found in one picture."""

    verdict: Verdict
    #: Checks that failed, or why there is no verdict.
    why: tuple[str, ...]


class ShadowSource:
    """Counts defects in a sample of delivered pictures.

    Args:
        config: Sample and budget.
        logs: Names the pictures.
        folder: Where verdicts are kept.
        judge: Runs the checks; worker processes by default.
        clock: Gives the moment.
    """

    def __init__(
        self,
        config: ShadowConfig,
        logs: LogSource,
        folder: Path,
        judge: Judge | None = None,
        clock: Clock = now_utc,
    ) -> None:
        self._config, self._logs, self._folder, self._clock = config, logs, folder, clock
        self._judge: Judge = judge or (lambda items, s: judge_in_pool(items, s, config.workers))

    @property
    def name(self) -> str:
        """What notes call the source."""
        return self._config.name or "shadow"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Judge a sample of the window's pictures and return the counts; no images are counted.

        Raises:
            OutcomeError: The log cannot be read, or most pictures of the sample cannot be judged.
        """
        end = self._logs.complete(since, until)
        if not self._config.concerns(product):
            return Outcomes(since, end, dict.fromkeys(digests, ArmOutcomes()))
        book = DayFiles(self._folder, f"{self.name}-{product}")
        with book.lock(timeout_s=self._config.seconds + 120):
            kept = _kept(book.rows(since))
            wanted = self._sample(product, digests, since, end)
            new = [(mix, request) for mix, request in wanted if _key(request) not in kept]
            now = self._clock()
            new = new[: self._left(book, now)]
            found = self._judged([request for _, request in new])
            for key, judged in found.items():
                kept[key] = judged
                row = {"key": key, "verdict": judged.verdict, "why": judged.why}
                book.add(now, row | {"at": now.timestamp()})
        return self._outcomes(wanted, kept, digests, since, end)

    def _sample(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> list[tuple[str, Request]]:
        """Return the requests whose pictures are to be judged, the arms by turns."""
        config = self._config
        drawn = {digest: _Lowest(config.share, config.images) for digest in digests}
        for request in self._logs.each(product, since, until):
            mix = mix_named(request.mix, digests)
            if mix is not None and request.text("image"):
                drawn[mix].add(_key(request), draw(config.seed, _key(request)), request)
        arms = {
            mix: [request for request in lowest.requests() if not request.failed]
            for mix, lowest in drawn.items()
        }
        # By turns: the budget goes to the candidate as well as to the many of production.
        longest = max(map(len, arms.values()), default=0)
        turns = [
            (mix, requests[turn])
            for turn in range(longest)
            for mix, requests in arms.items()
            if turn < len(requests)
        ]
        return turns[: self._config.images]

    def _left(self, book: DayFiles, now: datetime) -> int:
        """Return how many pictures the budget of a day still has."""
        day = now - timedelta(days=1)
        judged = sum(float(row.get("at", 0)) > day.timestamp() for row in book.rows(day))
        return max(0, self._config.images_per_day - judged)

    def _judged(self, requests: Iterable[Request]) -> dict[str, Judged]:
        """Get and judge pictures within the budget of seconds; those out of time are left out."""
        config, by_key = self._config, {_key(request): request for request in requests}
        if not by_key:
            return {}
        ends = time.monotonic() + config.seconds
        found: dict[str, Judged] = {}
        with tempfile.TemporaryDirectory(prefix="imagegate-shadow-") as scratch:
            images = {key: request.text("image") for key, request in by_key.items()}
            addresses = {key: text for key, text in images.items() if is_address(text)}
            places: dict[str, Path | NoPictureError] = {}
            if addresses:
                places |= fetch(
                    addresses, Path(scratch), config.hosts, config.base_url, config.seconds / 2
                )
            for key, text in images.items():
                if key not in addresses:
                    try:
                        places[key] = local(text, config.folder)
                    except NoPictureError as error:
                        places[key] = error
            items = {}
            for key, place in places.items():
                if isinstance(place, NoPictureError):
                    found[key] = Judged("unmeasured", (str(place),))
                else:
                    items[key] = (place, expected_of(by_key[key]))
            reports = self._judge(items, max(0.0, ends - time.monotonic())) if items else {}
        left_out = frozenset(config.without)
        return found | {key: verdict(report, left_out) for key, report in reports.items()}

    def _outcomes(
        self,
        wanted: Sequence[tuple[str, Request]],
        kept: Mapping[str, Judged],
        digests: Sequence[str],
        since: datetime,
        until: datetime,
    ) -> Outcomes:
        counts = {digest: Counter[str]() for digest in digests}
        why: dict[str, Counter[str]] = {digest: Counter() for digest in digests}
        unjudged = Counter[str]()
        for mix, request in wanted:
            judged = kept.get(_key(request))
            if judged is None:
                unjudged["no time or budget left"] += 1
                continue
            counts[mix][judged.verdict] += 1
            if judged.verdict == "defect":
                why[mix].update(judged.why)
            elif judged.verdict == "unmeasured":
                unjudged.update(judged.why[:1])
        self._refuse_blindness(counts, unjudged)
        notes = [
            f"{self.name}: of {sum(counts[mix].values()):,} pictures of {mix[:19]} "
            f"{counts[mix]['defect']} have a defect: "
            + ", ".join(f"{check} {count}" for check, count in reasons.most_common(5))
            for mix, reasons in why.items()
            if reasons
        ]
        if unjudged:
            most = ", ".join(f"{reason} ({count})" for reason, count in unjudged.most_common(3))
            notes.append(f"{self.name}: {unjudged.total():,} pictures are not judged: {most}")
        arms = {
            digest: ArmOutcomes(judged=counted["ok"] + counted["defect"], defects=counted["defect"])
            for digest, counted in counts.items()
        }
        return Outcomes(since, until, arms, tuple(notes))

    def _refuse_blindness(
        self, counts: Mapping[str, Counter[str]], unjudged: Mapping[str, int]
    ) -> None:
        for mix, counted in counts.items():
            tried = counted.total()
            if tried >= _FEWEST and counted["unmeasured"] > MOST_UNJUDGED * tried:
                most = max(unjudged, key=lambda reason: unjudged[reason], default="?")
                raise OutcomeError(
                    f"{counted['unmeasured']} of {tried} pictures of {mix[:19]} cannot be judged, "
                    f"most often: {most}"
                )


class _Lowest:
    """The requests with the lowest draws below a share; of repeats the last row.

    Args:
        share: Draws from here on are none.
        wanted: How many are wanted in the end; some more are held, for those that failed.
    """

    def __init__(self, share: float, wanted: int) -> None:
        self._limit, self._held = share, 2 * wanted + 1_000
        self._found: dict[str, tuple[float, Request]] = {}

    def add(self, key: str, point: float, request: Request) -> None:
        """Take a request if its draw is low enough."""
        if point >= self._limit:
            return
        before = self._found.get(key)
        if before is None or request.at >= before[1].at:
            self._found[key] = (point, request)
        if len(self._found) >= 2 * self._held:
            lowest = sorted(self._found.items(), key=lambda item: item[1][0])
            self._limit = lowest[self._held][1][0]
            self._found = dict(lowest[: self._held])

    def requests(self) -> list[Request]:
        """Return them, the lowest draw first."""
        return [r for _, r in sorted(self._found.values(), key=lambda pair: pair[0])]


def draw(seed: int, key: str) -> float:
    """Return a number from 0 up to 1 that belongs to a key: the same whenever it is asked for."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def expected_of(request: Request) -> Expected:
    """Return what the picture of a logged request should be; what the log leaves out is not asked.

    The strings that it should show are the log's, or those that the prompt quotes.
    """
    from tasks.checks.base import Expected

    prompt = request.text("prompt")
    given = request.row.get("expected_text")
    texts: tuple[str, ...]
    if isinstance(given, str):
        texts = tuple(part.strip() for part in given.split("|") if part.strip())
    elif isinstance(given, Sequence):
        texts = tuple(str(part) for part in given if str(part).strip())
    else:
        texts = infer.expected_text(prompt)
    subtask = request.text("subtask")
    width, height = _side(request.row.get("width")), _side(request.row.get("height"))
    return Expected(
        intended_text=texts[:16],
        language=request.text("locale") or infer.locale(prompt, texts),
        width=width,
        height=height,
        aspect=width / height if width and height else None,
        subtask=subtask if subtask in SUBTASKS else None,
        prompt=prompt or None,
    )


def _side(value: Any) -> int | None:
    try:
        side = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return side if 16 <= side <= 8_192 else None


def verdict(report: ImageReport, without: frozenset[str] = frozenset()) -> Judged:
    """Return the verdict on a picture, as the gate counts one.

    A flag that a second reader contradicts is no defect; a picture with nothing but such flags,
    with a fault or without a check that passed is not measured.

    Args:
        report: What the checks found.
        without: Checks that do not count here.
    """
    findings = [f for f in report.findings if f.check not in without]
    failing = [f for f in findings if f.verdict == "fail"]
    certain = dict.fromkeys(f.check for f in failing if f.confirmed is not False)
    if certain:
        return Judged("defect", tuple(certain))
    faults = [f"{f.check}: {f.message}"[:200] for f in findings if f.verdict == "fault"]
    if failing or faults or all(f.verdict != "pass" for f in findings):
        return Judged("unmeasured", tuple(faults) or ("readers contradict each other",))
    return Judged("ok", ())


def judge_in_pool(
    items: Mapping[str, tuple[Path, Expected]],
    seconds: float,
    workers: int,
    timeout_s: float = 30.0,
) -> dict[str, ImageReport]:
    """Run the checks in worker processes and return the reports that came in time.

    One picture is always waited for, or a slow machine would never judge any.

    Args:
        items: Path and what the picture should be, by key, in the order of their turns.
        seconds: Budget; pictures under way when it ends are still waited for.
        workers: Worker processes.
        timeout_s: Seconds for one picture, after which it has no verdict.
    """
    from tasks.checks.pool import CheckPool

    ends = time.monotonic() + seconds
    reports: dict[str, ImageReport] = {}
    with CheckPool(workers=workers, timeout_s=timeout_s) as pool:
        waiting = iter(items.items())
        under_way: dict[Future[ImageReport], str] = {}
        while True:
            while len(under_way) < workers and (time.monotonic() < ends or not reports):
                item = next(waiting, None)
                if item is None:
                    break
                key, (path, expected) = item
                under_way[pool.submit(path, expected)] = key
            if not under_way:
                return reports
            done, _ = wait(under_way, return_when="FIRST_COMPLETED")
            for future in done:
                reports[under_way.pop(future)] = future.result()


def _key(request: Request) -> str:
    """Return what a picture is known by."""
    known = request.request_id or f"{request.at.isoformat()} {request.text('image')}"
    return hashlib.sha256(f"{request.mix} {known}".encode("utf-8", "surrogatepass")).hexdigest()


def _kept(rows: Iterable[Mapping[str, Any]]) -> dict[str, Judged]:
    found = {}
    for row in rows:
        if row.get("verdict") in ("ok", "defect", "unmeasured") and isinstance(row["why"], list):
            found[str(row.get("key"))] = Judged(row["verdict"], tuple(map(str, row["why"])))
    return found
