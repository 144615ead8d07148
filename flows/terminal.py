"""A gate in the terminal: a line for each step, a live bar for the pictures, the verdict last.

Everything goes to stderr, so that ``--json`` keeps stdout for its one object.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.dry_run import check_request
from flows.prefect_env import prepare_prefect
from flows.request import GateRequest, GateResult
from flows.watcher import Watcher, watched_by
from tasks.settings import Settings

COLOURS = {
    "PROMOTE": "bold white on green",
    "ROLLBACK": "bold white on red",
    "HOLD": "bold black on yellow",
}


class SteadyConsole(Console):
    """A console whose reader may go away: the gate goes on, only nobody is told any more."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on, instead of ending the process."""
        self.file = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good


class TerminalWatcher(Watcher):
    """Shows a gate on a console.

    Args:
        console: Where to write; a terminal gets live bars, anything else gets a line now and then.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._told: dict[str, int] = {}
        self._live = Progress(
            TextColumn("  {task.description:<22}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:>4}/{task.total}"),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            transient=False,
            disable=not console.is_terminal,
        )
        self._started = False

    def step(self, name: str, detail: str) -> None:
        """Print the step; the bars end with the step after them."""
        with self._lock:
            if self._started and name not in ("run_harness", "check_images"):
                self._live.stop()
                self._started = False
            line = Text.assemble(("✔ ", "green"), (f"{name:<22}", "bold"), detail)
            self.console.print(line)

    def progress(self, snapshot: Any) -> None:
        """Move the bars: ``snapshot`` is a mapping of bar name to (done, total, note)."""
        with self._lock:
            if not self._started:
                self._live.start()
                self._started = True
            for name, (done, total, note) in snapshot.items():
                if name not in self._bars:
                    self._bars[name] = self._live.add_task(name, total=total, note=note)
                self._live.update(self._bars[name], completed=done, total=total, note=note)
                self._plain(name, done, total, note)

    def _plain(self, name: str, done: int, total: int, note: str) -> None:
        """Without a terminal: a line at each quarter."""
        if self.console.is_terminal or total == 0:
            return
        quarter = 4 * done // total
        if quarter > self._told.get(name, 0):
            self._told[name] = quarter
            self.console.print(f"  {name:<22}{done:>5}/{total}  {note}", markup=False)

    def message(self, title: str, text: str) -> None:
        """Print a message in a frame, as it is."""
        with self._lock:
            self.console.print(Panel(Text(text), title=title, title_align="left", style="dim"))

    @contextmanager
    def signals(self) -> Iterator[None]:
        """End cleanly at the first Ctrl-C or SIGTERM, at once at the second."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        # Printing from a handler may interrupt a print that holds the console's lock.
        text = "[yellow]stopping: requests under way are finished; once more to abort[/]"
        threading.Thread(target=self.console.print, args=(text,), daemon=True).start()

    def close(self) -> None:
        """Stop the live bars."""
        with self._lock:
            if self._started:
                self._live.stop()
                self._started = False


def run_with_terminal(request: GateRequest, settings: Settings, *, quiet: bool) -> GateResult:
    """Run the release gate as a Prefect flow and show it.

    Args:
        request: What to judge.
        settings: Where things lie.
        quiet: Leave out the closing table (``--json`` prints the result instead).
    """
    console = SteadyConsole(stderr=True, highlight=False)
    check_request(request, settings)
    prepare_prefect(settings.home, lambda text: console.print(text, markup=False))
    from flows.release_gate import run_gate

    watcher = TerminalWatcher(console)
    try:
        with watched_by(watcher), watcher.signals():
            result = run_gate(request)
    finally:
        watcher.close()
    if not quiet:
        show_result(result, console)
    return result


def show_result(result: GateResult, console: Console) -> None:
    """Print the verdict, before → after, the reasons and where the report lies."""
    console.print()
    banner = Text(f" {result.verdict} ", style=COLOURS[result.verdict])
    console.print(Text.assemble(banner, f"  {result.candidate} for {result.product}"))
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column(f"before ({result.baseline})", justify="right")
    table.add_column(f"after ({result.candidate})", justify="right")
    for row in before_after(result):
        table.add_row(*row)
    console.print(table)
    for reason in result.reasons:
        console.print(f"• {reason}", markup=False)
    for warning in result.warnings:
        console.print(Text.assemble(("! ", "yellow"), warning))
    for action in result.actions:
        console.print(f"→ {action}", markup=False)
    console.print(
        f"Spend  ${result.spend_usd:.2f} for this run, {result.seconds:.0f} s", markup=False
    )
    saved = result.savings
    if saved is not None:
        console.print(
            f"Saved  ${saved.usd:,.2f} and {saved.images:,} images by deciding at look "
            f"{result.looks}",
            markup=False,
        )
    console.print(f"Report {result.report}", markup=False, soft_wrap=True)
    if result.incomplete:
        console.print(
            f"Resume imagegate run --resume {result.run_id}", markup=False, soft_wrap=True
        )


def planned(result: GateResult) -> str:
    """Return of how many planned images the run was decided early, or nothing."""
    return "" if result.savings is None else f" of {result.savings.planned} planned"


def before_after(result: GateResult) -> list[tuple[str, str, str]]:
    """Return the rows of the before → after table."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    def dollars(value: float | None) -> str:
        return "–" if value is None else f"${value:.2f}"

    before, after = result.baseline_failure_rate, result.failure_rate
    return [
        ("failures", percent(before.estimate), percent(after.estimate)),
        (
            "  95 % interval",
            f"{percent(before.lower)} to {percent(before.upper)}",
            f"{percent(after.lower)} to {percent(after.upper)}",
        ),
        (
            "effective cost / 1,000",
            dollars(result.baseline_effective_cost_per_1k_usd),
            dollars(result.effective_cost_per_1k_usd),
        ),
        ("images", str(before.n), f"{after.n}{planned(result)}"),
    ]
