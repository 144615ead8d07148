"""Good pictures for planting: our own drawings without end, and files with a label."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.checks.base import Expected
from tasks.checks.planted_base import Good, choice
from tasks.checks.planted_brand import with_logo
from tasks.checks.planted_colour import edited
from tasks.checks.planted_edit import masked
from tasks.checks.planted_frame import STUDIO_JUDGED, studio
from tasks.checks.planted_upscale import enlarged
from tasks.inputs.brands import brand_names
from tasks.providers.embedded.brands import Brand, Brands
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.models import MODELS
from tasks.providers.embedded.render import Job, png, render
from tasks.settings import DATASETS

#: Languages of the text with their weights. All are read without further data, so that every
#: machine measures the same; other scripts have a table of their own in the docs.
LANGUAGES = {"en": 8, "de": 2, "fr": 2, "es": 2, "it": 1, "pl": 1, "tr": 1, "zh": 1, "ja": 1}
#: Width and height, small ones for speed: 512 pixels cost a quarter of 1024 and are read alike.
SIZES = ((512, 512), (640, 448), (448, 640), (704, 400), (576, 720), (512, 512))


@functools.cache
def _words() -> tuple[dict[str, list[str]], list[str]]:
    phrases = json.loads((DATASETS / "phrases.json").read_text(encoding="utf-8"))
    words = json.loads((DATASETS / "words.json").read_text(encoding="utf-8"))
    return phrases, words["products"]


def phrases(language: str) -> list[str]:
    """Return short texts in a language.

    Raises:
        KeyError: There are none in it.
    """
    return _words()[0][language]


@functools.cache
def _brands() -> Brands:
    return Brands(DATASETS / "brands")


def brand_of(name: str) -> Brand:
    """Return a brand of ours with its logo.

    Raises:
        ConfigError: No such brand.
    """
    return _brands().get(name)


def pictured(seed: int, number: int) -> Job:
    """Return a request of the row for a new picture: text, brand, model and size by the draw.

    Three of four have text, six of ten a brand.
    """
    rng = generator("planted", seed, number)
    stocks, products = _words()
    specs = [spec for _, spec in sorted(MODELS.items()) if "generate" in spec.operations]
    text: tuple[str, ...] = ()
    language = "en"
    if rng.random() < 0.75:
        tags, weights = list(LANGUAGES), np.array(list(LANGUAGES.values()), float)
        language = str(rng.choice(tags, p=weights / weights.sum()))
        stock = stocks[language]
        count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
        text = tuple(stock[i] for i in rng.choice(len(stock), count, replace=False))
        if rng.random() < 0.2:
            text += (choice(stocks["prices"], rng),)
    brand: Brand | None = None
    if rng.random() < 0.6:
        brand = _brands().get(choice(brand_names(DATASETS), rng))
    width, height = choice(SIZES, rng)
    quoted = "".join(f' "{line}"' for line in text)
    return Job(
        spec=choice(specs, rng),
        prompt=f"{choice(products, rng)}, studio light{quoted}",
        seed=int(rng.integers(2**31)),
        width=width,
        height=height,
        text=text,
        brand=brand,
        locale=language,
    )


def drawn(seed: int, number: int) -> Good:
    """Return one good picture as the embedded server draws it, of any of its models.

    Of twelve, six are new pictures, two edits of our uploads, one an edit within a mask, one an
    enlargement, and two show one subject on a plain ground. The same seed and number give the same
    picture.
    """
    kind = number % 12
    if kind in (3, 7):
        return edited(seed, number)
    if kind > 9:
        return _studio(seed, number)
    new = _new(seed, number)
    if kind == 5:
        return masked(new, seed)
    return enlarged(new) if kind == 9 else new


def _new(seed: int, number: int) -> Good:
    job = pictured(seed, number)
    expected = Expected(
        intended_text=job.text,
        language=job.locale,
        width=job.width,
        height=job.height,
        aspect=job.width / job.height,
        brand=job.brand.kit.name if job.brand else None,
        subtask="typography" if job.text else "creative",
        declared_mime="image/png",
        prompt=job.prompt,
    )
    return Good(
        name=f"drawing {seed}/{number}",
        expected=expected,
        make=functools.partial(render, job),
        job=job,
        brand=job.brand,
    )


def _studio(seed: int, number: int) -> Good:
    """Return a branded picture of one subject on a plain ground: how products are shown."""
    new = _new(seed, number)
    rng = generator("planted studio", seed, number)
    brand = new.brand or _brands().get(choice(brand_names(DATASETS), rng))
    asked = replace(
        new.expected, brand=brand.kit.name, intended_text=(), language="en", subtask="creative"
    )
    shown = replace(new, name=f"studio {seed}/{number}", expected=asked, job=None, brand=brand)
    size = asked.width or 512, asked.height or 512
    # Where the subject hardly differs from the ground it is drawn again, in other colours.
    tries = (studio(shown, 0.0, rng, size) for _ in range(50))
    pixels = next(pixels for pixels in tries if pixels is not None)
    return replace(shown, make=functools.partial(png, pixels), judged=STUDIO_JUDGED)


def drawings(seed: int, start: int = 0) -> Iterator[Good]:
    """Yield drawings of one seed without end."""
    number = start
    while True:
        yield drawn(seed, number)
        number += 1


def from_file(path: Path, expected: Expected, judged: frozenset[str] | None = None) -> Good:
    """Return a labelled picture from a file.

    Args:
        path: The file.
        expected: What people said that it shows.
        judged: Checks of which the label speaks.
    """
    return Good(name=path.name, expected=expected, make=path.read_bytes, judged=judged)


def branded(good: Good, name: str, judged: frozenset[str]) -> Good:
    """Return a picture with a brand's logo put where the kit wants it.

    Args:
        good: Any picture.
        name: The brand.
        judged: Checks that the picture then is good for; its colours are not the brand's.
    """
    brand = _brands().get(name)
    return Good(
        name=f"{good.name} with {name}",
        expected=replace(good.expected, brand=name, declared_mime=None),
        make=lambda: with_logo(good.data, brand),
        brand=brand,
        under=good.data,
        judged=judged,
    )
