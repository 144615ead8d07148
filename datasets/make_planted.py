"""Make ``planted.json``, what the checks see: run ``python datasets/make_planted.py``.

Plants defects in drawings of the embedded server and counts what each check finds; see "Planted
defects in every run" in tasks/checks/README.md. To be run again whenever a check, a planted defect
or a pinned library changes: a record of another version is not used. It takes a quarter of an
hour on two cores; interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

#: In how many drawings defects are planted, and how many more are shown as they are; chosen for the
#: time, and before anything was found.
PICTURES, GOOD = 400, 840


def main() -> int:
    """Make the record, print its table, and return 1 when a check is blind or breaks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from flows.check_health import make_shipped, render_checks

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=PICTURES, help="drawings with defects")
    parser.add_argument("--good", type=int, default=GOOD, help="more, as they are")
    parser.add_argument("--file", type=Path, default=HERE / "planted.json", help="where to")
    asked = parser.parse_args()
    if asked.pictures < 1 or asked.good < 0:
        parser.error("--pictures must be 1 or more, and --good 0 or more")
    bar = Progress("drawings", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    task = bar.add_task("drawings", total=asked.pictures + asked.good)
    with bar:
        found = make_shipped(
            asked.file,
            asked.pictures,
            asked.good,
            lambda done: bar.update(task, completed=done),
        )
    print(render_checks(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
