"""The report: complete, the same for the same run, and closed to what prompts say."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checks.counts import ANY, CheckHealth, CleanHealth, DefectHealth, OwnHealth
from tasks.checks.live import Planted
from tasks.errors import EvidenceError
from tasks.evidence.eyesight import eyesight
from tasks.evidence.report import json_island, render_report, write_report
from tasks.evidence.view import ReportView
from tasks.images import ImageStore
from tasks.metrics.compute import compute_metrics
from tasks.plan import RunFolder
from tasks.records import Verdict

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements, ids, addresses and the text of scripts and styles; checks that tags balance."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]].append(data)
        else:
            self.text.append(data)

    def attributes(self, name: str) -> Iterator[tuple[str, str]]:
        return ((tag, attrs[name]) for tag, attrs in self.tags if name in attrs)


@pytest.fixture(scope="module")
def view(builders: ModuleType) -> ReportView:
    return builders.a_view(cases=60, candidate=builders.BROKEN, hostile=True)


@pytest.fixture(scope="module")
def html(view: ReportView) -> str:
    return render_report(view)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_same_view_gives_the_same_html(builders: ModuleType, view: ReportView) -> None:
    again = builders.a_view(cases=60, candidate=builders.BROKEN, hostile=True)
    assert render_report(again) == render_report(view)


def test_it_loads_nothing(page: Page) -> None:
    for name in ("src", "href", "action", "poster", "data", "srcset", "xlink:href"):
        for tag, address in page.attributes(name):
            assert address.startswith(("#", "data:image/webp;base64,")), (tag, name, address)
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base"}]
    assert "url(" not in "".join(page.raw["style"])
    assert "@import" not in "".join(page.raw["style"])


def test_the_content_policy_allows_exactly_what_is_there(page: Page) -> None:
    policies = [
        attrs["content"]
        for tag, attrs in page.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    data, script = page.raw["script"]
    assert rules["script-src"] == source(script)
    assert [rules["style-src"]] == [source(style) for style in page.raw["style"]]
    json.loads(data)
    # Under this policy the browser would drop these; they must not be needed.
    for tag, attrs in page.tags:
        assert "style" not in attrs, tag
        assert not [name for name in attrs if name.startswith("on")], tag


def test_hostile_prompts_make_no_elements(page: Page) -> None:
    assert [attrs.get("type", "") for tag, attrs in page.tags if tag == "script"] == [
        "application/json",
        "",
    ]
    assert not [attrs for tag, attrs in page.tags if attrs.get("src") == "x"]
    assert "owned" in page.raw["script"][0]
    assert "owned" not in page.raw["script"][1]


def test_everything_stands_in_its_place(page: Page, html: str) -> None:
    places = [
        html.index(f'id="{name}"')
        for name in (
            "verdict",
            "headline",
            "why",
            "accounts",
            "slices",
            "checks",
            "gallery",
            "latency",
            "mixes",
            "sample",
            "evidence",
        )
    ]
    assert places == sorted(places)
    ids = [value for _, value in page.attributes("id")]
    assert len(ids) == len(set(ids))
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


def test_it_says_what_was_decided_and_why(page: Page, view: ReportView) -> None:
    text = " ".join(" ".join(page.text).split())
    for sentence in (*view.verdict.reasons, *view.verdict.warnings, *view.actions):
        assert sentence in text
    assert view.plan.policy.digest in text
    assert "--seed 42" in text


@pytest.mark.parametrize(
    ("name", "kind"), [("PROMOTE", "promote"), ("ROLLBACK", "rollback"), ("HOLD", "hold")]
)
def test_each_verdict_has_its_banner(view: ReportView, name: str, kind: str) -> None:
    shown = Page(render_report(replace(view, verdict=Verdict(verdict=name, reasons=("because",)))))
    classes = [c for tag, c in shown.attributes("class") if tag == "section"]
    assert classes == [f"banner {kind}"]


def test_an_empty_run_has_a_report(view: ReportView) -> None:
    plan = view.plan.model_copy(update={"cases": (), "coverage": {}})
    nothing = compute_metrics(
        (), (), plan.policy, baseline_digest="sha256:a", candidate_digest="sha256:b"
    )
    empty = ReportView(
        plan=plan,
        metrics=nothing,
        verdict=Verdict(verdict="HOLD", reasons=()),
        expectations=(),
        outcomes=(),
        generations=(),
        reports={},
    )
    text = " ".join(Page(render_report(empty)).text)
    assert "No reason was recorded." in text
    assert "No case failed in either arm." in text
    assert "nothing was changed by this run" in text
    assert "nan" not in text.lower().split()


@settings(deadline=None)
@given(st.recursive(st.text(st.characters(), max_size=20), lambda s: st.lists(s, max_size=3)))
def test_the_island_is_json_that_no_parser_leaves_early(value: object) -> None:
    text = str(json_island([value, "</script>", "<!--", "]]>", "\u2028"]))
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)[0] == value


def test_a_written_report_embeds_thumbnails_and_links_pictures(
    builders: ModuleType, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path / "images")
    view = builders.a_view(cases=24, candidate=builders.BROKEN, store=store, seed=4)
    folder = RunFolder(tmp_path / "runs" / view.plan.run_id)
    path = write_report(folder, view, store)
    assert path == folder.path / "report.html"
    data = json.loads(Page(path.read_text(encoding="utf-8")).raw["script"][0])
    assert any(isinstance(thumb, str) for thumb in data["thumbs"].values())
    sides = [side for item in data["items"] for side in item["arms"].values() if "img" in side]
    assert sides
    for side in sides:
        assert (folder.path / side["link"]).resolve() == store.path(side["img"])
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    first = path.read_bytes()
    assert write_report(folder, view, store).read_bytes() == first


def test_a_full_disk_is_an_error(
    view: ReportView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EvidenceError, match="the disk is full"):
        write_report(RunFolder(tmp_path / "r"), view, ImageStore(tmp_path / "images"))


def test_it_shows_what_the_checks_see(view: ReportView) -> None:
    assert "What the checks see" not in render_report(view)
    kinds = (
        DefectHealth("wrong size", "geometry.size", 1.0, 290, 300, elsewhere=4),
        DefectHealth("<b>", "geometry.size", 1.0, 100, 100),
    )
    record = (
        CheckHealth("geometry.size", CleanHealth("geometry.size", 2, 400), kinds),
        CheckHealth(
            "typography.text",
            CleanHealth("typography.text", 0, 300),
            (DefectHealth("letters dropped", "typography.text", 0.1, 300, 300),),
        ),
        CheckHealth("upscale.halos", CleanHealth("upscale.halos")),
        CheckHealth(ANY, CleanHealth(ANY, 3, 400)),
    )
    today = (
        CheckHealth(
            "typography.text",
            CleanHealth("typography.text", 0, 4),
            (DefectHealth("letters dropped", "typography.text", 0.1, 0, 4),),
        ),
    )
    found = Planted(
        version="sha256:a",
        pictures=400,
        record=record,
        counting=("geometry.size", "typography.text", ANY),
        asked=10,
        done=9,
        today=today,
        problems=("<script>died</script>",),
    )
    table = eyesight(found)
    assert table is not None
    assert [(row["name"], row["blind"]) for row in table["rows"]] == [
        ("typography.text", True),
        ("geometry.size", False),
    ]
    blind, size = table["rows"]
    assert (blind["today"], blind["lower"], blind["alarms"]) == ("0 of 4", "99.0 %", "1.0 %")
    assert (size["found"], size["elsewhere"], size["today"]) == (
        "390 of 400",
        "4 more by another check",
        "–",
    )
    html = render_report(replace(view, planted=found))
    page = Page(html)
    assert ("h2", {"id": "h-planted"}) in page.tags
    assert "<script>died" not in html
    text = " ".join(" ".join(page.text).split())
    assert "1 of 10 drawings were not judged: <script>died</script>" in text
    assert "shown 400 drawings, as they are and with defects planted in them, and now 9 " in text
    assert "at most 2.0 % (3 of 400) good drawings bad" in text
    assert "upscale.halos" not in text.partition("What the checks see")[2].partition("Mixes")[0]


def test_the_checks_of_the_policy_stand_in_the_table_of_what_they_see(view: ReportView) -> None:
    def own(name: str, found: int, planted: int, problem: str = "") -> OwnHealth:
        kind = DefectHealth("known bad pictures", name, 1.0, found, planted)
        return OwnHealth(CheckHealth(name, CleanHealth(name), (kind,)), problem=problem)

    found = Planted(
        version="v",
        pictures=400,
        record=(),
        counting=(),
        asked=10,
        done=10,
        own=(
            own("acme.sees", 9, 9),
            own("acme.blind", 3, 9),
            own("acme.few", 0, 0, "<script>no disk</script>"),
        ),
    )
    table = eyesight(found)
    assert table is not None
    assert [
        (row["name"], row["blind"], row["unmeasured"], row["found"], row["today"])
        for row in table["rows"]
    ] == [
        ("acme.blind", True, False, "3 of 9", "3 of 9"),
        ("acme.few", False, True, "0 of 0", "0 of 0"),
        ("acme.sees", False, False, "9 of 9", "9 of 9"),
    ]
    assert "what they themselves plant and know" in table["words"]
    html = render_report(replace(view, planted=found))
    assert "<script>no disk" not in html
    text = " ".join(" ".join(Page(html).text).split())
    assert "acme.few not measured" in text
    assert "acme.blind blind" in text
