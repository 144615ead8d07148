"""``imagegate check``: the visual assertions on pictures that exist already.

No model, no Prefect, no Great Expectations. Results stream in the manifest's order while the
worker processes read ahead.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.checks.manifest import Entry
    from tasks.checks.pool import CheckPool
    from tasks.records import ImageReport

#: Pictures handed to each worker ahead of the one that is printed next.
_AHEAD = 4
#: Rows of the table of failures for people.
_MOST_ROWS = 60
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
            "separated by |), language, width, height, aspect, brand, subtask.",
            metavar="FILE",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a picture, in order.")
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy whose section checks (provenance, models, plug-ins) is added.",
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
    from rich.console import Console

    from tasks.check_rules import Extras
    from tasks.checks.manifest import from_paths, read_manifest
    from tasks.checks.plugins import require
    from tasks.checks.pool import CheckPool
    from tasks.checks.suite import picture_verdict
    from tasks.policy import load_policy
    from tasks.settings import DATASETS, load_settings

    if bool(paths) == (manifest is not None):
        raise ConfigError("give either pictures and folders, or --manifest FILE")
    entries = read_manifest(manifest, DATASETS) if manifest else from_paths(paths or [])
    extras = Extras(load_policy(policy).checks, load_settings().plugins) if policy else Extras()
    require(extras)
    console = Console(stderr=True, highlight=False)
    tally: Counter[str] = Counter()
    rows: list[tuple[str, ...]] = []
    with CheckPool(workers, extras=extras) as pool, _progress(console, len(entries)) as advance:
        for entry, report in _in_order(entries, pool):
            verdict = picture_verdict(report, entry.expected)
            tally[verdict] += 1
            if as_json:
                _write(_line(entry, report, verdict))
            elif verdict != "pass":
                rows.append(_row(entry, report, verdict))
            advance()
    _summary(console, tally, rows, as_json=as_json)
    worst = max((_EXIT[v] for v in tally if v == "unmeasured"), default=0)
    raise typer.Exit(1 if tally["fail"] else worst)


def _in_order(entries: Sequence[Entry], pool: CheckPool) -> Iterator[tuple[Entry, ImageReport]]:
    """Yield the reports in the order of the entries, with a bounded number under way."""
    waiting: deque[tuple[Entry, Future[ImageReport]]] = deque()
    for entry in entries:
        waiting.append((entry, pool.submit(entry.path, entry.expected)))
        if len(waiting) >= _AHEAD * pool.workers:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _line(entry: Entry, report: ImageReport, verdict: str) -> dict[str, Any]:
    """Return what ``--json`` prints for a picture."""
    return {
        "id": entry.id,
        "file": entry.file,
        "verdict": verdict,
        "read_text": list(report.read_text),
        "findings": [
            {
                "check": finding.check,
                "version": finding.version,
                "verdict": finding.verdict,
                "score": finding.score,
                "limit": finding.limit,
                "message": finding.message,
                "region": finding.region.model_dump() if finding.region else None,
            }
            for finding in report.findings
        ],
    }


def _write(value: dict[str, Any]) -> None:
    # A file name that is not UTF-8 comes as lone surrogates; stdout takes them escaped.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    sys.stdout.flush()


def _row(entry: Entry, report: ImageReport, verdict: str) -> tuple[str, ...]:
    """Return verdict, picture and what was found, for the table."""
    wanted = ("fail",) if verdict == "fail" else ("fault", "skip")
    told = [
        f"{finding.check}: {finding.message}"
        for finding in report.findings
        if finding.verdict in wanted
        and (finding.verdict != "skip" or finding.message.startswith("not covered"))
    ]
    return verdict, entry.id, "\n".join(told)


def _summary(
    console: Console, tally: Counter[str], rows: Sequence[tuple[str, ...]], *, as_json: bool
) -> None:
    """Say how many passed, and for people what is wrong with the others."""
    from rich.console import Console as Output
    from rich.table import Table
    from rich.text import Text

    total = tally.total()
    said = f"{total} pictures: {tally['pass']} pass, {tally['fail']} fail, " + (
        f"{tally['unmeasured']} unmeasured"
    )
    if as_json:
        console.print(said, markup=False)
        return
    out = Output(highlight=False)
    if rows:
        table = Table("verdict", "picture", "what was found", show_lines=True)
        for verdict, name, told in rows[:_MOST_ROWS]:
            style = "red" if verdict == "fail" else "yellow"
            # Names and texts are not ours: no markup is read in them.
            table.add_row(Text(verdict, style=style), Text(name), Text(told))
        out.print(table)
    if len(rows) > _MOST_ROWS:
        out.print(f"… and {len(rows) - _MOST_ROWS} more; --json lists all")
    out.print(said, markup=False)


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
