import math
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, DataError
from tasks.inputs.rows import (
    FIELDS,
    MAX_PROMPT,
    BadRow,
    LogRow,
    RowReader,
    map_columns,
    read_rows,
)
from tasks.records import Case
from tasks.settings import DATASETS

READER = RowReader(DATASETS)


def raw(prompt="a cat", **values):
    fields = {"prompt": prompt, **values}
    assert set(fields) <= set(FIELDS)
    return 1, tuple(fields.get(name) for name in FIELDS)


def read(*args, **values):
    return READER.read(raw(*args, **values))


def test_prompt_alone_is_enough():
    row = read("a cat")
    assert row == LogRow("a cat", "fast", "en", 512, 512, (), None, None, "image", None)


def test_named_values_win_over_inference():
    row = read(
        'sign "Open"',
        subtask="creative",
        locale="pt_BR",
        width=640,
        height=384.0,
        expected_text=["A", "B"],
        brand="northwind",
        expect="refusal",
        request_id=7,
    )
    assert row == LogRow(
        'sign "Open"', "creative", "pt-BR", 640, 384, ("A", "B"), "northwind", None, "refusal", "7"
    )


def test_empty_list_of_texts_says_no_text_and_null_says_unknown():
    assert read('sign "Open"', expected_text=[]).expected_text == ()
    assert read('sign "Open"', expected_text=None).expected_text == ("Open",)
    assert read('sign "Open"', expected_text="").expected_text == ("Open",)


@pytest.mark.parametrize(
    ("value", "texts"),
    [("A|B", ("A", "B")), ('["A|B", "C"]', ("A|B", "C")), ("[draft]", ("[draft]",)), ("[]", ())],
)
def test_texts_in_one_text(value, texts):
    assert read(expected_text=value).expected_text == texts


@pytest.mark.parametrize("missing", [None, "", float("nan"), "  "])
def test_missing_values_get_defaults(missing):
    assert read(subtask=missing, locale=missing, brand=missing).subtask == "fast"


def test_sizes():
    assert read(size="640x384")[3:5] == (640, 384)
    assert read(size=" 640 × 384 ")[3:5] == (640, 384)
    assert read(width="640", height="384.0")[3:5] == (640, 384)
    assert read(subtask="upscale")[3:5] == (1024, 1024)


def test_uploads_make_edits():
    assert read("brighten", upload="uploads/dark-mug.jpg").subtask == "edit"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \t\n"}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": b"bytes"}, "prompt"),
        ({"prompt": float("nan")}, "prompt"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, "prompt"),
        ({"prompt": "x" * 1_000_000}, "prompt"),
        ({"subtask": "painting"}, "subtask"),
        ({"subtask": 3}, "subtask"),
        ({"subtask": ["edit"]}, "subtask"),
        ({"subtask": "edit"}, "upload"),
        ({"subtask": "fast", "upload": "uploads/dark-mug.jpg"}, "upload"),
        ({"upload": "../secrets.png"}, "upload"),
        ({"upload": "/etc/passwd"}, "upload"),
        ({"upload": "uploads/../../pyproject.toml"}, "upload"),
        ({"upload": "uploads/absent.jpg"}, "upload"),
        ({"upload": "uploads"}, "upload"),
        ({"upload": "uploads\\dark-mug.jpg"}, "upload"),
        ({"upload": "uploads/\0.jpg"}, "upload"),
        ({"upload": "http://example.invalid/x.jpg"}, "upload"),
        ({"brand": "nobody"}, "brand"),
        ({"brand": "../brands"}, "brand"),
        ({"locale": "english please"}, "locale"),
        ({"locale": "../en"}, "locale"),
        ({"width": 640}, "height"),
        ({"width": 0, "height": 512}, "width"),
        ({"width": 512, "height": 8193}, "height"),
        ({"width": 512.5, "height": 512}, "width"),
        ({"width": True, "height": 512}, "width"),
        ({"width": "1e3", "height": 512}, "width"),
        ({"width": math.inf, "height": 512}, "width"),
        ({"size": "large"}, "size"),
        ({"expect": "maybe"}, "expect"),
        ({"expected_text": 5}, "expected_text"),
        ({"expected_text": [""]}, "expected_text"),
        ({"expected_text": [None]}, "expected_text"),
        ({"expected_text": ["x"] * 17}, "expected_text"),
        ({"expected_text": ["x" * 501]}, "expected_text"),
        ({"expected_text": {"a": 1}}, "expected_text"),
    ],
)
def test_bad_values_name_their_field(values, field):
    row = read(**values)
    assert isinstance(row, BadRow)
    assert row.field == field
    assert len(row.problem) < 400


