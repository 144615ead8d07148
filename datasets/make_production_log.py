"""Make ``production_log.parquet``: run ``python datasets/make_production_log.py``.

The log is invented: no request of a real user is in it. Words are drawn from ``words.json``
and ``phrases.json`` by a generator with a fixed seed, in the shares that a small shop-and-ads
service sees: typography 45 %, creative 25 %, fast 20 %, edit 7 %, upscale 3 %; most text is Latin,
a sixth Chinese or Japanese, about 8 % in other scripts; a few prompts come in again and again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
Words = dict[str, list[str]]

ROWS = 6000
SEED = 41_017

SUBTASKS = {"typography": 45, "creative": 25, "fast": 20, "edit": 7, "upscale": 3}
LOCALES = {
    "en": 41, "de": 8, "fr": 7, "es": 7, "it": 3, "pt": 4, "nl": 2, "pl": 2.5, "tr": 2, "sv": 1,
    "zh": 10, "ja": 7, "ru": 2.8, "ko": 1.6, "ar": 1.7, "hi": 1.1, "th": 1.2, "vi": 0.7, "he": 0.4,
    "el": 0.6, "uk": 0.6,
}  # fmt: skip
SIZES = {(512, 512): 70, (640, 384): 11, (384, 640): 10, (512, 640): 9}

REPEATED = [
    ("product photo of a ceramic mug on a plain white background", "fast", "en", (512, 512), []),
    ("a cat wearing sunglasses", "fast", "en", (512, 512), []),
    ('Poster with the words "Grand Opening"', "typography", "en", (512, 512), ["Grand Opening"]),
    ("mountain lake at sunrise, wide shot", "creative", "en", (640, 384), []),
    ('海报，标题“新品上市”', "typography", "zh", (512, 512), ["新品上市"]),
]  # fmt: skip
LATENCY = {"typography": 5200, "creative": 6100, "fast": 1500, "edit": 7400, "upscale": 9800}


class Writer:
    """Draws requests; one generator, one order, so the same file every time."""

    def __init__(self, seed: int, words: Words, phrases: Words, uploads: list[str]) -> None:
        self.draw = random.Random(seed)
        self.words = words
        self.phrases = phrases
        self.uploads = uploads

    def word(self, kind: str) -> str:
        """Return one entry of a list of ``words.json``."""
        return self.draw.choice(self.words[kind])

    def one_of(self, shares: dict[Any, float]) -> Any:
        """Return one key, drawn by its share."""
        return self.draw.choices(list(shares), list(shares.values()))[0]

    def fill(self, template: str, texts: list[str]) -> str:
        """Return a template with product, surface, style and the quoted texts filled in."""
        quoted = [f'"{t}"' for t in texts] + ["", ""]
        word = self.word
        return template.format(
            p=word("products"), w=word("surfaces"), s=word("styles"), t=quoted[0], u=quoted[1]
        )

    def text(self, locale: str) -> str:
        """Return a phrase of the locale; one in five is a price or a number."""
        if locale in ("en", "de", "fr", "es", "it", "nl", "pl") and self.draw.random() < 0.2:
            return self.draw.choice(self.phrases["prices"])
        return self.draw.choice(self.phrases[locale])

    def typography(self, locale: str) -> tuple[str, list[str]]:
        """Return a prompt with one text, or two in one case of eight."""
        if self.draw.random() < 0.125:
            texts = self.draw.sample(self.phrases[locale], 2)
            if locale == "en" and self.draw.random() < 0.5:
                texts[1] = self.draw.choice(self.phrases["prices"])
            return self.fill(self.word("two_texts"), texts), texts
        texts = [self.text(locale)]
        return self.fill(self.word("one_text"), texts), texts

    def creative(self, _locale: str) -> tuple[str, list[str]]:
        """Return a scene in words."""
        word = self.word
        if self.draw.random() < 0.35:
            return f"{word('products')} {word('surfaces')}, {word('styles')}, {word('moods')}", []
        return f"{word('scenes')}, {word('moods')}, {word('styles')}", []

    def fast(self, _locale: str) -> tuple[str, list[str]]:
        """Return a few words."""
        word = self.word
        kind = self.draw.random()
        if kind < 0.35:
            return f"{word('icons')} {word('traits')}", []
        if kind < 0.8:
            return f"{word('colours')} {word('products')}, {word('traits')}", []
        return word("scenes"), []

    def edit(self, locale: str) -> tuple[str, list[str]]:
        """Return an instruction for an uploaded picture."""
        if self.draw.random() < 0.3:
            texts = [self.draw.choice(self.phrases[locale])]
            return self.fill(self.word("text_edits"), texts), texts
        first, second = self.draw.sample(self.words["edits"], 2)
        return (first if self.draw.random() < 0.6 else f"{first}. {second}"), []

    def upscale(self, locale: str) -> tuple[str, list[str]]:
        """Return a prompt for a large picture, with text in one case of three."""
        return self.typography(locale) if self.draw.random() < 0.33 else self.creative(locale)

    def request(self, number: int) -> dict[str, Any]:
        """Return one row of the log."""
        draw = self.draw
        if draw.random() < 0.025:
            prompt, subtask, locale, size, texts = draw.choice(REPEATED)
        else:
            subtask, locale = self.one_of(SUBTASKS), self.one_of(LOCALES)
            compose: Callable[[str], tuple[str, list[str]]] = getattr(self, subtask)
            prompt, texts = compose(locale)
            if not texts and draw.random() < 0.8:
                locale = "en"  # Most prompts without text to set are written in English.
            size = (1024, 1024) if subtask == "upscale" else self.one_of(SIZES)
        branded = subtask in ("typography", "creative") and draw.random() < 0.07
        at = datetime(2026, 10, 5, tzinfo=UTC) + timedelta(seconds=number * 201.6)
        return {
            "request_id": f"req-{number:06d}",
            "at": (at + timedelta(milliseconds=draw.randrange(200_000))).isoformat(
                "T", "milliseconds"
            ),
            "prompt": prompt,
            "subtask": subtask,
            "locale": locale,
            "width": size[0],
            "height": size[1],
            "expected_text": texts,
            "brand": draw.choice(("northwind", "solstice")) if branded else None,
            "upload": draw.choice(self.uploads) if subtask == "edit" else None,
            "status": 200 if draw.random() < 0.985 else draw.choice((400, 429, 502)),
            "latency_ms": round(LATENCY[subtask] * draw.lognormvariate(0, 0.35)),
        }


SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("at", pa.string()),
        ("prompt", pa.string()),
        ("subtask", pa.string()),
        ("locale", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("expected_text", pa.list_(pa.string())),
        ("brand", pa.string()),
        ("upload", pa.string()),
        ("status", pa.int32()),
        ("latency_ms", pa.int32()),
    ]
)


def make_table(rows: int = ROWS, seed: int = SEED) -> pa.Table:
    """Return the log as a table."""
    words, phrases = (
        json.loads((HERE / name).read_text(encoding="utf-8"))
        for name in ("words.json", "phrases.json")
    )
    uploads = sorted(p.relative_to(HERE).as_posix() for p in (HERE / "uploads").iterdir())
    writer = Writer(seed, words, phrases, uploads)
    return pa.Table.from_pylist([writer.request(n) for n in range(rows)], schema=SCHEMA)


if __name__ == "__main__":
    pq.write_table(make_table(), HERE / "production_log.parquet", compression="zstd")
