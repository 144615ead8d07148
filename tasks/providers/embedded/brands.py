"""Brand kits as the server uses them: the kit with its logo decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tasks.inputs.brands import BrandKit, load_brand, logo_file
from tasks.providers.embedded.typeset import Rect


@dataclass(frozen=True)
class Brand:
    """One brand kit and its logo."""

    kit: BrandKit
    logo: Image.Image

    def place(self, width: int, height: int) -> Rect:
        """Return where the logo belongs in a picture of this size."""
        region = self.kit.logo_region(width, height, self.logo.width / self.logo.height)
        return Rect(region.x, region.y, region.x + region.width, region.y + region.height)

    def draw(self, image: Image.Image, where: Rect) -> None:
        """Draw the logo; parts outside the picture are cut off."""
        size = (max(where.width, 1), max(where.height, 1))
        small = self.logo.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        image.paste(small.convert("RGB"), (where.left, where.top), small.getchannel("A"))


class Brands:
    """Loads brand kits from a folder, each once.

    Args:
        folder: A folder named ``brands`` that holds the kits.
    """

    def __init__(self, folder: Path) -> None:
        self._datasets = folder.parent
        self._loaded: dict[str, Brand] = {}

    def get(self, name: str) -> Brand:
        """Return a brand.

        Raises:
            ConfigError: No such kit, or one that cannot be used.
        """
        if name not in self._loaded:
            kit = load_brand(name, self._datasets)
            # Our own file, from the checkout: no limits needed.
            with Image.open(logo_file(kit, self._datasets)) as logo:  # noqa: TID251
                self._loaded[name] = Brand(kit, logo.convert("RGBA"))
        return self._loaded[name]
