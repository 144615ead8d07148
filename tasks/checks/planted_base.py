"""What a planted defect is made of: a good picture, what is done to it, and the check to see it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from PIL import Image

from tasks.checks.base import Expected, Picture, Pixels, Role
from tasks.providers.embedded.brands import Brand
from tasks.providers.embedded.render import Job, png, render
from tasks.records import CheckVerdict

T = TypeVar("T")


@dataclass(frozen=True)
class Good:
    """A picture known to be good, with what it should be.

    ``job`` is there when the picture is one of our own drawings: then a defect of the text, the
    logo or the palette is drawn, as a model would draw it, not painted over.
    """

    name: str
    expected: Expected
    #: Returns the bytes of the file; called when the file is needed, and once.
    make: Callable[[], bytes] = field(repr=False)
    job: Job | None = field(default=None, repr=False)
    #: The brand whose logo stands in the picture, and, where ``job`` is missing, the file before
    #: the logo was put there.
    brand: Brand | None = field(default=None, repr=False)
    under: bytes | None = field(default=None, repr=False)
    references: Mapping[Role, bytes] = field(default_factory=dict, repr=False)
    #: The pictures beside which it is judged, where it is one of a group.
    beside: tuple[bytes, ...] = field(default=(), repr=False)
    #: Checks for which the picture is known to be good; ``None`` for all.
    judged: frozenset[str] | None = None
    #: What checks said of the picture as it is; filled by whoever asks them first. A picture made
    #: from this one starts without.
    verdicts: dict[str, CheckVerdict] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    #: What was made of the picture, by kind; see :meth:`once`.
    made: dict[str, Good] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, kind: str, make: Callable[[Good], Good]) -> Good:
        """Return what is made of the picture, made and judged only once for all defects."""
        if kind not in self.made:
            self.made[kind] = make(self)
        return self.made[kind]

    @cached_property
    def data(self) -> bytes:
        """The bytes of the file."""
        return self.make()

    @cached_property
    def picture(self) -> Picture:
        """The decoded picture.

        Raises:
            ValueError: It does not decode: no good picture.
        """
        from tasks.checks.decode import decode

        found = decode(self.data, Expected())
        if found.picture is None:
            raise ValueError(f"{self.name} is no good picture: {found.findings[0].message}")
        return found.picture

    @property
    def sound(self) -> bool:
        """Whether it decodes; a label may call a file good that our decoder refuses."""
        try:
            return self.picture is not None
        except ValueError:
            return False

    @property
    def rgb(self) -> Pixels:
        """The pixels, height × width × 3."""
        return self.picture.rgb

    def speaks_of(self, check: str) -> bool:
        """Say whether the picture is known to be good for a check."""
        return self.judged is None or check in self.judged

    def planted(self, pixels: Pixels) -> Planted:
        """Return a changed picture as a file, still expected to be what the good one is."""
        return self.sent(png(np.ascontiguousarray(pixels)))

    def sent(self, data: bytes, **changes: object) -> Planted:
        """Return other bytes with the same expectation, apart from ``changes``."""
        expected = replace(self.expected, **changes)  # type: ignore[arg-type]
        return Planted(data, expected, self.references, self.beside, of=self)

    @property
    def whole(self) -> Planted:
        """The picture as it is, as checks are shown what is planted."""
        return Planted(self.data, self.expected, self.references, self.beside)

    def redrawn(self, **changes: object) -> Planted:
        """Return our own drawing drawn again with ``changes`` to its job.

        Raises:
            ValueError: The picture is not our own.
        """
        if self.job is None:
            raise ValueError(f"{self.name} cannot be drawn again")
        return self.sent(render(replace(self.job, **changes)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Planted:
    """A picture known to be bad, with what it should be."""

    data: bytes = field(repr=False)
    expected: Expected
    references: Mapping[Role, bytes] = field(default_factory=dict, repr=False)
    #: Pictures that came before, for checks that compare pictures of a run.
    earlier: tuple[bytes, ...] = field(default=(), repr=False)
    #: The good picture it was planted in, where a defect first makes one of another kind: an edit,
    #: an enlargement.
    of: Good | None = field(default=None, repr=False, compare=False)


#: Plants one defect at a strength above 0 up to 1; ``None`` where it cannot show on the picture.
Plant = Callable[[Good, float, np.random.Generator], Planted | None]


@dataclass(frozen=True)
class Defect:
    """One kind of defect.

    Args:
        name: Short, in the words of the report.
        check: The check that must say ``fail``.
        strength: The default: the weakest that a person at a glance would not accept.
        plant: Plants it.
        scale: What strength means, for the table.
        curve: Strengths at which the sensitivity is measured for the curve.
    """

    name: str
    check: str
    strength: float
    plant: Plant = field(repr=False)
    scale: str
    curve: tuple[float, ...]

    def __post_init__(self) -> None:
        for value in (self.strength, *self.curve):
            if not 0 < value <= 1:
                raise ValueError(
                    f"defect {self.name!r}: a strength is above 0 up to 1; got {value}"
                )

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths of the curve with the default among them, weakest first."""
        return tuple(sorted({self.strength, *self.curve}))


def encoded(pixels: Pixels, kind: str, **options: object) -> bytes:
    """Return pixels as a file of another kind."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, kind, **options)
    return out.getvalue()


def choice(options: Sequence[T], rng: np.random.Generator) -> T:
    """Return one of the options, with their own type."""
    return options[int(rng.integers(len(options)))]
