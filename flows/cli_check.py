"""``imagegate check``: the visual assertions on pictures that exist already.

No model, no Prefect, no Great Expectations. Results stream in the manifest's order while the
worker processes read ahead; only where pictures are judged together do all wait for the last.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_io import Shown, emit, err, say
from tasks.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from flows.check_show import Checked
    from tasks.check_rules import CheckRules
    from tasks.checks.manifest import Entry
    from tasks.checks.pool import CheckPool
    from tasks.checks.truth import Seen
    from tasks.records import ImageReport

#: Pictures handed to each worker ahead of the one that is printed next.
_AHEAD = 4
#: Rows of the table of failures for people.
_MOST_ROWS = 60
#: Up to so many pictures, each is told in full.
_MOST_CARDS = 3
#: Characters in a line where no terminal says.
_WIDTH = 160
#: Exit codes, design section 10: a failure fails the build, doubt alone holds it.
_EXIT = {"pass": 0, "fail": 1, "unmeasured": 3}


def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, or folders of pictures.", metavar="PATH…")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="CSV or JSONL with the column file; optional id, intended_text (strings "
            "separated by |), language, width, height, aspect, brand, subtask, prompt, upload, "
            "mask, source, campaign, repeat, and what people say: legible_match or truth.",
            metavar="FILE",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text that must stand in every PATH; once for each string."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Language of --text, e.g. de or pt-BR; default: und.", metavar="TAG"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a picture, in order.")
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy whose section checks is used: provenance, models, plug-ins, what counts.",
            metavar="FILE",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Worker processes; default: one a core.")
    ] = None,
) -> None:
    """Check pictures that exist already: no model, no network, no cost.

    Exit code 1 when any picture fails, 3 when none fails but some could not be judged.
    """
    from flows.check_show import line
    from tasks.check_rules import CheckRules, Extras
    from tasks.checks.manifest import from_paths, read_manifest, with_text
    from tasks.checks.plugins import require
    from tasks.checks.pool import CheckPool
    from tasks.policy import load_policy
    from tasks.settings import DATASETS, load_settings

    if bool(paths) == (manifest is not None):
        raise ConfigError("give either pictures and folders, or --manifest FILE")
    if manifest and text:
        raise ConfigError("--text goes with pictures; a manifest has its column intended_text")
    if manifest and language is not None:
        raise ConfigError("--language goes with --text; a manifest has its column language")
    entries = (
        read_manifest(manifest, DATASETS, _warn)
        if manifest
        else with_text(from_paths(paths or []), text or (), "und" if language is None else language)
    )
    rules = load_policy(policy).checks if policy else CheckRules()
    extras = Extras(rules, load_settings().plugins) if policy else Extras()
    require(extras)
    kept = _Kept()
    with CheckPool(workers, extras=extras) as pool, _progress(err, len(entries)) as advance:
        for one in _judged(entries, pool, rules, advance):
            kept.add(one)
            if as_json:
                emit(line(one))
    _summary(kept, as_json=as_json)
    found = kept.verdicts
    raise typer.Exit(1 if found["fail"] else max((_EXIT[v] for v in found), default=0))


@dataclass
class _Kept:
    """What is kept of the pictures for the end: of a good one among thousands, a count."""

    verdicts: Counter[str] = field(default_factory=Counter)
    #: The first pictures in full.
    first: list[Checked] = field(default_factory=list)
    #: Rows of pictures that do not pass, but for those whose label says what they are judged by.
    rows: list[tuple[str, ...]] = field(default_factory=list)
    #: What people and the checks say of pictures with a label, and those where they differ.
    labelled: list[tuple[bool, Seen]] = field(default_factory=list)
    missed: list[Checked] = field(default_factory=list)

    def add(self, one: Checked) -> None:
        """Take the next picture in."""
        from flows.check_show import row
        from tasks.checks.truth import seen

        self.verdicts[one.verdict] += 1
        if len(self.first) <= _MOST_CARDS:
            self.first.append(one)
        if (truth := one.entry.truth) is not None:
            self.labelled.append((truth.good, seen(truth.of, one.report, one.verdict)))
            if one.miss is not None:
                self.missed.append(one)
        if one.verdict != "pass" and not one.told_by_label:
            self.rows.append(row(one))


def _judged(
    entries: Sequence[Entry], pool: CheckPool, rules: CheckRules, advance: Any
) -> Iterator[Checked]:
    """Yield every picture with its verdict, in order; those judged together when all are there."""
    from flows.check_show import Checked
    from tasks.checks.manifest import together
    from tasks.checks.suite import picture_verdict
    from tasks.checks.truth import miss
    from tasks.checks.unrequested import extra_text

    told_only = rules.consistency.told_only

    def ended(entry: Entry, report: ImageReport) -> Checked:
        more = extra_text(entry.expected.intended_text, report, rules)
        report = report.model_copy(update={"findings": (*report.findings, *more)})
        verdict = picture_verdict(report, entry.expected, told_only)
        departs = None if entry.truth is None else miss(entry.truth, report, verdict)
        return Checked(entry, report, verdict, departs, told_only)

    def arrived() -> Iterator[tuple[Entry, ImageReport]]:
        for pair in _in_order(entries, pool):
            advance()
            yield pair

    if not any(entry.in_group for entry in entries):
        yield from (ended(entry, report) for entry, report in arrived())
        return
    pairs = list(arrived())
    for (entry, report), found in zip(pairs, together(pairs, rules.consistency), strict=True):
        yield ended(entry, report.model_copy(update={"findings": (*report.findings, *found)}))


def _in_order(entries: Sequence[Entry], pool: CheckPool) -> Iterator[tuple[Entry, ImageReport]]:
    """Yield the reports in the order of the entries, with a bounded number under way."""
    waiting: deque[tuple[Entry, Future[ImageReport]]] = deque()
    for entry in entries:
        waiting.append((entry, pool.submit(entry.path, entry.expected, entry.references)))
        if len(waiting) >= _AHEAD * pool.workers:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _warn(text: str) -> None:
    err.print(f"warning: {text}", markup=False, soft_wrap=True)


def _summary(kept: _Kept, *, as_json: bool) -> None:
    """Say how many passed, and for people what is wrong with the others.

    With ``--json`` it goes to stderr: the same is in the lines, for programs.
    """
    from rich.console import Console

    shown = Shown()
    ours = Console(file=shown, force_terminal=sys.stdout.isatty(), highlight=False, emoji=False)
    out = err if as_json else ours
    if not out.is_terminal:
        out.width = _WIDTH  # A file or a pipe has no width: the tables must stay readable.
    _tell(out, kept, as_json=as_json)
    if not as_json:
        say(shown.getvalue().removesuffix("\n"))


def _tell(out: Console, kept: _Kept, *, as_json: bool) -> None:
    from flows.check_show import card, misses_table, score_words
    from tasks.checks.truth import score

    if kept.labelled:
        if kept.missed:
            out.print(misses_table(kept.missed))
        words = score_words(score(kept.labelled), kept.verdicts.total())
        count = len(kept.missed)
        out.print(f"{count} miss{'' if count == 1 else 'es'}; {words}", markup=False)
    total = kept.verdicts.total()
    if not as_json and total <= _MOST_CARDS:
        for one in kept.first:
            for part in card(one):
                out.print(part, soft_wrap=not out.is_terminal)
    elif not as_json:
        _failures(out, kept.rows)
    counts = ", ".join(f"{kept.verdicts[name]} {name}" for name in _EXIT)
    out.print(f"{total} picture{'' if total == 1 else 's'}: {counts}", markup=False)


def _failures(out: Console, rows: Sequence[tuple[str, ...]]) -> None:
    """Print the table of the pictures that do not pass."""
    from rich.table import Table
    from rich.text import Text

    if rows:
        table = Table("verdict", "picture", "what was found", show_lines=True)
        for verdict, name, told in rows[:_MOST_ROWS]:
            style = "red" if verdict == "fail" else "yellow"
            # Names and texts are not ours: no markup is read in them.
            table.add_row(Text(verdict, style=style), Text(name), Text(told))
        out.print(table)
    if len(rows) > _MOST_ROWS:
        out.print(f"… and {len(rows) - _MOST_ROWS} more; --json lists all")


class _progress:  # noqa: N801 - reads as a function in the with statement
    """A bar on stderr while pictures are checked; nothing when stderr is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._bar = Progress(
            "checking",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("checking", total=total)

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
