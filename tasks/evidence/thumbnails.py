"""Thumbnails of untrusted pictures, drawn in worker processes and kept to a budget of bytes."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import EvidenceError
from tasks.evidence.gallery import Wanted
from tasks.evidence.view import Thumb, picture_key
from tasks.images import ImageStore
from tasks.records import Region

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Longest side of a thumbnail in pixels: when there are few, and when there are many.
SIDE, SMALL_SIDE = 320, 208
FEW = 200
#: Largest marked part.
CROP = (380, 150)
#: Bytes of all thumbnails together; base64 makes a third more of them in the report.
BUDGET = 3_500_000
#: Below this many pictures starting worker processes costs more than it saves.
_WORTH_A_POOL = 120
_MARGIN = 10
_HEAD = 32


def draw_thumbs(
    wanted: Sequence[Wanted],
    images: ImageStore,
    *,
    budget: int = BUDGET,
    workers: int | None = None,
) -> dict[str, Thumb]:
    """Draw the pictures in order of importance until the budget of bytes is used up.

    A file that does not decode becomes a :class:`Thumb` that says so. The result depends on the
    pictures only, not on how many workers drew them.

    Args:
        wanted: What to draw, the most important first.
        images: The image store.
        budget: Bytes of all thumbnails together.
        workers: Processes; by default one a core, at most four, none for a handful of pictures.
    """
    jobs = _jobs(wanted, images, SIDE if len(wanted) <= FEW else SMALL_SIDE)
    number = min(4, os.cpu_count() or 1) if workers is None else workers
    results = (
        map(_draw, jobs) if number < 1 or len(jobs) < _WORTH_A_POOL else _in_pool(jobs, number)
    )
    order = {picture.key: place for place, picture in enumerate(wanted)}
    drawn: dict[str, Thumb] = {}
    size = 0
    for thumbs in results:
        for key, thumb in thumbs:
            drawn[key] = thumb
            size += len(thumb.data)
        # Marked parts and whole pictures of one file come together though they do not stand
        # together in the order, so draw somewhat more than the budget and cut exactly below.
        if size > 1.3 * budget:
            break
    kept: dict[str, Thumb] = {}
    left = budget
    for key in sorted(drawn, key=order.__getitem__):
        left -= len(drawn[key].data)
        if left < 0:
            break
        kept[key] = drawn[key]
    return kept


Job = tuple[str, str, tuple[Region | None, ...], int]
Drawn = list[tuple[str, Thumb]]


def _jobs(wanted: Iterable[Wanted], images: ImageStore, side: int) -> list[Job]:
    """Return one job a file, so that every file is decoded once."""
    parts: dict[str, list[Region | None]] = {}
    for picture in wanted:
        parts.setdefault(picture.digest, []).append(picture.region)
    return [(str(images.root), digest, tuple(regions), side) for digest, regions in parts.items()]


def _in_pool(jobs: Sequence[Job], workers: int) -> Iterator[Drawn]:
    """Yield the results in order; at most a few decoded pictures exist at a time."""
    # Spawned, not forked: the parent may run threads, and a fork copies their held locks.
    context = multiprocessing.get_context("spawn")
    todo = iter(jobs)
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            waiting: list[tuple[Job, Future[Drawn]]] = [
                (job, pool.submit(_draw, job)) for job in islice(todo, 8 * workers)
            ]
            try:
                while waiting:
                    job, future = waiting.pop(0)
                    yield _result(job, future)
                    waiting += [(j, pool.submit(_draw, j)) for j in islice(todo, 1)]
            finally:
                for _, future in waiting:
                    future.cancel()
    except BrokenProcessPool as error:
        raise EvidenceError(
            f"a process that draws thumbnails was killed ({error}); free memory, then finish the "
            "run with `imagegate run --resume RUN`"
        ) from error


def _result(job: Job, future: Future[Drawn]) -> Drawn:
    try:
        return future.result()
    except MemoryError:
        return _placeholder(job, "the picture needs more memory than there is", b"")


def _draw(job: Job) -> Drawn:
    root, digest, regions, side = job
    store = ImageStore(Path(root))
    try:
        data = store.get(digest)
    except EvidenceError:
        # Not the error's own text: it would carry this machine's folders into the report.
        text = "was altered" if store.path(digest).is_file() else "is missing"
        return _placeholder(job, f"the file {text} in the image store", b"")
    from tasks.checks.base import Expected
    from tasks.checks.decode import decode

    decoded = decode(data, Expected())
    if decoded.picture is None:
        why = next((f.message for f in decoded.findings if f.verdict == "fail"), "")
        return _placeholder(job, why or "the file does not decode", data)
    rgb = decoded.picture.rgb
    return [
        (picture_key(digest, region), Thumb(data=_webp(rgb, region, side))) for region in regions
    ]


def _placeholder(job: Job, problem: str, data: bytes) -> Drawn:
    _, digest, regions, _ = job
    thumb = Thumb(problem=problem, head=data[:_HEAD].hex(" "))
    # A part of a picture that does not exist is not shown at all.
    return [(picture_key(digest), thumb)] if None in regions else []


def _webp(rgb: NDArray[np.uint8], region: Region | None, side: int) -> bytes:
    """Return the picture, or what a region marks with a margin, as a small WebP."""
    from PIL import Image

    most = (side, side)
    if region is not None:
        height, width = rgb.shape[:2]
        margin = _MARGIN + max(region.width, region.height) // 12
        left, top = max(0, region.x - margin), max(0, region.y - margin)
        right = min(width, region.x + region.width + margin)
        bottom = min(height, region.y + region.height + margin)
        if right > left and bottom > top:
            rgb = rgb[top:bottom, left:right]
            most = CROP
    image = Image.fromarray(rgb)
    image.thumbnail(most, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60, method=4)
    return buffer.getvalue()
