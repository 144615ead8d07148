import dataclasses
import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.fft import dctn
from skimage.color import rgb2lab

from tasks.providers.embedded import defects, render, scene
from tasks.providers.embedded.brands import Brands
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.models import MODELS, Fault
from tasks.providers.embedded.render import Job
from tasks.providers.embedded.retouch import MAX_BYTES, UploadError, improved, open_upload
from tasks.providers.embedded.typeset import Rect


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    """A brand kit of this test's own."""
    folder = tmp_path_factory.mktemp("datasets") / "brands"
    (folder / "acme").mkdir(parents=True)
    logo = Image.new("RGBA", (120, 80), (200, 30, 40, 255))
    ImageDraw.Draw(logo).ellipse((10, 10, 70, 70), fill=(255, 255, 255, 255))
    logo.save(folder / "acme" / "logo.png")
    (folder / "acme" / "brand.json").write_text(
        '{"schema_version": 1, "name": "acme", "palette": ["#C81E28", "#14507A", "#F4F0E6"],'
        ' "logo": {"file": "logo.png", "position": "bottom-left", "width": 0.2},'
        ' "safe_area": {"left": 0.05, "top": 0.05, "right": 0.95, "bottom": 0.95}}'
    )
    return Brands(folder).get("acme")


def job(**changes):
    base = Job(MODELS["folio-2"], 'A mug, "Grand Opening"', 5, 320, 320, ("Grand Opening",))
    return dataclasses.replace(base, **changes)


def pixels(data):
    # Judged by a decoder that is not the gate's own.
    with Image.open(io.BytesIO(data)) as image:  # noqa: TID251
        image.load()
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_png_is_lossless():
    noise = generator("x").integers(0, 256, (37, 53, 3), dtype=np.uint8)
    assert np.array_equal(pixels(render.png(noise)), noise)


def test_the_same_job_gives_the_same_bytes_and_another_seed_others():
    assert render.render(job()) == render.render(job())
    assert render.render(job()) != render.render(job(seed=6))
    assert render.render(job()) != render.render(job(spec=MODELS["folio-1"]))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (2048, 64), (64, 2048), (333, 517)])
def test_picture_has_the_size_asked_for(acme, width, height):
    found = pixels(render.render(job(width=width, height=height, brand=acme)))
    assert found.shape == (height, width, 3)


def fingerprint(rgb):
    grey = Image.fromarray(rgb).convert("L").resize((64, 64), Image.Resampling.BILINEAR)
    low = dctn(np.asarray(grey, float), norm="ortho")[:16, :16].ravel()
    return low > np.median(low[1:])


def test_pictures_of_different_prompts_are_no_near_duplicates():
    prints = [
        fingerprint(pixels(render.render(job(prompt=f'Poster {i} "Grand Opening"', seed=1))))
        for i in range(40)
    ]
    assert min(int(np.sum(a != b)) for a, b in combinations(prints, 2)) > 55


def test_a_good_picture_is_neither_flat_nor_cast():
    for i in range(20):
        rgb = pixels(render.render(job(prompt=f"a vase number {i}", text=())))
        assert rgb.std() > 12
        lab = rgb2lab(rgb[::4, ::4])
        assert np.abs(lab[..., 1:].mean(axis=(0, 1))).max() < 45


def test_every_cast_moves_the_mean_colour():
    rgb = pixels(render.render(job(text=())))
    before = rgb2lab(rgb)[..., 1:].mean(axis=(0, 1))
    for seed in range(12):
        after = rgb2lab(defects.cast(rgb, generator(seed)))[..., 1:].mean(axis=(0, 1))
        assert np.hypot(*(after - before)) > 8


def test_logo_stands_in_its_corner_inside_the_safe_area(acme):
    rgb = pixels(render.render(job(width=400, height=300, brand=acme, text=())))
    place = acme.place(400, 300)
    assert place.left >= 20
    assert place.bottom <= 285
    assert place.top > 150
    logo = np.asarray(acme.logo.convert("RGB").resize((place.width, place.height)), int)
    shown = rgb[place.top : place.bottom, place.left : place.right].astype(int)
    assert np.abs(shown - logo).mean() < 8
    gone = pixels(
        render.render(job(width=400, height=300, brand=acme, text=(), fault=Fault.LOGO_MISSING))
    )
    there = gone[place.top : place.bottom, place.left : place.right].astype(int)
    assert np.abs(there - logo).mean() > 25


@pytest.mark.parametrize("seed", range(6))
def test_logo_outside_leaves_the_safe_area(acme, seed):
    moved = defects.outside(acme.place(400, 300), 400, 300, generator(seed))
    assert moved.left < 20
    assert moved.bottom > 285
    assert moved.right > 0
    assert moved.top < 300


