"""The report in a real browser: opens from the file, loads nothing, runs nothing of a prompt."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

from tasks.evidence.report import render_report, write_report
from tasks.images import ImageStore
from tasks.plan import RunFolder, write_atomic

BROWSER = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (found := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine"),
]

Dump = Callable[[str], str]


@pytest.fixture(scope="module")
def run_builder() -> ModuleType:
    path = Path(__file__).parents[1] / "evidence" / "builders.py"
    spec = importlib.util.spec_from_file_location("evidence_builders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("evidence_builders", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    """Return a function that opens an address and returns the page after its script has run."""

    def opened(address: str) -> str:
        assert BROWSER is not None
        done = subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=10000",
                "--enable-logging=stderr",
                "--dump-dom",
                address,
            ],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=180,
            check=True,
        )
        refused = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert refused == [], "the page wrote to the console: an error or a refused resource"
        # What the scripts themselves say must not pass for what is shown.
        return re.sub(r"(<script[^>]*>).*?</script>", r"\1</script>", done.stdout, flags=re.S)

    return opened


@pytest.fixture(scope="module")
def report(run_builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a written report with pictures and hostile prompts."""
    home = tmp_path_factory.mktemp("home")
    store = ImageStore(home / "images")
    view = run_builder.a_view(
        cases=130, candidate=run_builder.BROKEN, store=store, hostile=True, seed=3
    )
    return write_report(RunFolder(home / "runs" / view.plan.run_id), view, store)


def cards(dom: str) -> list[str]:
    return [unescape(name) for name in re.findall(r'<article class="case" data-id="([^"]+)"', dom)]


def title(dom: str) -> str:
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    return unescape(found[1])


def test_it_opens_from_the_file_and_draws_the_gallery(report: Path, dump: Dump) -> None:
    dom = dump(report.as_uri())
    assert title(dom) == "PROMOTE · summer → storefront · imagegate"
    assert len(cards(dom)) == 24
    assert "data:image/webp;base64," in dom
    assert 'class="halo"' in dom, "the marked region is drawn over the picture"
    assert "file does not decode" in dom


def test_hostile_prompts_do_not_run(report: Path, dump: Dump) -> None:
    # Opens the dialog as well, where the whole prompt is shown.
    dom = dump(f"{report.as_uri()}#case=case-00000")
    assert title(dom) != "owned"
    assert "<dialog" in dom
    dialog = dom[dom.index("<dialog") : dom.index("</dialog>")]
    assert " open" in dialog[:200]
    assert "&lt;/script&gt;&lt;script&gt;document.title='owned'" in dialog
    assert "⟨U+202E⟩" in dialog
    assert 'src="x"' not in dom
    assert dom.count("<script") == 2


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        (
            "check=typography.text&arm=candidate",
            lambda item: "candidate" in item["failed"] and "typography.text" in item["checks"],
        ),
        ("change=fixed&page=1", lambda item: item["failed"] == {"baseline"}),
        ("subtask=edit&arm=baseline", lambda item: "baseline" in item["failed"]),
        ("q=no+such+word+anywhere", lambda item: False),
    ],
)
def test_a_link_with_filters_shows_what_it_says(
    report: Path,
    run_builder: ModuleType,
    dump: Dump,
    link: str,
    kept: Callable[[dict[str, set[str]]], bool],
) -> None:
    view = run_builder.a_view(cases=130, candidate=run_builder.BROKEN, hostile=True, seed=3)
    items: dict[str, dict[str, set[str]]] = {}
    for outcome in view.outcomes:
        item = items.setdefault(
            outcome.case_id, {"failed": set(), "checks": set(), "subtask": {outcome.subtask}}
        )
        if outcome.failed:
            item["failed"].add(outcome.arm)
            if outcome.arm == "candidate":
                item["checks"].update(outcome.reasons)
    expected = {name for name, item in items.items() if item["failed"] and kept(item)}
    if "subtask=edit" in link:
        expected = {name for name in expected if items[name]["subtask"] == {"edit"}}
    dom = dump(f"{report.as_uri()}#{link}")
    assert set(cards(dom)) == expected
    assert bool(expected) != ("No failure matches these filters." in dom)


def test_an_unknown_filter_or_case_shows_something_sane(report: Path, dump: Dump) -> None:
    dom = dump(f"{report.as_uri()}#locale=<img src=x>&case=nobody&page=-3&sort=__proto__")
    assert cards(dom) == []
    assert "No failure matches these filters." in dom
    assert title(dom).startswith("PROMOTE")


def test_nothing_is_requested_even_when_served(report: Path, dump: Dump) -> None:
    """Serve the report from a server that writes down every request."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = report.read_bytes() if self.path == "/report.html" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        dom = dump(f"http://127.0.0.1:{server.server_port}/report.html")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert len(cards(dom)) == 24
    # A browser asks for an icon on its own; the page itself asks for nothing.
    assert [path for path in asked if path != "/favicon.ico"] == ["/report.html"]


def test_five_thousand_cases_open_and_filter(
    run_builder: ModuleType, tmp_path: Path, dump: Dump
) -> None:
    view = run_builder.a_view(cases=5_000, candidate=run_builder.BROKEN)
    failing = {o.case_id for o in view.outcomes if o.failed or o.outcome == "unmeasured"}
    path = write_atomic(tmp_path / "report.html", render_report(view))
    dom = dump(f"{path.as_uri()}#arm=candidate&sort=-latency&page=2")
    assert len(cards(dom)) == 24
    assert f"of {len(failing):,} cases" in dom
    assert "page 2 of" in dom
    assert path.stat().st_size < 6_000_000


def test_a_report_without_failures_opens(
    run_builder: ModuleType, tmp_path: Path, dump: Dump
) -> None:
    perfect = run_builder.Quality(0.0, 0.01, 1.0, ("text",))
    view = run_builder.a_view(cases=12, candidate=perfect)
    outcomes = [o for o in view.outcomes if o.arm == "candidate"]
    path = write_atomic(tmp_path / "report.html", render_report(replace(view, outcomes=outcomes)))
    dom = dump(path.as_uri())
    assert "No case failed in either arm." in dom
    assert title(dom).startswith("PROMOTE")
