import json
import shutil
from collections import Counter

import pytest

from tasks.errors import ConfigError, DataError
from tasks.inputs.stress import draw_stress, load_stress
from tasks.records import Case
from tasks.settings import DATASETS

GOOD = {
    "case_id": "short-en-01",
    "prompt": 'a sign "Open"',
    "subtask": "typography",
    "locale": "en",
    "width": 512,
    "height": 512,
    "expected_text": ["Open"],
    "brand": None,
    "upload": None,
    "origin": "stress",
    "expect": "image",
    "theme": "short text",
}


@pytest.fixture
def datasets(tmp_path):
    for name in ("brands", "uploads"):
        shutil.copytree(DATASETS / name, tmp_path / name)
    (tmp_path / "stress").mkdir()
    return tmp_path


def write(datasets, *rows, name="a.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (datasets / "stress" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_good_line_becomes_a_case(datasets):
    write(datasets, GOOD, "", GOOD | {"case_id": "short-en-02", "prompt": "x\x00\u202e"})
    first, second = load_stress(datasets)
    assert first.expected_text == ("Open",)
    assert first.stratum == "short text/en"
    assert first.weight == 1.0
    assert second.prompt == "x\x00\u202e"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"case_id": "../x"}, "case_id"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "half a pair \ud800"}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"subtask": "paint"}, "subtask"),
        ({"locale": "English"}, "locale"),
        ({"width": "512"}, "width"),
        ({"height": 9000}, "height"),
        ({"expected_text": "Open"}, "expected_text"),
        ({"expected_text": [""]}, "expected_text.0"),
        ({"origin": "production"}, "origin"),
        ({"expect": "nothing"}, "expect"),
        ({"theme": ""}, "theme"),
        ({"extra": 1}, "extra"),
        ({"brand": "nobody"}, "brand"),
        ({"subtask": "edit", "upload": "../pyproject.toml"}, "upload"),
        ({"subtask": "edit", "upload": "/etc/passwd"}, "upload"),
        ({"subtask": "edit", "upload": "uploads/none.jpg"}, "upload"),
    ],
)
def test_bad_fields_are_named_with_file_and_row(datasets, change, field):
    write(datasets, GOOD, "", GOOD | {"case_id": "short-en-02"} | change)
    with pytest.raises(DataError) as caught:
        load_stress(datasets)
    assert caught.value.path.endswith("a.jsonl")
    assert caught.value.row == 3
    assert caught.value.field == field


@pytest.mark.parametrize("gone", [name for name in GOOD if name not in ("brand", "upload")])
def test_missing_fields_are_named(datasets, gone):
    write(datasets, {k: v for k, v in GOOD.items() if k != gone})
    with pytest.raises(DataError) as caught:
        load_stress(datasets)
    assert caught.value.field == gone


@pytest.mark.parametrize(
    "change",
    [{"subtask": "edit"}, {"upload": "uploads/dark-mug.jpg"}],
    ids=["no upload", "no edit"],
)
def test_uploads_go_with_edits(datasets, change):
    write(datasets, GOOD | change)
    with pytest.raises(DataError, match="only with it"):
        load_stress(datasets)


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"a": 1, "a": 2}', "[" * 100_000])
def test_lines_that_are_no_objects(datasets, line):
    write(datasets, GOOD, line)
    with pytest.raises(DataError, match="row 2"):
        load_stress(datasets)


def test_an_id_that_stands_twice_names_both_places(datasets):
    write(datasets, GOOD)
    write(datasets, GOOD, name="b.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl, row 1.*a\.jsonl, row 1"):
        load_stress(datasets)


def test_a_link_out_of_the_folder_is_refused(datasets, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    outside.write_bytes(b"x")
    (datasets / "uploads" / "link.jpg").symlink_to(outside)
    write(datasets, GOOD | {"subtask": "edit", "upload": "uploads/link.jpg"})
    with pytest.raises(DataError, match="must stay inside"):
        load_stress(datasets)


def test_no_files_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"make_stress\.py"):
        load_stress(tmp_path)


def test_bytes_that_are_not_utf8(datasets):
    (datasets / "stress" / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        load_stress(datasets)


def numbered(origin="stress"):
    return [
        Case(
            case_id=f"{theme}-{locale}-{n}",
            prompt="x",
            subtask="fast",
            locale=locale,
            theme=theme,
            origin=origin,
        )
        for theme, locales, size in (("big", ("en", "de", "fr"), 20), ("small", ("en",), 2))
        for locale in locales
        for n in range(size)
    ]


def test_drawing_spreads_over_themes_then_locales():
    drawn, notes = draw_stress(numbered(), {"stress": 10}, 3)
    assert notes == ()
    assert Counter(case.theme for case in drawn) == {"big": 8, "small": 2}
    in_big = Counter(case.locale for case in drawn if case.theme == "big")
    assert max(in_big.values()) - min(in_big.values()) <= 1


def test_drawing_depends_on_the_seed_alone():
    cases = numbered()
    one, _ = draw_stress(cases, {"stress": 10}, 3)
    assert draw_stress(list(reversed(cases)), {"stress": 10}, 3)[0] == one
    assert draw_stress(cases, {"stress": 10}, 4)[0] != one


def test_a_small_draw_is_part_of_a_larger_one():
    few, _ = draw_stress(numbered(), {"stress": 5}, 1)
    many, _ = draw_stress(numbered(), {"stress": 30}, 1)
    assert many[:5] == few


def test_asking_for_more_than_there_is_says_so():
    drawn, notes = draw_stress(numbered(), {"stress": 100, "adversarial": 1}, 3)
    assert len(drawn) == 62
    assert notes == (
        "asked for 100 stress cases, the stress set holds 62",
        "asked for 1 adversarial cases, the stress set holds 0",
    )
