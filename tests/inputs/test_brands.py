import json
import shutil

import pytest

from tasks.errors import ConfigError
from tasks.inputs.brands import brand_names, load_brand, logo_file, recolour_files
from tasks.settings import DATASETS


@pytest.fixture
def kits(tmp_path):
    shutil.copytree(DATASETS / "brands", tmp_path / "brands")
    return tmp_path


def rewrite(kits, **changes):
    file = kits / "brands" / "northwind" / "brand.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    for path, new in changes.items():
        at = value
        *parents, last = path.split("__")
        for parent in parents:
            at = at[parent]
        at[last] = new
    file.write_text(json.dumps(value), encoding="utf-8")


def test_shipped_kits_load():
    assert {"northwind", "solstice"} <= set(brand_names(DATASETS))
    for name in brand_names(DATASETS):
        kit = load_brand(name, DATASETS)
        assert kit.name == name
        assert logo_file(kit, DATASETS).is_file()


@pytest.mark.parametrize("size", [(512, 512), (640, 384), (384, 640), (17, 900)])
def test_logo_region_lies_in_its_corner_of_the_safe_area(size):
    kit = load_brand("solstice", DATASETS)
    safe, logo = kit.safe_region(*size), kit.logo_region(*size, 1.5)
    assert logo.x + logo.width == safe.x + safe.width
    assert logo.y + logo.height == safe.y + safe.height
    assert logo.x >= safe.x
    assert logo.y >= safe.y
    assert safe.x >= 0.05 * size[0]
    assert safe.x + safe.width <= 0.95 * size[0]


def test_colours_are_rgb():
    assert load_brand("northwind", DATASETS).colours[0] == (0x0B, 0x3C, 0x6F)


@pytest.mark.parametrize("name", ["../northwind", "North", "", "a/b", "northwind\n", "/etc"])
def test_name_cannot_leave_the_folder(name):
    with pytest.raises(ConfigError, match="small letters"):
        load_brand(name, DATASETS)


def test_unknown_kit_names_the_known():
    with pytest.raises(ConfigError, match="northwind"):
        load_brand("nobody", DATASETS)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"palette": ["red", "#FFFFFF"]}, "palette"),
        ({"name": "other"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"logo__file": "../logo.png"}, "logo.file"),
        ({"logo__file": "absent.png"}, "logo"),
        ({"logo__width": 0}, "logo.width"),
        ({"logo__position": "middle"}, "logo.position"),
        ({"safe_area__left": 0.95}, "left must be below right"),
        ({"safe_area__right": float("nan")}, "safe_area.right"),
        ({"schema_version": 2}, "schema_version"),
        ({"logo__place_tolerance": 0}, "place_tolerance"),
        ({"logo__recolours": ["white.png"]}, "white.png"),
        ({"logo__recolours": ["../white.png"]}, "recolours"),
        ({"layout__blank": 1.5}, "blank"),
        ({"layout__margins": 0.1}, "margins"),
        ({"layout__subject": {"left": 0.5, "top": 0, "right": 0.4, "bottom": 1}}, "left must be"),
    ],
)
def test_bad_kit_names_the_field(kits, changes, match):
    rewrite(kits, **changes)
    with pytest.raises(ConfigError, match=match):
        load_brand("northwind", kits)


def test_logo_wider_than_the_safe_area_is_refused(kits):
    rewrite(kits, safe_area={"left": 0.4, "top": 0.1, "right": 0.5, "bottom": 0.9})
    with pytest.raises(ConfigError, match="wider than the safe area"):
        load_brand("northwind", kits)


def test_logo_that_is_no_png_is_refused(kits):
    (kits / "brands" / "northwind" / "logo.png").write_bytes(b"GIF89a")
    with pytest.raises(ConfigError, match="not a PNG"):
        load_brand("northwind", kits)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"name": '])
def test_broken_json_is_a_config_error(kits, text):
    (kits / "brands" / "northwind" / "brand.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"brand\.json"):
        load_brand("northwind", kits)


def test_layout_rules_may_be_left_out(kits):
    file = kits / "brands" / "northwind" / "brand.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    del value["layout"]
    file.write_text(json.dumps(value), encoding="utf-8")
    layout = load_brand("northwind", kits).layout
    assert (layout.subject, layout.margin, layout.blank) == (None, None, None)
    assert layout.cut_off
    assert not layout.border


def test_recolours_are_files_of_the_kit(kits):
    rewrite(kits, logo__recolours=["logo.png"])
    kit = load_brand("northwind", kits)
    assert recolour_files(kit, kits) == (logo_file(kit, kits),)
