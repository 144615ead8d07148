"""Data Docs that need no network and run no script."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from tasks.expectations.docs import self_contained

PAGE = """<!DOCTYPE html><html><head lang="en">
<link rel="stylesheet" href="https://cdn.example/a.css"/>
<SCRIPT src="https://cdn.example/a.js"
 integrity="x"></SCRIPT ><script>alert("1 < 2")</script>
<style>@import url("https://cdn.example/b.css");</style></head>
<body><img src="https://cdn.example/logo.png"><!-- <p>note</p> --><p>Kept</p></body></html>"""


class Loads(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed"}:
            self.found.append(tag)


def loads(text: str) -> list[str]:
    parser = Loads()
    parser.feed(text)
    return parser.found


def test_pages_load_nothing_and_keep_their_text(tmp_path: Path) -> None:
    page = tmp_path / "validations" / "metrics" / "run" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    (tmp_path / "static" / "fonts").mkdir(parents=True)
    assert loads(PAGE) == ["link", "script", "script", "img"]

    self_contained(tmp_path, [("metrics", False)])

    text = page.read_text()
    assert loads(text) == []
    assert "cdn.example" not in text
    assert "<p>Kept</p>" in text
    assert "default-src 'none'" in text
    assert not (tmp_path / "static").exists()


def test_the_index_leads_to_the_pages(tmp_path: Path) -> None:
    page = tmp_path / "validations" / "metrics" / "a b" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)

    self_contained(tmp_path, [("metrics", True), ("outcomes", False)])

    index = (tmp_path / "index.html").read_text()
    assert 'href="validations/metrics/a%20b/page.html"' in index
    assert 'href="expectations/outcomes.html"' in index
    assert index.index("all hold") < index.index("not all hold")
