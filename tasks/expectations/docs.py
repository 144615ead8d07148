"""Make Data Docs self-contained: they come with scripts, styles and pictures from six networks."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

#: Nothing is loaded and no script runs, whatever text an expectation shows.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem;
  color: #1c2430; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100% }
th, td { border: 1px solid #ccd3dc; padding: .35rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
th { background: #eef1f5 }
ul { padding-left: 1.2rem }
a { color: #1a56b0 }
.navbar, .sticky, .cloud-footer, footer, .modal, button, a[data-toggle=collapse] { display: none }
.text-success { color: #176b35 } .text-danger { color: #b3261e } .text-warning { color: #8a5a00 }
.fa-check-circle::before { content: "✔ " } .fa-times::before { content: "✘ " }
.fa-exclamation-triangle::before { content: "⚠ " }
.badge { background: #e6eaf0; border-radius: .3rem; padding: 0 .35rem }
"""

_IN_HEAD = (
    f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    f"<style>{_STYLE}</style>"
)

_REMOVED = re.compile(
    r"<script\b[^>]*>.*?</script\s*>"
    r"|<link\b[^>]*>"
    r"|<img\b[^>]*>"
    r"|<style\b[^>]*>.*?</style\s*>"
    r"|<!--.*?-->",
    re.IGNORECASE | re.DOTALL,
)
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


def self_contained(folder: Path, succeeded: Sequence[tuple[str, bool]]) -> None:
    """Rewrite the pages of a Data Docs site so that they load nothing, and drop its static files.

    The site's own index draws its table by a script from the network, so it gets a plain one.

    Args:
        folder: The site; its pages are the ``.html`` files below.
        succeeded: Names of the suites, and whether everything in it holds.
    """
    for page in sorted(folder.rglob("*.html")):
        text = _REMOVED.sub("", page.read_text(encoding="utf-8"))
        page.write_text(_HEAD.sub(f"<head>{_IN_HEAD}", text, count=1), encoding="utf-8")
    static = folder / "static"
    if static.is_dir():
        shutil.rmtree(static)
    (folder / "index.html").write_text(_index(folder, succeeded), encoding="utf-8")


def _index(folder: Path, succeeded: Sequence[tuple[str, bool]]) -> str:
    """Return the page that leads to the others."""
    rows = []
    for name, success in succeeded:
        pages = (*sorted(folder.glob(f"validations/{name}/**/*.html")),)
        links = " ".join(_link(page, folder, "result") for page in pages)
        suite = _link(folder / "expectations" / f"{name}.html", folder, "suite")
        said = "all hold" if success else "not all hold"
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{said}</td><td>{links} {suite}</td></tr>")
    return (
        f'<!DOCTYPE html><html lang="en"><head>{_IN_HEAD}<title>Expectations</title></head><body>'
        "<h1>Expectations of the policy</h1><table><tr><th>Table</th><th>Expectations</th>"
        f"<th>Pages</th></tr>{''.join(rows)}</table></body></html>"
    )


def _link(page: Path, folder: Path, text: str) -> str:
    """Return a link to a page of the site."""
    return f'<a href="{html.escape(quote(page.relative_to(folder).as_posix()))}">{text}</a>'
