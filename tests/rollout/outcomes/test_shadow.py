from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checks.base import Expected
from tasks.policy import parse_strict
from tasks.records import Finding, ImageReport
from tasks.rollout.outcomes import pictures
from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError
from tasks.rollout.outcomes.config import LogsConfig, ShadowConfig
from tasks.rollout.outcomes.logs import LogSource
from tasks.rollout.outcomes.pictures import NoPictureError, fetch, local
from tasks.rollout.outcomes.rows import Request
from tasks.rollout.outcomes.shadow import ShadowSource, _Lowest, draw, expected_of, verdict
from tests.checks.drawing import encoded, poster

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def report(*findings: tuple[str, str], confirmed: bool | None = None) -> ImageReport:
    return ImageReport(
        findings=tuple(
            Finding(check=name, version="1", verdict=said, confirmed=confirmed)  # type: ignore[arg-type]
            for name, said in findings
        )
    )


class Bench:
    """A log, a folder of pictures and a judge that goes by what is written in the files."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder, self.judged, self.seconds = folder, list[str](), list[float]()
        (folder / "out").mkdir()
        self.log = folder / "requests.jsonl"
        self.log.touch()
        self.now = 10_000.0
        section = {"kind": "shadow", "share": 1, "folder": str(folder / "out"), **config}
        self.config = parse_strict(ShadowConfig, section, "test")

    def serve(self, seconds: float, mix: str, content: str, **row: Any) -> None:
        name = f"{seconds:g}-{mix[7]}.png"
        (self.folder / "out" / name).write_text(content)
        whole = {
            "time": at(seconds).isoformat(),
            "mix_digest": mix,
            "ok": True,
            "request_id": f"r{seconds:g}-{mix[7]}",
            "image": name,
            **row,
        }
        with self.log.open("a") as file:
            file.write(json.dumps(whole) + "\n")

    def judge(
        self, items: Mapping[str, tuple[Path, Expected]], seconds: float
    ) -> dict[str, ImageReport]:
        self.seconds.append(seconds)
        reports = {}
        for key, (path, _) in items.items():
            self.judged.append(path.name)
            said = path.read_text()
            reports[key] = report(("decode.file", "pass"), ("typography.text", said))
        return reports

    def source(self, judge: Any = None) -> ShadowSource:
        logs = parse_strict(LogsConfig, {"kind": "logs", "files": str(self.log)}, "test")
        return ShadowSource(
            self.config,
            LogSource(logs, lambda: at(self.now)),
            self.folder / "book",
            judge or self.judge,
            lambda: at(self.now),
        )

    def read(self, since: float = 0, until: float = 1_000, judge: Any = None) -> Any:
        return self.source(judge).read("shop", [A, B], at(since), at(until))


def test_delivered_pictures_are_judged_by_arm(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for n in range(6):
        bench.serve(n, A, "pass")
    for n in range(4):
        bench.serve(n, B, "fail" if n < 3 else "pass")
    bench.serve(9, B, "fail", ok=False)  # Not delivered: counted elsewhere.
    bench.serve(9.5, "sha256:" + "c" * 64, "fail")
    found = bench.read()
    assert found.arms[A] == ArmOutcomes(judged=6, defects=0)
    assert found.arms[B] == ArmOutcomes(judged=4, defects=3)
    assert any("typography.text 3" in note for note in found.notes)


def test_no_picture_is_judged_twice_and_windows_add_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for n in range(10):
        bench.serve(n, A, "pass" if n % 2 else "fail")
    parts = [bench.read(0, 4), bench.read(4, 10), bench.read(0, 10)]
    assert len(bench.judged) == len(set(bench.judged)) == 10
    assert parts[0].arms[A] + parts[1].arms[A] == parts[2].arms[A]
    assert parts[2].arms[A] == ArmOutcomes(judged=10, defects=5)


def test_the_budget_goes_to_both_arms(tmp_path: Path) -> None:
    bench = Bench(tmp_path, images=8)
    for n in range(100):
        bench.serve(n, A, "pass")
    for n in range(5):
        bench.serve(n + 0.5, B, "pass")
    found = bench.read()
    assert (found.arms[A].judged, found.arms[B].judged) == (4, 4)


def test_the_day_has_a_budget_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, images_per_day=5)
    for n in range(20):
        bench.serve(n, A, "pass")
    assert bench.read(0, 3).arms[A].judged == 3
    found = bench.read(3, 20)
    assert found.arms[A].judged == 2
    assert any("no time or budget left" in note for note in found.notes)
    bench.now += 86_401
    assert bench.read(5, 8).arms[A].judged == 3


def test_what_is_not_judged_in_time_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for n in range(10):
        bench.serve(n, A, "pass")

    def slow(items: Mapping[str, Any], seconds: float) -> dict[str, ImageReport]:
        return bench.judge(dict(list(items.items())[:3]), seconds)

    found = bench.read(judge=slow)
    assert found.arms[A].judged == 3
    assert any("7 pictures are not judged" in note for note in found.notes)
    assert 0 < bench.seconds[0] <= bench.config.seconds


def test_pictures_that_cannot_be_had_are_no_defects(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for n in range(10):
        bench.serve(n, A, "pass")
    for n in range(3):
        (tmp_path / "out" / f"{n}-a.png").unlink()
    found = bench.read()
    assert found.arms[A] == ArmOutcomes(judged=7, defects=0)
    assert any("no such file (3)" in note for note in found.notes)


def test_when_most_cannot_be_judged_nobody_sees_anything(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for n in range(10):
        bench.serve(n, B, "pass" if n < 4 else "fault")
        bench.serve(n + 0.5, A, "pass")
    with pytest.raises(OutcomeError, match="6 of 10"):
        bench.read()


def test_the_draw_is_even_and_cannot_be_chosen(tmp_path: Path) -> None:
    points = [draw(7, f"request-{n}") for n in range(20_000)]
    assert abs(sum(point < 0.05 for point in points) - 1_000) < 150
    assert [draw(7, "x"), draw(8, "x")] == [draw(7, "x"), draw(8, "x")]
    assert draw(7, "x") != draw(8, "x")
    bench = Bench(tmp_path, share=0.3, images=1_000)
    for n in range(200):
        bench.serve(n, A, "pass")
    judged = bench.read().arms[A].judged
    assert 30 < judged < 90
    assert bench.read().arms[A].judged == judged


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (report(("a", "pass"), ("b", "skip")), "ok"),
        (report(("a", "pass"), ("b", "fail")), "defect"),
        (report(("a", "fail"), confirmed=True), "defect"),
        (report(("a", "fail"), confirmed=False), "unmeasured"),
        (report(("a", "pass"), ("b", "fault")), "unmeasured"),
        (report(("a", "skip")), "unmeasured"),
        (report(("a", "fail"), ("b", "fault")), "defect"),
    ],
)
def test_a_verdict_is_what_the_gate_would_count(found: ImageReport, expected: str) -> None:
    assert verdict(found).verdict == expected


def test_checks_can_be_left_out() -> None:
    found = verdict(report(("a", "pass"), ("b", "fail")), frozenset({"b"}))
    assert found.verdict == "ok"


def request(**row: Any) -> Request:
    return Request(T0, A, None, "r", False, None, None, row)


def test_what_a_picture_should_be() -> None:
    found = expected_of(
        request(prompt='A sign "OPEN LATE" in rain', width="768", height=512, subtask="typography")
    )
    assert found.intended_text == ("OPEN LATE",)
    assert (found.width, found.height, found.aspect) == (768, 512, 1.5)
    assert found.subtask == "typography"
    bare = expected_of(request(subtask="sculpture", width="wide", locale="de"))
    assert (bare.subtask, bare.width, bare.aspect, bare.language) == (None, None, None, "de")
    assert expected_of(request(expected_text="A|B")).intended_text == ("A", "B")
    assert expected_of(request(prompt='"X1"', expected_text=[])).intended_text == ()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture, links that lead out of it, and a secret beside it."""
    folder = tmp_path_factory.mktemp("yard")
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(b"picture")
    (folder / "in" / "up").symlink_to(folder)
    (folder / "secret.png").write_bytes(b"secret")
    return folder


