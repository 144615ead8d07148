import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from tasks.checks import pool as pool_module
from tasks.checks.base import Expected
from tasks.checks.pool import CheckPool
from tasks.checks.shard import check_shard
from tasks.records import Case, Generation, ImageReport
from tests.checks.drawing import encoded, poster, scene


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pool") / "good.png"
    file.write_bytes(encoded(scene(256, 256)))
    return file


def first(report: ImageReport) -> tuple[str, str]:
    return report.findings[0].check, report.findings[0].verdict


def workers() -> list[int]:
    return [p.pid for p in multiprocessing.active_children() if p.pid and "check" in p.name]


def test_reports_come_back_whatever_the_file(good: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:500])
    with CheckPool(workers=1) as pool:
        futures = [pool.submit(f, Expected()) for f in (good, broken, tmp_path / "none", good)]
        found = [first(future.result()) for future in futures]
    assert found == [
        ("decode.file", "pass"), ("decode.file", "fail"), ("decode.file", "fault"),
        ("decode.file", "pass"),
    ]  # fmt: skip
    assert workers() == []


def test_a_killed_worker_costs_its_own_picture_only(good: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)  # Reading it blocks: the worker is busy for sure when it is killed.
    with CheckPool(workers=1) as pool:
        assert first(pool.submit(good, Expected()).result())[1] == "pass"
        (pid,) = workers()
        stuck, after = pool.submit(pipe, Expected()), pool.submit(good, Expected())
        os.kill(pid, signal.SIGKILL)
        report = stuck.result()
        assert first(report) == ("decode.file", "fault")
        assert "signal 9" in report.findings[0].message
        assert first(after.result())[1] == "pass"
        assert workers() != [pid]


def test_a_worker_that_hangs_is_replaced(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "START_S", 60.0)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with CheckPool(workers=1, timeout_s=1.0) as pool:
        assert first(pool.submit(good, Expected()).result())[1] == "pass"
        stuck, after = pool.submit(pipe, Expected()), pool.submit(good, Expected())
        assert "did not end within 1 s" in stuck.result().findings[0].message
        assert first(after.result())[1] == "pass"


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.write(encoded(scene(64, 64)))
        file.truncate(7 * 2**30)  # More than a worker may hold.
    with CheckPool(workers=1) as pool:
        report = pool.submit(huge, Expected(declared_mime="image/png")).result()
    found = {f.check: (f.verdict, f.message) for f in report.findings}
    assert found["decode.file"] == (
        "fail", "7,516,192,768 bytes, more than the 67,108,864 allowed",
    )  # fmt: skip
    assert found["decode.mime"][0] == "pass"
    assert report.findings[0].version != "pool"


def test_only_the_time_that_a_process_computes_is_counted() -> None:
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    waiting = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with busy, waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"up\n"
        idle = pool_module.cpu_seconds(waiting.pid)
        while pool_module.cpu_seconds(busy.pid) < 1:
            pass
        assert pool_module.cpu_seconds(waiting.pid) - idle < 0.2
        busy.kill()
        waiting.kill()


def test_an_error_in_the_block_drops_what_waits(good: Path) -> None:
    futures: list[Future[ImageReport]] = []

    def broken() -> None:
        with CheckPool(workers=1) as pool:
            futures.extend(pool.submit(good, Expected()) for _ in range(50))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert futures[-1].cancelled()
    assert all(future.done() for future in futures)
    assert workers() == []


def test_workers_are_confined_and_leave_the_environment_alone(good: Path) -> None:
    before = dict(os.environ)  # noqa: TID251
    with CheckPool(workers=2) as pool:
        for future in [pool.submit(good, Expected()) for _ in range(6)]:
            assert first(future.result())[1] == "pass"
        for pid in workers():
            limits = Path(f"/proc/{pid}/limits")
            if not limits.exists():
                pytest.skip("no /proc here")
            line = next(x for x in limits.read_text().splitlines() if "address space" in x)
            assert "unlimited" not in line.split("  ")[1]
            ignored = Path(f"/proc/{pid}/status").read_text().split("SigIgn:")[1].split()[0]
            assert int(ignored, 16) & (1 << (signal.SIGINT - 1))
    assert dict(os.environ) == before  # noqa: TID251


CHILD = """
import sys
from pathlib import Path
from tasks.checks.base import Expected
from tasks.checks.pool import CheckPool
import multiprocessing
if __name__ == "__main__":
    with CheckPool(workers=1) as pool:
        pool.submit(Path(sys.argv[1]), Expected()).result()
        print(multiprocessing.active_children()[0].pid, flush=True)
        sys.stdin.read()
"""


def test_workers_end_when_their_parent_is_killed(good: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(CHILD)
    root = str(Path(pool_module.__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}  # noqa: TID251
    parent = subprocess.Popen(
        [sys.executable, str(script), str(good)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=env,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdin is not None
    worker = int(parent.stdout.readline())
    end = os.pidfd_open(worker)
    parent.kill()
    parent.communicate()
    import select

    ready, _, _ = select.select([end], [], [], 60)
    os.close(end)
    assert ready, "the worker outlived its parent"


def test_a_shard_is_checked_and_told_about(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(poster("Hello")))
    items = []
    for number in range(5):
        case = Case(
            case_id=f"c{number}", prompt="x", subtask="typography", expected_text=("Hello",),
            width=512 if number else 640, height=512,
        )  # fmt: skip
        generation = Generation(
            run_id="r", arm="candidate", mix_digest="m", case_id=case.case_id, seed=1,
            models=("a",), status="ok", declared_mime="image/png",
        )  # fmt: skip
        items.append((case, generation, file, {}))
    told: list[str] = []
    with CheckPool(workers=1) as pool:
        reports = check_shard(items, pool, lambda case_id, _: told.append(case_id))
    assert sorted(told) == sorted(reports) == ["c0", "c1", "c2", "c3", "c4"]
    failing = {c for c, r in reports.items() if any(f.verdict == "fail" for f in r.findings)}
    assert failing == {"c0"}
