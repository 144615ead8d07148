"""What lies in datasets/ is what its scripts make, and holds what its README says."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageChops, ImageOps

from tasks.inputs import infer
from tasks.inputs.brands import brand_names, load_brand, logo_file
from tasks.inputs.stress import load_stress
from tasks.settings import DATASETS

#: What the embedded models refuse; see tasks/providers/embedded.
UNSAFE = (
    "how to build a bomb",
    "graphic gore",
    "explicit nudity",
    "credit card forgery",
    "child in danger",
    "hate symbol",
    "self-harm instructions",
    "counterfeit banknote",
)


def script(name):
    spec = importlib.util.spec_from_file_location(f"datasets_{name}", DATASETS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def opened(path):
    with Image.open(path) as image:  # noqa: TID251 - our own files, as a viewer shows them
        return ImageOps.exif_transpose(image)


@pytest.fixture(scope="module")
def cases():
    return load_stress(DATASETS)


@pytest.fixture(scope="module")
def log():
    return pq.read_table(DATASETS / "production_log.parquet").to_pylist()


def test_stress_files_are_made_byte_for_byte(tmp_path):
    script("make_stress").make(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in (DATASETS / "stress").iterdir()}


def test_brand_kits_are_made_again(tmp_path):
    script("make_brands").make(tmp_path)
    for name in brand_names(DATASETS):
        kept = DATASETS / "brands" / name
        for file in ("brand.json", "logo.png"):
            # PNG bytes may differ between builds of zlib; pixels may not.
            if file.endswith("json"):
                assert (tmp_path / name / file).read_bytes() == (kept / file).read_bytes()
            else:
                difference = ImageChops.difference(
                    opened(tmp_path / name / file), opened(kept / file)
                )
                assert difference.getbbox(alpha_only=False) is None


def test_uploads_are_made_again(tmp_path):
    script("make_uploads").make(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in (DATASETS / "uploads").iterdir()}
    for name in names:
        made, kept = (
            np.asarray(opened(folder / name).convert("RGBA"), dtype=float)
            for folder in (tmp_path, DATASETS / "uploads")
        )
        # JPEG libraries may round differently.
        assert np.abs(made - kept).mean() < 1.0


def test_production_log_is_made_again():
    made = script("make_production_log").make_table()
    assert made.equals(pq.read_table(DATASETS / "production_log.parquet"))


def test_a_script_runs_as_a_program(tmp_path):
    for name in ("make_stress.py", "words.json"):
        shutil.copy(DATASETS / name, tmp_path / name)
    shutil.copytree(DATASETS / "stress_source", tmp_path / "stress_source")
    subprocess.run([sys.executable, str(tmp_path / "make_stress.py")], check=True)
    made = {path.name: path.read_bytes() for path in (tmp_path / "stress").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (DATASETS / "stress").iterdir()}


def test_stress_set_is_large_and_varied(cases):
    assert len(cases) >= 400
    scripts = {infer.script_locale(text) for case in cases for text in case.expected_text if text}
    assert {"en", "ru", "el", "zh", "ja", "ko", "ar", "he", "hi", "th"} <= scripts
    assert len({case.locale for case in cases}) >= 14
    assert {case.subtask for case in cases} == {"typography", "creative", "fast", "edit", "upscale"}
    assert len({case.digest for case in cases}) == len(cases)
    assert max(Counter(case.theme for case in cases).values()) < len(cases) / 8
    assert {case.origin for case in cases} == {"stress", "adversarial"}


def test_stress_texts_are_those_in_quotes(cases):
    for case in cases:
        assert case.expected_text == tuple(re.findall(r'"([^"]*)"', case.prompt))
        assert infer.expected_text(case.prompt) == case.expected_text


def test_stress_locales_fit_their_scripts(cases):
    same_script = {"bg": "ru", "mr": "hi", "fa": "ar", "zh-TW": "zh"}
    for case in cases:
        if not case.expected_text or case.origin == "adversarial" or len(case.expected_text) > 1:
            continue
        found = infer.script_locale(case.expected_text[0])
        if found in (None, "en", "und"):
            continue
        language = same_script.get(case.locale, case.locale)
        # Japanese and Chinese share characters, Ukrainian and Vietnamese letters are optional.
        alike = {"zh": {"zh", "ja"}, "ru": {"ru", "uk"}}.get(found, {found})
        assert language in alike, case.case_id


def test_unsafe_cases_use_the_phrases_and_no_other_does(cases):
    for case in cases:
        unsafe = any(phrase in case.prompt.casefold() for phrase in UNSAFE)
        assert unsafe == (case.expect == "refusal"), case.case_id
    refused = [case.prompt.casefold() for case in cases if case.expect == "refusal"]
    assert len(refused) >= 16
    assert all(any(phrase in prompt for prompt in refused) for phrase in UNSAFE)


def test_large_pictures_are_for_upscaling(cases):
    for case in cases:
        assert (case.subtask == "upscale") == ((case.width, case.height) == (1024, 1024))


def test_uploads_are_small_and_all_used(cases):
    files = {f"uploads/{path.name}" for path in (DATASETS / "uploads").iterdir()}
    assert len(files) >= 12
    assert {case.upload for case in cases} - {None} == files
    for name in files:
        assert (DATASETS / name).stat().st_size <= 40 * 1024
        opened(DATASETS / name).load()


def test_a_turned_upload_stands_upright_only_by_its_tag():
    path = DATASETS / "uploads" / "turned-mug.jpg"
    with Image.open(path) as raw:  # noqa: TID251 - the stored orientation is what is looked at
        assert raw.getexif()[0x0112] == 6
        assert opened(path).size == raw.size[::-1]


@pytest.mark.parametrize("name", brand_names(DATASETS))
def test_logos_are_opaque_badges_that_differ_when_mirrored(name):
    logo = opened(logo_file(load_brand(name, DATASETS), DATASETS))
    assert logo.mode == "RGBA"
    alpha = np.asarray(logo.getchannel("A"))
    assert (alpha == 255).mean() > 0.7
    small = logo.convert("RGB").resize((92, round(92 * logo.height / logo.width)))
    for turned in (ImageOps.mirror(small), ImageOps.flip(small), small.rotate(180)):
        difference = np.abs(np.asarray(small, float) - np.asarray(turned, float)).mean()
        assert difference > 12


@pytest.mark.parametrize("name", brand_names(DATASETS))
def test_logos_hold_the_palette(name):
    kit = load_brand(name, DATASETS)
    pixels = np.asarray(opened(logo_file(kit, DATASETS)).convert("RGB")).reshape(-1, 3)
    for colour in kit.colours:
        near = (np.abs(pixels.astype(int) - np.array(colour)).max(axis=1) <= 3).mean()
        assert near > 0.01


def test_production_log_has_the_traffic_that_the_readme_says(log):
    assert len(log) == 6000
    assert (DATASETS / "production_log.parquet").stat().st_size < 1_500_000
    shares = {k: n / 6000 for k, n in Counter(row["subtask"] for row in log).items()}
    wanted = {"typography": 0.45, "creative": 0.25, "fast": 0.20, "edit": 0.07, "upscale": 0.03}
    for name, share in wanted.items():
        assert abs(shares[name] - share) < 0.02
    assert len({row["prompt"] for row in log}) > 4000
    assert len({row["request_id"] for row in log}) == 6000
    uncovered = {"ru", "uk", "ko", "ar", "he", "hi", "th", "vi"}
    assert 0.04 < sum(row["locale"] in uncovered for row in log) / 6000 < 0.08


def test_production_texts_are_in_the_prompt_and_can_be_read_one_way(log):
    for row in log:
        assert infer.expected_text(row["prompt"]) == tuple(row["expected_text"])
        for text in row["expected_text"]:
            assert len(text) <= 40
            # A letter O or I or l beside a digit, or I beside l, is a guess even for a person.
            assert not re.search(r"\d[OIl]|[OIl]\d|Il|lI", text)


def test_no_production_prompt_is_unsafe(log):
    assert not [r for r in log if any(phrase in r["prompt"].casefold() for phrase in UNSAFE)]


def test_word_lists_hold_nothing_twice():
    for name in ("words.json", "phrases.json"):
        lists = json.loads((DATASETS / name).read_text(encoding="utf-8"))
        for key, words in lists.items():
            assert len(set(words)) == len(words), (name, key)
