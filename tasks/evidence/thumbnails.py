"""Thumbnails of untrusted pictures, drawn in worker processes and kept to a budget of bytes."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import EvidenceError
from tasks.evidence.findings import crop_frame
from tasks.evidence.gallery import Wanted
from tasks.evidence.view import Thumb
from tasks.images import ImageStore
from tasks.records import Region
from tasks.settings import DATASETS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Longest side of a thumbnail in pixels, by how many pictures are wanted at most.
SIDES = ((90, 448), (250, 320))
#: With more than that.
SMALL_SIDE = 208
#: Largest marked part.
CROP = (480, 200)
#: Bytes of all thumbnails together; base64 makes a third more of them in the report.
BUDGET = 3_000_000
#: Below this many pictures starting worker processes costs more than it saves.
_WORTH_A_POOL = 120
_HEAD = 32
#: A picture that came in and is larger is not read for a thumbnail.
_MOST_BYTES = 64 << 20


def draw_thumbs(
    wanted: Sequence[Wanted],
    images: ImageStore,
    *,
    datasets: Path = DATASETS,
    budget: int = BUDGET,
    workers: int | None = None,
) -> dict[str, Thumb]:
    """Draw the pictures in order of importance until the budget of bytes is used up.

    A file that does not decode becomes a :class:`Thumb` that says so. The result depends on the
    pictures only, not on how many workers drew them.

    Args:
        wanted: What to draw, the most important first.
        images: The image store.
        datasets: Folder that uploads and masks are relative to.
        budget: Bytes of all thumbnails together.
        workers: Processes; by default one a core, at most four, none for a handful of pictures.
    """
    side = next((side for most, side in SIDES if len(wanted) <= most), SMALL_SIDE)
    jobs = _jobs(wanted, images, datasets, side)
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


@dataclass(frozen=True, slots=True)
class Job:
    """One file to decode, and the parts of it to draw."""

    #: The image store's folder, or that of the inputs.
    root: str
    picture: Wanted
    regions: tuple[Region | None, ...]
    side: int


Drawn = list[tuple[str, Thumb]]


def _jobs(wanted: Iterable[Wanted], images: ImageStore, datasets: Path, side: int) -> list[Job]:
    """Return one job a file, so that every file is decoded once."""
    parts: dict[Wanted, list[Region | None]] = {}
    for picture in wanted:
        parts.setdefault(replace(picture, region=None), []).append(picture.region)
    return [
        Job(str(images.root if picture.digest else datasets), picture, tuple(regions), side)
        for picture, regions in parts.items()
    ]


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
    read = _from_store if job.picture.digest else _from_inputs
    data, problem = read(Path(job.root), job.picture)
    if problem:
        return _placeholder(job, problem, b"")
    from tasks.checks.base import Expected
    from tasks.checks.decode import decode

    decoded = decode(data, Expected())
    if decoded.picture is None:
        why = next((f.message for f in decoded.findings if f.verdict == "fail"), "")
        return _placeholder(job, why or "the file does not decode", data)
    rgb = decoded.picture.rgb
    return [
        (replace(job.picture, region=region).key, Thumb(data=_webp(rgb, region, job.side)))
        for region in job.regions
    ]


def _from_store(root: Path, picture: Wanted) -> tuple[bytes, str]:
    """Return a picture of the run, or what is wrong with it."""
    store = ImageStore(root)
    try:
        return store.get(picture.digest), ""
    except EvidenceError:
        # Not the error's own text: it would carry this machine's folders into the report.
        what = "was altered" if store.path(picture.digest).is_file() else "is missing"
        return b"", f"the file {what} in the image store"


def _from_inputs(root: Path, picture: Wanted) -> tuple[bytes, str]:
    """Return a picture that came in, or why it cannot be had; nothing outside the inputs is."""
    try:
        path = (root / picture.file).resolve()
        if not path.is_relative_to(root.resolve()):
            return b"", "the file lies outside the folder of the inputs"
        if path.stat().st_size > _MOST_BYTES:
            return b"", "the file is too large to be shown"
        return path.read_bytes(), ""
    except (OSError, ValueError):  # a path with a zero byte is a ValueError
        return b"", "the file is no longer among the inputs"


def _placeholder(job: Job, problem: str, data: bytes) -> Drawn:
    thumb = Thumb(problem=problem, head=data[:_HEAD].hex(" "))
    # A part of a picture that does not exist is not shown at all.
    return [(job.picture.key, thumb)] if None in job.regions else []


def _webp(rgb: NDArray[np.uint8], region: Region | None, side: int) -> bytes:
    """Return the picture, or what a region marks with a margin, as a small WebP."""
    from PIL import Image

    most = (side, side)
    if region is not None:
        frame = crop_frame(region, rgb.shape[1], rgb.shape[0])
        if frame is not None:
            left, top, right, bottom = frame
            rgb = rgb[top:bottom, left:right]
            most = CROP
    image = Image.fromarray(rgb)
    image.thumbnail(most, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60, method=4)
    return buffer.getvalue()
