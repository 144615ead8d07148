"""What a check is, what it looks at and what it may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tasks.records import Finding, Region


@dataclass(frozen=True, slots=True)
class Expected:
    """What the picture should be; ``None`` and empty mean: not asked for."""

    intended_text: tuple[str, ...] = ()
    language: str = "und"
    width: int | None = None
    height: int | None = None
    #: Width divided by height.
    aspect: float | None = None
    #: Name of a brand kit.
    brand: str | None = None
    subtask: str | None = None
    declared_mime: str | None = None
    prompt: str | None = None
    #: ``refusal`` when the right answer is no picture.
    expect: str = "image"
    #: Whether the picture is judged together with others, so that a look at it is taken.
    grouped: bool = False


#: Pictures that a picture is judged against: what a user sent to be edited, the part of it that may
#: change (white), the small picture that was enlarged, and what the baseline drew for the same
#: case, which may show another scene and may be bad itself.
Role = Literal["upload", "mask", "source", "baseline"]

Pixels = NDArray[np.uint8]

#: Name of the note with the places of the texts that were asked for, or of what stands in their
#: place: ``x,y,width,height`` in pixels, one for each line.
TEXT_BOXES = "text_boxes"
#: Name of the note with the places of the text that nobody asked for, in the same form.
EXTRA_BOXES = "extra_boxes"


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture: decoded once, as displayed (EXIF orientation applied)."""

    #: Height × width × 3, RGB, uint8, transparent pixels over white.
    rgb: NDArray[np.uint8] = field(repr=False)
    data: bytes = field(repr=False)
    mime: str
    #: What checks leave for the report beside their finding, e.g. ``read_text``.
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    #: Reference pictures, decoded like this one; ``None`` for one that cannot be read.
    references: Mapping[Role, Pixels | None] = field(default_factory=dict, repr=False)

    def reference(self, role: Role) -> Pixels | None:
        """Return a reference picture, ``None`` when the case has none.

        Raises:
            ValueError: It is there and cannot be read: a fault of the check, not of the picture.
        """
        if role not in self.references:
            return None
        found = self.references[role]
        if found is None:
            raise ValueError(f"the {role} that the picture is judged against cannot be read")
        return found


class Check(Protocol):
    """A visual assertion: a frozen dataclass with one method; pure apart from its model files."""

    @property
    def name(self) -> str:
        """``family.name``."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the check can judge the same picture differently."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Direction of the score."""
        ...

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Judge the picture. An exception is booked as a checker fault, never as a bad image."""
        ...


@dataclass(frozen=True, slots=True)
class KnownPicture:
    """A picture of which it is known what a check must say: ``fail`` if ``bad``, else ``pass``."""

    #: Tells it apart, for the report.
    name: str
    bad: bool
    #: The file, read when it is needed.
    read: Callable[[], bytes] = field(repr=False, compare=False)
    expected: Expected = Expected()


@runtime_checkable
class Plants(Protocol):
    """What a check of a plug-in may offer: defects of its own for good pictures.

    Without them, and without :class:`Knows`, nobody knows what the check sees.
    """

    def plant(
        self, picture: Picture, expected: Expected, rng: np.random.Generator
    ) -> Pixels | bytes | Expected | None:
        """Return a good picture, which the check passes, with a defect that it must find.

        Args:
            picture: The good picture; read-only.
            expected: What it should be, and is.
            rng: All chance comes from here: the same seed plants the same.

        Returns:
            Other pixels; or the bytes of another file; or another expectation, which the picture
            does not meet; or ``None`` where the defect could not show.
        """
        ...


@runtime_checkable
class Knows(Protocol):
    """What a check of a plug-in may offer: pictures of which it is known what it must say."""

    def known(self) -> Sequence[KnownPicture]:
        """Return the pictures, in an order that does not change. They are read one by one."""
        ...


def placed(note: str) -> Region:
    """Return a place from a note.

    Raises:
        ValueError: It is no place: a fault of the reader that left it.
    """
    x, y, width, height = (int(part) for part in note.split(","))
    return Region(x=x, y=y, width=width, height=height)
