"""What a replay stands on: entries, each a request and what came of it; which one fits; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.policy import Strict
from tasks.providers.base import GenerationRequest
from tasks.records import FailureClass, Operation, digest_bytes

Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or not value.isprintable():
        raise ValueError("must name a file below the manifest's folder, without '..'")
    return value


class Picture(Strict):
    """One file and the digest that its bytes must have."""

    file: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_inside)]
    sha256: Sha256


class Entry(Strict):
    """A request and what came of it. What is not given fits every request."""

    prompt: str
    operation: Operation | None = None
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    locale: str | None = None
    brand: str | None = None
    seed: int | None = None
    #: Digest of the picture that was edited or enlarged.
    upload: Sha256 | None = None
    #: Several are samples of one request: the seed chooses.
    pictures: tuple[Picture, ...] = ()
    #: Without a picture: why there is none.
    failure: FailureClass | None = None
    message: str = Field(default="", max_length=1_000)
    #: How long it took when it was made. Seconds.
    latency_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_an_end(self) -> Entry:
        if bool(self.pictures) == (self.failure is not None):
            raise ValueError("needs either pictures or the failure that there was instead")
        return self


class Manifest(Strict):
    """The file ``replay.json`` of a folder of pictures made elsewhere."""

    schema_version: Literal[1] = 1
    #: Who made the pictures, with what and when; for the reader.
    source: str = Field(min_length=1, max_length=1_000)
    entries: tuple[Entry, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Made:
    """An entry in memory; its pictures by file or by digest alone."""

    entry: Entry
    #: The seed that a recorded run used: it tells apart what fits otherwise.
    recorded_seed: int | None = None


@dataclass(frozen=True, slots=True)
class Tape:
    """All entries, by prompt, and the digest of the manifest that pins them."""

    digest: str
    by_prompt: Mapping[str, tuple[Made, ...]] = field(repr=False)


def tape(digest: str, made: Iterable[Made]) -> Tape:
    """Return entries ready for looking up."""
    by_prompt: dict[str, list[Made]] = {}
    for each in made:
        by_prompt.setdefault(each.entry.prompt, []).append(each)
    return Tape(digest, {prompt: tuple(found) for prompt, found in by_prompt.items()})


_FIELDS = ("operation", "width", "height", "locale", "brand", "seed")


def find(tape_: Tape, request: GenerationRequest) -> Entry | str:
    """Return the entry that a request is answered from, or why there is none.

    The entry that says most about the request counts. Two that say as much, and have different
    ends, are no answer: a picture of another request would be judged in its place.
    """
    there = tape_.by_prompt.get(request.prompt, ())
    upload = digest_bytes(request.image) if request.image is not None else None
    fitting = [(score, each) for each in there if (score := _score(each.entry, request, upload))]
    if not fitting:
        what = f"{request.operation} {request.width}x{request.height} {request.locale!r}"
        if there:
            return f"{len(there)} entries have this prompt, none is of {what}"
        return f"no entry has this prompt ({what})"
    most = max(score for score, _ in fitting)
    best = [each for score, each in fitting if score == most]
    ends = {(each.entry.pictures, each.entry.failure) for each in best}
    if len(ends) > 1:
        best = [each for each in best if each.recorded_seed == request.seed]
        if len({(each.entry.pictures, each.entry.failure) for each in best}) != 1:
            return f"{len(ends)} entries fit this request and differ in their pictures"
    return best[0].entry


def _score(entry: Entry, request: GenerationRequest, upload: str | None) -> int:
    """Return how much an entry says about a request, 0 when it is of another one."""
    said = 1
    for name in _FIELDS:
        wanted = getattr(entry, name)
        if wanted is not None:
            if wanted != getattr(request, name):
                return 0
            said += 1
    if entry.upload is not None:
        return said + 1 if entry.upload == upload else 0
    return said


def sample(entry: Entry, seed: int) -> Picture:
    """Return the picture of an entry for a seed; the same seed, the same picture."""
    return entry.pictures[seed % len(entry.pictures)]
