"""Brand kits: palette, logo and layout rules that the pictures of a brand keep to.

A kit is the folder ``datasets/brands/<name>`` with ``brand.json`` and the logo as PNG. Lengths
are fractions of the picture, so that one kit serves every size.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.errors import ConfigError, known
from tasks.policy import Strict, parse_strict
from tasks.records import Region

_NAME = re.compile(r"[a-z0-9-]+\Z")
_PNG = b"\x89PNG\r\n\x1a\n"

Colour = Annotated[str, Field(pattern=r"^#[0-9A-F]{6}$")]
_FILE = r"^[a-z0-9][a-z0-9_-]*\.png$"
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


class Logo(Strict):
    """The logo, the corner it belongs to and its width as a fraction of the picture's width."""

    file: str = Field(pattern=_FILE)
    position: Corner
    width: float = Field(gt=0.02, le=0.6)
    #: How far its middle may be from its place, as a fraction of the picture's width; without it
    #: any place in its corner of the safe area will do.
    place_tolerance: float | None = Field(default=None, gt=0, le=0.5)
    #: How much wider or narrower it may be, as a fraction of its width; without it any size that
    #: is found will do.
    size_tolerance: float | None = Field(default=None, gt=0, le=0.5)
    #: Files of the same shape in other colours that may stand in its place, e.g. all white.
    recolours: tuple[Annotated[str, Field(pattern=_FILE)], ...] = Field(default=(), max_length=8)


class SafeArea(Strict):
    """The part of the picture that no crop or overlay hides, as fractions from the upper left."""

    left: float = Field(ge=0, lt=1)
    top: float = Field(ge=0, lt=1)
    right: float = Field(gt=0, le=1)
    bottom: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _has_area(self) -> SafeArea:
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("left must be below right and top below bottom")
        return self


class Layout(Strict):
    """How pictures of the brand are laid out; a rule that is left out is not asked for."""

    #: Where the subject stays, where one stands out.
    subject: SafeArea | None = None
    #: Whether the frame may cut the subject off.
    cut_off: bool = True
    #: Least distance of text from the edges, as a fraction of the shorter side.
    margin: float | None = Field(default=None, gt=0, lt=0.4)
    #: Largest plain rectangle, as a fraction of the picture.
    blank: float | None = Field(default=None, gt=0, lt=1)
    #: Whether a border around the picture belongs to the design.
    border: bool = False


class BrandKit(Strict):
    """Palette, logo, safe area and layout of one brand."""

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9-]+$", max_length=64)
    palette: tuple[Colour, ...] = Field(min_length=2, max_length=12)
    logo: Logo
    safe_area: SafeArea
    layout: Layout = Layout()

    @model_validator(mode="after")
    def _fits(self) -> BrandKit:
        if self.logo.width > self.safe_area.right - self.safe_area.left:
            raise ValueError(f"logo.width ({self.logo.width}) is wider than the safe area")
        return self

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """The palette as RGB, 0 to 255."""
        return tuple((int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in self.palette)

    def safe_region(self, width: int, height: int) -> Region:
        """Return the safe area of a picture of this size, in whole pixels inside it."""
        left, top = -int(-self.safe_area.left * width // 1), -int(-self.safe_area.top * height // 1)
        right, bottom = int(self.safe_area.right * width), int(self.safe_area.bottom * height)
        return Region(x=left, y=top, width=right - left, height=bottom - top)

    def logo_region(self, width: int, height: int, logo_aspect: float) -> Region:
        """Return where the logo stands in a picture of this size: in its corner of the safe area.

        Args:
            width: Width of the picture in pixels.
            height: Height of the picture in pixels.
            logo_aspect: Width divided by height of the logo's file.
        """
        safe = self.safe_region(width, height)
        logo_width = max(1, min(round(self.logo.width * width), safe.width))
        logo_height = max(1, min(round(logo_width / logo_aspect), safe.height))
        x = safe.x if "left" in self.logo.position else safe.x + safe.width - logo_width
        y = safe.y if "top" in self.logo.position else safe.y + safe.height - logo_height
        return Region(x=x, y=y, width=logo_width, height=logo_height)


def brand_names(datasets: Path) -> tuple[str, ...]:
    """Return the names of the kits in ``datasets/brands``, sorted."""
    return tuple(sorted(p.parent.name for p in (datasets / "brands").glob("*/brand.json")))


def load_brand(name: str, datasets: Path) -> BrandKit:
    """Read a brand kit.

    Args:
        name: Name of the kit: small letters, digits and hyphens, so that it cannot leave the
            folder.
        datasets: The folder that holds ``brands/``.

    Raises:
        ConfigError: No such kit, a bad ``brand.json``, or a logo that is missing or no PNG.
    """
    where = datasets / "brands"
    if not _NAME.match(name):
        raise ConfigError(f"brand {name!r}: a name has only small letters, digits and hyphens")
    file = where / name / "brand.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"brand {name!r}: no such kit in {where} {known(brand_names(datasets))}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON: {error}") from None
    kit = parse_strict(BrandKit, value, file)
    if kit.name != name:
        raise ConfigError(f"{file}: field 'name': must be the folder's name {name!r}")
    for path in (logo_file(kit, datasets), *recolour_files(kit, datasets)):
        _check_logo(path)
    return kit


def logo_file(kit: BrandKit, datasets: Path) -> Path:
    """Return the path of the kit's logo."""
    return datasets / "brands" / kit.name / kit.logo.file


def recolour_files(kit: BrandKit, datasets: Path) -> tuple[Path, ...]:
    """Return the paths of the logo's other colours."""
    return tuple(datasets / "brands" / kit.name / file for file in kit.logo.recolours)


def _check_logo(path: Path) -> None:
    """Refuse a logo that no reader could open later, when the run has already spent."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_PNG))
    except OSError as error:
        raise ConfigError(f"{path}: the logo cannot be read: {error.strerror or error}") from None
    if head != _PNG:
        raise ConfigError(f"{path}: the logo is not a PNG file")
