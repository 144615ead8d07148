"""``imagegate check`` where stdout, the names and the interrupt are not as one would wish."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.checks.drawing import encoded, scene
from tests.conftest import ROOT, Command

SLOW = """
from dataclasses import dataclass
from pathlib import Path
@dataclass(frozen=True)
class Slow:
    name: str = "acme.slow"
    version: str = "1"
    higher_is_better: bool = True
    def run(self, picture, expected):
        if expected.prompt != "slow":
            from tasks.records import Finding
            return Finding(check=self.name, version=self.version, verdict="pass")
        import os, time
        Path(__file__).with_name("busy").write_text(str(os.getpid()))
        while True:
            time.sleep(60)
CHECKS = Slow()
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.png"
    file.write_bytes(encoded(scene(256, 256)))
    return file


def asked(imagegate: Command, redirect: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell that does something to its stdout; print its exit code."""
    return subprocess.run(
        ["bash", "-c", f'"$0" -m flows "$@" {redirect}', sys.executable, *arguments],
        cwd=ROOT, env=imagegate.env, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [(), ("--json",)])
def test_a_reader_that_goes_away_is_no_verdict(
    good: Path, kind: tuple[str, ...], light_imagegate: Command
) -> None:
    gone = "2>&1 | true; exit ${PIPESTATUS[0]}"
    done = asked(light_imagegate, gone, "check", str(good), "--workers", "1", *kind)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", [(), ("--json",)])
@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_a_stdout_that_takes_nothing_is_said_and_no_verdict(
    good: Path, kind: tuple[str, ...], redirect: str, light_imagegate: Command
) -> None:
    if redirect == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = asked(light_imagegate, redirect, "check", str(good), "--workers", "1", *kind)
    assert done.returncode == 4
    said = [line for line in done.stderr.splitlines() if not line.startswith("1 picture")]
    assert len(said) == 1, said
    assert said[0].startswith("error: standard output ")


@pytest.mark.parametrize("kind", [(), ("--json",)])
def test_a_stdout_for_ascii_gets_ascii(
    good: Path, kind: tuple[str, ...], light_imagegate: Command
) -> None:
    # A short path: the table breaks long ones in the middle of a name.
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "größe.png"
        cut.write_bytes(good.read_bytes()[:900])
        arguments = ("check", str(good), *[str(cut)] * 4, "--workers", "1", *kind)
        done = light_imagegate(*arguments, PYTHONIOENCODING="ascii")
    assert done.code == 1, done.err
    assert done.out.isascii()
    if kind:
        assert [json.loads(x)["file"] for x in done.out.splitlines()] == [
            str(good),
            *[str(cut)] * 4,
        ]
    else:
        assert "gr\\xf6\\xdfe" in done.out
        assert "\\u" not in done.out  # The table is drawn in ASCII.


def test_names_cannot_pass_for_lines_or_pictures(good: Path, light_imagegate: Command) -> None:
    odd = good.with_name("a\nerror: b.png")
    odd.write_bytes(good.read_bytes())
    done = light_imagegate("check", str(odd), "--workers", "1")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].endswith("a⟨U+000A⟩error: b.png  256 × 256")
    none = light_imagegate("check", "a\nerror: :x:.png")
    assert (none.code, none.err) == (2, "error: a\\nerror: :x:.png: no such file or folder\n")


def test_the_name_stands_apart_from_a_long_verdict(good: Path, light_imagegate: Command) -> None:
    done = light_imagegate("check", str(good), "--text", "বাংলা", "--workers", "1")
    assert done.code == 3
    assert done.out.startswith(f"unmeasured {good}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("good.png", "--text", ""), "--text is blank"),
        (("good.png", "--text", "Hi", "--text", "  "), "--text is blank"),
        (("--manifest", "m.csv", "--language", "en"), "column language"),
        (("x" * 300 + ".png",), "no such file"),
    ],
)
def test_what_would_check_nothing_is_refused(
    arguments: tuple[str, ...], says: str, good: Path, light_imagegate: Command
) -> None:
    (good.parent / "m.csv").write_text("file\ngood.png\n")
    given = [str(good.parent / a) if a in ("good.png", "m.csv") else a for a in arguments]
    done = light_imagegate("check", *given)
    assert done.code == 2
    assert says in " ".join(done.err.split())


def test_a_misspelt_column_is_told(good: Path, light_imagegate: Command) -> None:
    manifest = good.parent / "m.csv"
    manifest.write_text("file,intendet_text,note\ngood.png,Hi,x\n")
    done = light_imagegate("check", "--manifest", str(manifest), "--json", "--workers", "1")
    assert done.code == 0
    warned = [line for line in done.err.splitlines() if line.startswith("warning:")]
    assert len(warned) == 1, done.err
    assert "'intendet_text' is ignored; did you mean 'intended_text'?" in warned[0]


def test_an_interrupt_ends_a_slow_check_at_once(good: Path, light_imagegate: Command) -> None:
    folder = good.parent
    (folder / "acme_slow.py").write_text(SLOW)
    info = folder / "acme_slow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[imagegate.checks]\nslow = acme_slow:CHECKS\n")
    (folder / "p.yaml").write_text("checks: {plugins: [{name: slow}]}")
    (folder / "m.csv").write_text("file,prompt\ngood.png,\ngood.png,slow\ngood.png,slow\n")
    # The first line is printed when four pictures are under way or all are handed over.
    started = light_imagegate.start(
        "check", "--manifest", str(folder / "m.csv"), "--policy", str(folder / "p.yaml"),
        "--json", "--workers", "1", PYTHONPATH=os.pathsep.join((str(ROOT), str(folder))),
    )  # fmt: skip
    assert started.stdout is not None
    try:
        first = started.stdout.readline()
        busy = folder / "busy"
        while started.poll() is None and not (busy.exists() and busy.read_text()):
            pass
        worker = int(busy.read_text())
        started.send_signal(signal.SIGINT)
        rest, said = started.communicate(timeout=20)
    finally:
        started.kill()
    assert started.returncode == 130, said
    assert json.loads(first)["verdict"] == "pass"
    assert rest == ""
    assert "stopped" in said
    status = Path(f"/proc/{worker}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