def test_lone_surrogates_are_replaced_and_controls_kept():
    row = read("a\ud800b\x00\x1b[31m", expected_text=["x\udfff"])
    assert row.prompt == "a\ufffdb\x00\x1b[31m"
    assert row.expected_text == ("x\ufffd",)


# The first text of a fresh checkout takes seconds on a busy machine: characters are tabled then.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.one_of(
                st.none(), st.text(max_size=30), st.integers(), st.floats(), st.binary(max_size=5)
            )
            for name in FIELDS
        },
    )
)
def test_any_values_give_a_row_or_a_reason(values):
    row = READER.read((1, tuple(values.get(name) for name in FIELDS)))
    if isinstance(row, BadRow):
        assert row.problem
    else:
        # Whatever passes must fit the record and have a digest.
        assert Case(case_id="x", **dict(zip(row._fields[:9], row[:9], strict=True))).digest


def test_remembered_details_do_not_leak_between_rows():
    reader = RowReader(DATASETS)
    first = reader.read(raw("brighten it", upload="uploads/dark-mug.jpg"))
    second = reader.read(raw("a cat"))
    third = reader.read(raw("brighten it", upload="uploads/dark-mug.jpg"))
    assert first == third
    assert second.upload is None


def test_strict_reading_shows_the_first_five_problems():
    items = [raw("fine"), *(BadRow(n, "prompt", f"bad {n}") for n in range(2, 12))]
    rows = read_rows(iter(items), READER, "log.csv")
    assert next(rows).prompt == "fine"
    with pytest.raises(DataError) as caught:
        list(rows)
    error = caught.value
    assert (error.path, error.row, error.field) == ("log.csv", 2, "prompt")
    assert "bad 6" in str(error)
    assert "bad 7" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301, TID251 - our own bytes


def test_one_bad_row_at_the_end_fails_the_log():
    with pytest.raises(DataError, match="row 3"):
        list(read_rows(iter([raw("a"), BadRow(3, None, "broken")]), READER, "log"))


def test_columns_by_alias():
    places = map_columns(["Lang", "Text Prompt", "noise"], "log")
    assert places[FIELDS.index("prompt")] == 1
    assert places[FIELDS.index("locale")] == 0
    assert places[FIELDS.index("brand")] is None


def test_the_first_alias_wins():
    places = map_columns(["id", "request_id", "prompt"], "log")
    assert places[FIELDS.index("request_id")] == 1


def test_missing_prompt_column_names_what_is_there():
    with pytest.raises(ConfigError, match=r"colour, shape.*'prompt'"):
        map_columns(["colour", "shape"], "log")


def test_a_column_that_stands_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        map_columns(["prompt", "Prompt"], "log")
    assert map_columns(["prompt", "x", "x"], "log")[0] == 0


EDIT = {"subtask": "edit", "upload": "uploads/colour-cast-mug.jpg"}


def test_a_mask_goes_with_an_upload_and_reaches_the_case():
    row = read(**EDIT, mask=EDIT["upload"])
    assert (row.upload, row.mask) == (EDIT["upload"], EDIT["upload"])
    bad = read(mask=EDIT["upload"])
    assert (bad.field, bad.problem) == ("mask", "goes with an upload and only with one")
    assert read(**EDIT, mask="../pyproject.toml").field == "mask"
    assert read(**EDIT, mask="uploads/none.png").field == "mask"


def test_groups_are_read():
    assert read(campaign=" Summer 26 ", repeat="3").campaign == "Summer 26"
    assert read(campaign=7).campaign == "7"
    assert read(repeat=3.0).repeat == 3
    assert read(campaign=math.nan, repeat=None, repeats="").campaign is None
    assert read(campaign="x" * 121).field == "campaign"
    for value in (-1, 10_000, "two", 1.5, True, float("inf")):
        assert read(repeat=value).field == "repeat"
    assert read(repeats=33).field == "repeats"
    assert read(repeat=1, repeats=2).field == "repeat"


def test_a_row_that_asks_for_repeats_is_several_inputs():
    rows = list(read_rows([raw("a cat", repeats=3), raw("a dog")], READER, "log"))
    assert [(r.prompt, r.repeat, r.repeats) for r in rows] == [
        ("a cat", 1, None), ("a cat", 2, None), ("a cat", 3, None), ("a dog", None, None),
    ]  # fmt: skip
    assert len(list(read_rows([raw("a cat", repeats=1)], READER, "log"))) == 1
