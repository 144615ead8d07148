"""A process that changes production and is killed in the middle; driven by test_kill.py.

``python victim.py STATE_URL ROUTING MIX CHANGE POINT`` kills itself at a point around the router;
``python victim.py sweep FOLDER MIX CHANGE STRIDE`` kills one child at every STRIDE-th line of the
change, calls the change again as the next process would, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from tasks.mix.freeze import active_freeze
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, require_production
from tasks.rollout.change import RolloutResult, promote, roll_back
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.file import FileRouter
from tasks.state import State

PRODUCT, RUN = "shop", "run-1"
NOW = datetime(2026, 9, 14, tzinfo=UTC)
#: Modules whose every line is a point to be killed at.
SWEPT = (
    *(f"rollout/{name}.py" for name in ("change", "decision", "guards", "steps")),
    *("routers/file.py", "tasks/state.py", "tasks/plan.py"),
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(FileRouter):
    """A file router whose process dies around a call."""

    def __init__(self, path: Path, point: str) -> None:
        super().__init__(path)
        self.point, self.applied = point, False

    def apply(self, desired: Desired) -> None:
        if self.point == "before-apply":
            die()
        super().apply(desired)
        self.applied = True
        if self.point == "after-apply":
            die()

    def read(self, product: str) -> RouterState | None:
        found = super().read(product)
        if self.point == "after-read-back" and self.applied:
            die()
        if self.point == "before-decision":
            die()
        return found


def change(state: State, router: FileRouter, mix: ResolvedMix, kind: str) -> RolloutResult:
    if kind == "promote":
        return promote(
            state,
            router,
            PRODUCT,
            mix,
            expected_epoch=1,
            actor="test",
            reason="better",
            run_id=RUN,
            now=NOW,
        )
    return roll_back(
        state, router, PRODUCT, mix.digest, actor="test", reason="worse", run_id=RUN, now=NOW
    )


def kill_at(line: int) -> None:
    """Arrange for this process to die when so many different lines were reached."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(SWEPT):
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == line:
                die()
        return trace

    sys.settrace(trace)


def run_child(folder: Path, mix: ResolvedMix, kind: str, line: int) -> bool:
    """Change production in a child that dies at a line; tell whether it did die."""
    child = os.fork()
    if child == 0:
        try:
            state = State(f"sqlite:///{folder / 'state.db'}")
            kill_at(line)
            change(state, FileRouter(folder / "routing.json"), mix, kind)
            sys.settrace(None)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a forked child must never return into the parent
            os._exit(3)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"the change failed by itself at line {line}")
    return False


def look(folder: Path) -> dict[str, Any]:
    """Return what production is on, by the database and by the router."""
    state = State(f"sqlite:///{folder / 'state.db'}")
    pointer = require_production(state, PRODUCT)
    shown = FileRouter(folder / "routing.json").read(PRODUCT)
    kinds = [f"{t.kind}@{t.epoch}" for t in journal_of(state, PRODUCT)]
    frozen = active_freeze(state, PRODUCT, NOW)
    state.close()
    return {
        "wanted": pointer.mix_digest,
        "epoch": pointer.epoch,
        "settled": pointer.settled,
        "shown": shown and shown.mix_digest,
        "shown_epoch": shown and shown.epoch,
        "weights": shown and dict(shown.weights),
        "journal": kinds,
        "frozen": frozen is not None,
        "left": sorted(p.name for p in folder.iterdir() if p.name.endswith((".tmp", ".probe"))),
    }


def sweep(folder: Path, mix: ResolvedMix, kind: str, stride: int) -> None:
    seen = []
    line = 1 - stride
    died = True
    while died:
        line += stride
        trial = folder.with_name(f"{folder.name}-{line}")
        shutil.copytree(folder, trial)
        died = run_child(trial, mix, kind, line)
        killed = look(trial)
        state = State(f"sqlite:///{trial / 'state.db'}")
        change(state, FileRouter(trial / "routing.json"), mix, kind)
        state.close()
        seen.append({"line": line, "killed": killed, "again": look(trial)})
        shutil.rmtree(trial)
    json.dump(seen, sys.stdout)


def main() -> None:
    if sys.argv[1] == "sweep":
        _, folder, mix_file, kind, stride = sys.argv[1:]
        mix = ResolvedMix.model_validate_json(Path(mix_file).read_text())
        sweep(Path(folder), mix, kind, int(stride))
        return
    url, routing, mix_file, kind, point = sys.argv[1:]
    mix = ResolvedMix.model_validate_json(Path(mix_file).read_text())
    change(State(url), Deadly(Path(routing), point), mix, kind)


if __name__ == "__main__":
    main()
