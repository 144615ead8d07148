"""The library of models as a table that is read at once: a block for each provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tasks.mix.catalog import EMBEDDED

Row = Mapping[str, Any]

#: Letters of a digest that are shown; ``--json`` has all.
_DIGEST = 12
#: The least widths of the columns that give way on a narrow screen, by place.
_LEAST = {1: 13, 2: 16, 3: 17}
_GAP = 2


class Library:
    """Rows of the library, drawn in the width that there is.

    Args:
        rows: As :func:`tasks.mix.library.listed` gives them.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._blocks: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            self._blocks.setdefault((row["protocol"], row["endpoint"]), []).append(row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the blocks with columns of the same width in all."""
        cells = {key: _cells(rows) for key, rows in self._blocks.items()}
        widths = _fitted(list(cells.values()), options.max_width)
        for number, (key, rows) in enumerate(self._blocks.items()):
            if number:
                yield ""
            yield Text.from_markup(_heading(key, rows))
            table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
            for place, width in enumerate(widths):
                table.add_column(width=width, overflow="fold", no_wrap=place == 0)
            for row, shown in zip(rows, cells[key], strict=True):
                name, *rest = shown
                style = "bold" if row["usable"] else "red"
                table.add_row(f"[{style}]{escape(name)}[/]", *map(escape, rest))
            yield table


def _heading(key: tuple[str, str], rows: list[Row]) -> str:
    """Return a provider in one line: protocol, address, key, licences."""
    protocol, endpoint = key
    host = urlsplit(endpoint).netloc or endpoint
    place = "the run's own server" if endpoint == EMBEDDED else escape(host)
    said = [f"[bold cyan]{protocol}[/] {place}"]
    for name in dict.fromkeys(row["key_env"] for row in rows if row["key_env"]):
        missing = any(_without_key(r) for r in rows if r["key_env"] == name)
        said.append(f"[yellow]no key: {name} is not set[/]" if missing else f"key {name}")
    licences = {_licence(row) for row in rows}
    if len(licences) == 1:
        said.append(f"[dim]{escape(licences.pop())}[/]")
    return " · ".join(said)


def _cells(rows: list[Row]) -> list[list[str]]:
    """Return what stands in the lines: name, operations, version, price, and what else is said."""
    alike = len({_licence(row) for row in rows}) == 1
    return [
        [
            row["name"],
            " ".join(row["operations"]),
            _version(row),
            price_text(row["price"]),
            ", ".join(_also(row, licence=not alike)),
        ]
        for row in rows
    ]


def _also(row: Row, *, licence: bool) -> Iterator[str]:
    if row["retires"]:
        yield f"ends {row['retires']}"
    if row["serves"]:
        yield f"serves {' '.join(row['serves'])}"
    if licence:
        yield _licence(row)


def _version(row: Row) -> str:
    version, pin = row["version"], row["pin"]
    kind, _, digest = version.rpartition(":")
    if pin == "immutable" and len(digest) > 2 * _DIGEST:
        version = f"{kind}{':' if kind else ''}{digest[:_DIGEST]}…"
    # A dated version is what a pin should be, and a digest shows itself: the weak ones are told.
    return version if pin in ("dated", "immutable") else f"{version} ({_PINS[pin]})"


_PINS = {"alias": "alias", "none": "no pin"}


def _fitted(blocks: list[list[list[str]]], most: int) -> list[int]:
    """Return the widths of the columns; on a narrow screen, the cells are changed to fit.

    What else is said goes below the version then. Names stay whole; the deeds give way first, the
    price next, then the version.
    """
    lines = [line for block in blocks for line in block]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if _whole(widths) > most or not widths[-1]:
        for line in lines:
            also = line.pop()
            line[2] += f"\n  {also}" if also else ""
        widths.pop()
    for place in (1, 3, 2):
        over = _whole(widths) - most
        widths[place] -= max(0, min(over, widths[place] - _LEAST[place]))
    return widths


def _whole(widths: list[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def remark_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield what is to be said of the models, what is said of several once, the gravest first.

    A missing key stands in the heading of its provider and is not told again.
    """
    told: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for remark in row["remarks"]:
            if remark["field"] != "key_env":
                found = (remark["weight"], remark["field"], remark["text"])
                told.setdefault(found, []).append(row["name"])
    for (weight, field, text), names in sorted(told.items(), key=lambda item: item[0][0] != "stop"):
        style, mark = ("red", "✗") if weight == "stop" else ("yellow", "·")
        if len(names) == 1:
            yield f"[{style}]{mark}[/] {escape(names[0])}: {escape(text)}"
        else:
            # Which pins are weak, the column of the versions says.
            who = f"{len(names)} models" if field == "pin" else ", ".join(names)
            yield f"[{style}]{mark}[/] {escape(text)} [dim]({escape(who)})[/]"


def _without_key(row: Row) -> bool:
    return any(remark["field"] == "key_env" for remark in row["remarks"])


def _licence(row: Row) -> str:
    return "no licence known" if row["licence"] is None else str(row["licence"]["id"])


def price_text(price: Mapping[str, Any] | None) -> str:
    """Return a price for people, e.g. ``$0.03/image``; MP is a megapixel, s a second."""
    if price is None:
        return "no price known"
    usd = price["usd"]
    if price["per"] == "credit":
        return f"${usd * price['credits']:.4g}/{price['credits']:g} credits"
    if price["per"] == "token":
        return f"≤ ${usd:.4g} by tokens"
    first = "" if price.get("first_usd") is None else f"${price['first_usd']:.4g}, then "
    unit = {"image": "image", "megapixel": "MP", "gpu_second": "GPU-s"}
    return f"{first}${usd:.4g}/{unit[price['per']]}"
