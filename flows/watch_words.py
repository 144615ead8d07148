"""How a pass of the watchdog reads: as Markdown in Prefect, as lines in a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.watchdog.loop import Pass

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~-])")


def plain(text: str) -> str:
    """Return foreign text so that Markdown and HTML show it as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def markdown(result: Pass) -> str:
    """Return the summary for Prefect's artifact."""
    lines = [f"# Watch over production, {result.at[:16].replace('T', ' ')} UTC", ""]
    if result.standing:
        lines += ["| what | how bad | asked |", "| --- | --- | --- |"]
        lines += [
            f"| {plain(t.title)} | {t.severity} | {plain(' '.join(t.asked))} |"
            for t in result.standing
        ]
    else:
        lines.append("Nothing is wrong.")
    lines.append("")
    lines += [f"- told: {plain(text)}" for text in result.told]
    lines += [f"- over: {plain(text)}" for text in result.closed]
    lines += [f"- done: {plain(text)}" for text in result.done]
    lines.append(f"- alerts: {result.delivered} delivered, {result.undelivered} wait")
    lines.append(f"- Prefect's server: {result.prefect}")
    lines += [f"- not seen: {plain(f.source)}: {plain(f.error)}" for f in result.faults]
    return "\n".join(lines)


def lines(result: Pass, *, changes_only: bool = False) -> Iterable[str]:
    """Return what a terminal shows of a pass.

    Args:
        result: The pass.
        changes_only: Leave out what stands since before: for a loop, whose log would fill up.
    """
    at = result.at[11:19]
    for text in result.told:
        yield f"{at} told     {text}"
    for text in result.done:
        yield f"{at} done     {text}"
    for text in result.closed:
        yield f"{at} over     {text}"
    if result.delivered:
        yield f"{at} alerts   {result.delivered} delivered, {result.undelivered} wait"
    if changes_only:
        return
    for trouble in result.standing:
        yield f"{at} {trouble.severity:<8} {trouble.title}"
        for line in (*trouble.lines, *trouble.asked):
            yield f"{'':18}{' '.join(line.split())}"
    for fault in result.faults:
        yield f"{at} not seen {fault.source}: {fault.error}"
    if not result.standing and not result.faults:
        yield f"{at} quiet    nothing is wrong (Prefect's server: {result.prefect})"