@given(st.lists(st.sampled_from(["..", ".", "", "in", "up", "a.png", "secret.png"]), max_size=6))
def test_no_path_leaves_the_folder(yard: Path, parts: list[str]) -> None:
    found = [yard / "in" / "a.png"]
    for text in ("/".join(parts), f"{yard}/{'/'.join(parts)}"):
        with contextlib.suppress(NoPictureError):
            found.append(local(text, yard / "in"))
    assert {path.read_bytes() for path in found} == {b"picture"}


def test_paths_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out.png"
    inside.mkdir()
    outside.write_bytes(b"secret")
    (inside / "link.png").symlink_to(outside)
    (inside / "empty.png").touch()
    (inside / "large.png").write_bytes(b"x" * 101)
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    for text, problem in (
        ("../out.png", "outside"),
        (str(outside), "outside"),
        ("link.png", "outside"),
        ("empty.png", "0 bytes"),
        ("large.png", "101 bytes"),
        (".", "no such file"),
        ("x\0y", "cannot be read"),
    ):
        with pytest.raises(NoPictureError, match=problem):
            local(text, inside)
    with pytest.raises(NoPictureError, match="folder"):
        local("a.png", None)


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/hang"):
            self.server.released.wait()  # type: ignore[attr-defined]
            return
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "/ok.png")
            self.end_headers()
            return
        self.send_response(404 if self.path.startswith("/gone") else 200)
        self.end_headers()
        self.wfile.write(b"x" * (500 if self.path.startswith("/large") else 50))

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    found.released = threading.Event()  # type: ignore[attr-defined]
    found.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=found.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.released.set()  # type: ignore[attr-defined]
    found.shutdown()
    thread.join()
    found.server_close()