def test_text_and_logo_never_touch(acme):
    for seed in range(60):
        rng = generator(seed)
        area = Rect(0, 0, 0, 0)
        place = acme.place(480, 360)
        plan = render._plan(
            job(width=480, height=360, brand=acme, seed=seed), rng, scene.palette(rng), place
        )
        area = plan.panel
        assert area.bottom <= place.top or area.left >= place.right
        assert scene.contrast(plan.plate, plan.ink) >= 7


@pytest.mark.parametrize(
    "fault", [Fault.LETTERS_SWAPPED, Fault.LETTERS_DROPPED, Fault.MISSING_GLYPHS]
)
def test_text_faults_change_the_letters(fault):
    good, bad = render.render(job()), render.render(job(fault=fault))
    assert good != bad
    text = ("Summer Sale", "Only today")
    rng = generator("harm")
    if fault is Fault.LETTERS_SWAPPED:
        changed = defects.swap_letters(text, rng)
        assert sorted("".join(changed)) == sorted("".join(text))
    elif fault is Fault.LETTERS_DROPPED:
        changed = defects.drop_letter(text, rng)
        assert len("".join(changed)) == len("".join(text)) - 1
    else:
        changed = defects.miss_glyphs(text, rng)
        assert render.missing(changed) >= 4
    assert changed != text


def test_faults_of_the_file():
    good = render.render(job())
    cut = render.render(job(fault=Fault.TRUNCATED))
    assert good.startswith(cut)
    assert len(cut) < 0.85 * len(good)
    with pytest.raises(OSError, match="trunc"):
        pixels(cut)
    with pytest.raises(OSError, match="cannot identify"):
        pixels(render.render(job(fault=Fault.INVALID_HEADER)))


def test_faults_of_the_whole_picture():
    assert pixels(render.render(job(fault=Fault.BLANK))).std() == 0
    height, width = pixels(render.render(job(fault=Fault.WRONG_ASPECT))).shape[:2]
    assert abs(width / height - 1) > 0.2
    blurred = pixels(render.render(job(fault=Fault.FILTERED))).astype(int)
    assert np.abs(np.diff(blurred, axis=0)).max() < 12


@pytest.mark.parametrize("text", ["x" * 20_000, "word " * 4000, "字" * 5000, "\n" * 50 + "a"])
def test_any_amount_of_text_is_rendered(text):
    assert pixels(render.render(job(text=(text,)))).shape == (320, 320, 3)


# --- uploads


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_upload_is_opened_upright_over_white():
    clear = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    assert open_upload(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_upload(encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (4, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(40),
        b"\x89PNG\r\n\x1a\n" + bytes(60),
        encoded(Image.new("RGB", (64, 64)))[:60],
        bytes(MAX_BYTES + 1),
        encoded(Image.new("1", (5000, 4001))),
        encoded(Image.new("RGB", (64, 64)), "BMP"),
    ],
)
def test_bad_upload_is_refused(data):
    with pytest.raises(UploadError):
        open_upload(data)


def test_edit_brightens_the_dark_and_takes_the_cast_out():
    rng = generator("dark")
    scene_px = pixels(render.render(job(prompt="a chair", text=())))
    dark = (defects.cast(scene_px, generator(1)) * 0.2).astype(np.uint8)
    better = np.asarray(improved(Image.fromarray(dark), 320, 320, "Brighten it", rng))
    assert better.mean() > dark.mean() * 2
    grey = np.full((60, 60, 3), (160, 130, 90), np.uint8)
    grey[20:40, 20:40] //= 2
    mended = np.asarray(improved(Image.fromarray(grey), 60, 60, "fix the colours", rng))
    assert np.abs(rgb2lab(mended)[..., 1:].mean(axis=(0, 1))).max() < 4


def test_edit_sets_text_on_the_upload():
    upload = Image.fromarray(pixels(render.render(job(prompt="a lamp", text=()))))
    plain = render.render(job(prompt="brighter", text=(), upload=upload))
    lettered = render.render(job(prompt="brighter", text=("Fresh",), upload=upload))
    assert plain != lettered
    assert pixels(plain).shape == (320, 320, 3)


def test_real_brand_kits_render():
    folder = Path(__file__).parents[3] / "datasets" / "brands"
    names = [file.parent.name for file in folder.glob("*/brand.json")]
    assert {"northwind", "solstice"} <= set(names)
    brands = Brands(folder)
    for name in names:
        assert pixels(render.render(job(brand=brands.get(name)))).shape == (320, 320, 3)
