"""Defects planted in pictures that people have: a folder, or a manifest that says which are good.

A picture that is not ours cannot be drawn again. Its text is planted in the expectation, a brand's
logo is put on it, it is edited and enlarged by the embedded server, and it is given a brand's
colours, margins and ground, so that each check has the kind of picture that it judges.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from tasks.checks import planted
from tasks.checks.base import Expected, Pixels
from tasks.checks.counts import CheckHealth
from tasks.checks.decode import decode, read_file
from tasks.checks.health import added
from tasks.checks.manifest import Entry, from_paths, read_manifest
from tasks.checks.planted_base import Good, encoded
from tasks.checks.planted_colour import as_twin, edited_from
from tasks.checks.planted_edit import masked
from tasks.checks.planted_good import brand_of, branded
from tasks.checks.planted_made import full, in_colours, print_of, roomy
from tasks.checks.planted_upscale import enlarged
from tasks.errors import DataError
from tasks.inputs.brands import brand_names
from tasks.settings import DATASETS

TEXT, LOGO = "typography.text", "composition.logo"
CAST, CHANNELS = "colour.cast", "colour.channels"
#: No label speaks of the text beside the one that was asked for.
EXTRA = "typography.extra"
#: What a label about the file alone speaks of.
_FILE = frozenset({"decode.file", "decode.mime", "decode.still"})
#: Checks that need a picture of another kind: one with a logo, an edit, an edit within a mask.
_LOGO = frozenset({LOGO, CHANNELS, CAST})
_EDIT = frozenset({"edit.kept", "edit.noise", "edit.light", "geometry.orientation", CAST, CHANNELS})
_MASK = frozenset({"edit.outside"})
_TWIN = frozenset({CAST, CHANNELS})
_UPSCALE = frozenset({"upscale.faithful", "upscale.text", "upscale.halos", "upscale.detail"})
#: Rules of a brand's layout and colours, for which a picture must be made.
_BRAND_ONLY = frozenset(
    {"colour.palette", "composition.blank_part", "composition.margins", "composition.subject"}
)
#: Long side of the pictures that are enlarged: larger ones are reduced first.
_SMALL = 512
#: Pictures that one process measures before it reports.
_UNIT = 4


@dataclass(frozen=True, slots=True)
class KnownGood:
    """A file that is known to be good.

    Attributes:
        path: The file.
        expected: What it should show; its own size where nothing is asked for.
        file_only: Only the file is known to be whole; nothing is known of what it shows.
        labelled: A person says so of this very picture: our decoder errs where it refuses it.
    """

    path: Path
    expected: Expected
    file_only: bool = False
    labelled: bool = False


def known_good(source: Path, datasets: Path = DATASETS) -> list[KnownGood]:
    """Return the pictures that are good by a manifest, or all of a folder, which must be good.

    In a manifest a column ``truth``, ``legible_match`` or ``expected`` says what is good, as in
    :mod:`tasks.checks.truth`. Rows that it calls bad, and rows of which it says nothing, are left
    out; without such a column every row is good, and none is :attr:`KnownGood.labelled`.

    Raises:
        DataError: There is no picture, or none is known to be good; or the manifest is not valid.
    """
    if source.is_dir():
        return [KnownGood(entry.path, entry.expected) for entry in from_paths([source])]
    entries = read_manifest(source, datasets)
    told = any(entry.truth is not None for entry in entries)
    found = [
        KnownGood(
            entry.path, entry.expected, entry.truth is not None and entry.truth.of == "file", told
        )
        for entry in entries
        if not told or _is_good(entry)
    ]
    if not found:
        raise DataError(source, None, None, "no row is known to be good")
    return found


def _is_good(entry: Entry) -> bool:
    return entry.truth is not None and entry.truth.good


def goods_of(known: KnownGood, number: int, seed: int = 0) -> list[Good]:
    """Return what is made of one picture: itself, edited, enlarged, as a brand would have it.

    Args:
        known: The picture.
        number: Its place, which chooses the brand and the edit.
        seed: Which edits and masks.

    Returns:
        Each with the checks for which it is known to be good; nothing for a file that our decoder
        refuses, apart from the file itself.
    """
    name = known.path.name
    if known.file_only:
        return [Good(name, known.expected, known.path.read_bytes, judged=_FILE)]
    bare = Good(name, known.expected, known.path.read_bytes)
    if not bare.sound:
        return [replace(bare, judged=_FILE)]
    whole = replace(bare, expected=_asked(bare))
    every = frozenset(planted.check_names())
    others = _LOGO | _EDIT | _MASK | _UPSCALE | _BRAND_ONLY | {EXTRA}
    plain = replace(whole, judged=every - others | {CAST})
    brands = brand_names(DATASETS)
    logo = branded(whole, brands[number % len(brands)], _LOGO)
    untold = replace(whole, expected=replace(whole.expected, intended_text=()))
    edit = replace(edited_from(untold, seed, number), judged=_EDIT)
    mask = replace(masked(untold, seed), judged=_MASK)
    small = _reduced(whole)
    large = replace(enlarged(small), judged=_UPSCALE)
    # The baseline sent the same picture in another file.
    twin = replace(as_twin(whole), name=f"{name} beside the baseline", judged=_TWIN)
    brand = brand_of(brands[number % len(brands)])
    made = [in_colours(whole, brand), full(whole, brand), print_of(whole, brand, seed)]
    if whole.expected.intended_text:
        made.append(roomy(whole, brand))
    return [plain, logo, edit, mask, large, twin, *(good for good in made if good is not None)]


def _asked(good: Good) -> Expected:
    """Return what is expected of a picture, its own size and kind where nothing is."""
    expected, (height, width) = good.expected, good.rgb.shape[:2]
    sized = expected.width or expected.height or expected.aspect
    return replace(
        expected,
        width=expected.width if sized else width,
        height=expected.height if sized else height,
        aspect=expected.aspect if sized else width / height,
        prompt=expected.prompt or "a picture",
        declared_mime=expected.declared_mime or good.picture.mime,
    )


def _reduced(good: Good) -> Good:
    """Return a picture small enough to be enlarged, as PNG."""
    height, width = good.rgb.shape[:2]
    ratio = min(1.0, _SMALL / max(height, width))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    small: Pixels = good.rgb
    if ratio < 1:
        small = cv2.resize(good.rgb, size, interpolation=cv2.INTER_AREA).astype(small.dtype)
    return replace(good, make=functools.partial(encoded, small, "PNG"))


def measure_pictures(
    pictures: Sequence[KnownGood],
    *,
    seed: int = 0,
    checks: Collection[str] | None = None,
    curve: bool = False,
    workers: int | None = None,
    on_unit: Callable[[int], None] | None = None,
    on_left_out: Callable[[Path, str], None] = lambda *_: None,
) -> tuple[CheckHealth, ...]:
    """Plant every kind of defect in pictures, in processes of their own.

    Near-duplicates are looked for among the pictures of one part only.

    Args:
        pictures: The good pictures.
        seed: Same seed, same defects.
        checks: Names of the checks; all by default.
        curve: See :func:`tasks.checks.planted.measure`.
        workers: Processes; one a core by default.
        on_unit: Called with the number of pictures done after each part.
        on_left_out: Called with each picture that our decoder refuses and nobody calls good, or of
            which nothing can be made, and why.

    Raises:
        BrokenProcessPool: A process died.
    """
    places = range(0, len(pictures), _UNIT)
    names = None if checks is None else tuple(checks)
    most = max(1, min(workers or os.cpu_count() or 1, len(places)))
    whole: tuple[CheckHealth, ...] = ()
    with ProcessPoolExecutor(most, multiprocessing.get_context("spawn"), _one_thread) as pool:
        jobs = [
            pool.submit(_unit, tuple(pictures[at : at + _UNIT]), at, seed, names, curve)
            for at in places
        ]
        try:
            for number, job in enumerate(jobs, 1):
                found, left_out = job.result()
                whole = added(whole, found)
                for path, why in left_out:
                    on_left_out(path, why)
                if on_unit is not None:
                    on_unit(min(number * _UNIT, len(pictures)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return whole


def _one_thread() -> None:
    """Keep OpenCV to one thread in a process that is one of several."""
    cv2.setNumThreads(1)


def _unit(
    pictures: tuple[KnownGood, ...],
    first: int,
    seed: int,
    checks: tuple[str, ...] | None,
    curve: bool,
) -> tuple[tuple[CheckHealth, ...], list[tuple[Path, str]]]:
    wanted = None if checks is None else frozenset(checks)
    goods: list[Good] = []
    left_out: list[tuple[Path, str]] = []
    for place, known in enumerate(pictures, first):
        try:
            if not known.labelled:
                _whole(known)
            made = goods_of(known, place, seed)
        except Exception as error:  # noqa: BLE001 - of this picture; the others are measured
            own = isinstance(error, ValueError | OSError)
            what = str(error) if own else f"no defect can be planted in it ({error})"
            left_out.append((known.path, " ".join(what.split())[:200]))
            continue
        goods += [g for g in made if wanted is None or g.judged is None or g.judged & wanted]
    return planted.measure(goods, checks, seed=seed, curve=curve), left_out


def _whole(known: KnownGood) -> None:
    """Pass for a picture that our decoder takes.

    Raises:
        ValueError: It refuses it, for this reason.
    """
    data, size = read_file(known.path)
    found = decode(data, Expected(), size)
    if found.picture is None:
        raise ValueError(found.findings[0].message)