def test_addresses_are_fetched_as_a_providers_are(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)

    async def nobody(host: str, port: int) -> list[str]:
        return ["169.254.169.254"] if host == "cdn.example" else ["93.184.216.34"]

    found = fetch(
        {
            "ok": f"{server}/ok.png?token=secret",
            "gone": f"{server}/gone.png",
            "away": f"{server}/away.png",
            "large": f"{server}/large.png",
            "foreign": "https://elsewhere.example/x.png?token=secret",
            "private": "https://cdn.example/x.png",
            "plain": "http://cdn.example/x.png",
            "file": "file:///etc/passwd",
            "login": "https://user:pw@cdn.example/x.png",
        },
        tmp_path,
        ("cdn.example",),
        server,
        60,
        nobody,
    )
    ok = found.pop("ok")
    assert isinstance(ok, Path)
    assert ok.read_bytes() == b"x" * 50
    said = {key: str(problem) for key, problem in found.items()}
    assert all(isinstance(problem, NoPictureError) for problem in found.values())
    assert "404" in said["gone"]
    assert "302" in said["away"]
    assert "more than" in said["large"]
    assert "nobody named" in said["foreign"]
    assert "169.254.169.254" in said["private"]
    assert "plain http" in said["plain"]
    assert "scheme" in said["file"]
    assert not any("secret" in text or "pw" in text for text in said.values())


def test_an_address_that_hangs_costs_its_own_picture_only(server: str, tmp_path: Path) -> None:
    found = fetch({"ok": f"{server}/ok.png", "hang": f"{server}/hang.png"}, tmp_path, (), server, 3)
    assert isinstance(found["ok"], Path)
    assert str(found["hang"]) == "not fetched in time" or "Timeout" in str(found["hang"])


def test_real_pictures_through_the_real_checks(tmp_path: Path, server: str) -> None:
    bench = Bench(tmp_path, seconds=3_000, base_url=server)
    for n, (mix, drawn) in enumerate(
        [(A, "FRESH BREAD"), (A, "FRESH BREAD"), (B, "FRSEH BRAED"), (B, "FRESH BREAD")]
    ):
        bench.serve(n, mix, "", prompt='A bakery poster "FRESH BREAD"', width=512, height=512)
        picture = tmp_path / "out" / f"{n:g}-{mix[7]}.png"
        picture.write_bytes(encoded(poster(drawn)))
    bench.serve(9, B, "not a picture", prompt="A hill", width=512, height=512)
    from tasks.rollout.outcomes.shadow import judge_in_pool

    found = bench.read(judge=lambda items, seconds: judge_in_pool(items, seconds, 1, 200))
    assert found.arms[A] == ArmOutcomes(judged=2, defects=0)
    assert found.arms[B] == ArmOutcomes(judged=3, defects=2)


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=400), st.integers(1, 20))
def test_the_lowest_draws_are_found_however_many_there_are(draws: list[int], wanted: int) -> None:
    lowest = _Lowest(0.9, wanted)
    lowest._held = wanted
    points = [value / 10**6 for value in draws]
    for number, point in enumerate(points):
        lowest.add(str(number), point, request(point=point))
    found = [one.row["point"] for one in lowest.requests()][:wanted]
    assert found == sorted(point for point in points if point < 0.9)[:wanted]


def test_a_request_that_failed_at_last_is_not_judged(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.serve(1, A, "pass")
    bench.serve(1, A, "pass", ok=False, time=at(2).isoformat())
    assert bench.read().arms[A].judged == 0
