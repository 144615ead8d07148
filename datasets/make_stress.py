"""Make ``stress/*.jsonl`` from ``stress_source/*.txt``: run ``python datasets/make_stress.py``.

The sentences were written by hand for this project; README.md explains the notation. This script
only gives every line its case_id, its size and the list of the texts it wants to be set.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = ((512, 512), (512, 512), (640, 384), (512, 512), (384, 640), (512, 512), (512, 640))
OPTION = re.compile(r"(\w+)=(.*?)(?=\s+\w+=|$)")
ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|x([0-9a-f]{2})|(.))")
QUOTED = re.compile(r'"([^"]*)"')
LETTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def options(text: str) -> dict[str, str]:
    """Return the ``key=value`` pairs of a heading or of the end of a line."""
    return dict(OPTION.findall(text.strip()))


def unescape(text: str) -> str:
    r"""Return the text with ``\n``, ``\xHH``, ``\uHHHH`` and the like as characters."""
    return ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else LETTERS[m[3]], text)


def lengthen(prompt: str, length: int) -> str:
    """Return the prompt with a list of things after its first part, about ``length`` long."""
    words = json.loads((HERE / "words.json").read_text(encoding="utf-8"))
    head, _, tail = prompt.partition(", ")
    parts: list[str] = []
    size = len(prompt)
    for number in itertools.count():
        # Strides without a common divisor with the lists' lengths: no sentence comes twice soon.
        thing = words["products"][number * 7 % len(words["products"])]
        place = words["surfaces"][number * 5 % len(words["surfaces"])]
        scene = words["scenes"][number * 3 % len(words["scenes"])]
        part = f"number {number + 1} is a {thing} {place}, next to a picture of {scene}"
        if size + len(part) + 2 > length:
            break
        parts.append(part)
        size += len(part) + 2
    return f"{head}: {'; '.join(parts)}; {tail}"


def cases(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the cases of one source file."""
    heading: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            heading = options(line[3:])
        elif line and not line.startswith("# "):
            text, _, extra = line.partition(" @@ ")
            given = heading | options(extra)
            prompt = unescape(text)
            if "long" in given:
                prompt = lengthen(prompt, int(given["long"]))
            slug = re.sub(r"[^a-z]+", "-", given["theme"]) + f"-{given['locale'].lower()}"
            numbers[slug] += 1
            size = SIZES[(sum(numbers.values()) - 1) % len(SIZES)]
            if "size" in given:
                width, height = given["size"].split("x")
                size = (int(width), int(height))
            yield {
                "case_id": f"{slug}-{numbers[slug]:02d}",
                "prompt": prompt,
                "subtask": given["subtask"],
                "locale": given["locale"],
                "width": size[0],
                "height": size[1],
                "expected_text": QUOTED.findall(prompt),
                "brand": given.get("brand"),
                "upload": given.get("upload"),
                "origin": given.get("origin", "stress"),
                "expect": given.get("expect", "image"),
                "theme": given["theme"],
            }


def make(target: Path) -> None:
    """Write one JSONL file a source file below ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted((HERE / "stress_source").glob("*.txt")):
        # ASCII with escapes: control and direction characters do not act on who reads the file.
        lines = [json.dumps(case, ensure_ascii=True) for case in cases(source)]
        (target / f"{source.stem}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(HERE / "stress")
