import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checks.base import Expected
from tasks.checks.manifest import Entry, from_paths, read_manifest
from tasks.checks.truth import Truth
from tasks.errors import DataError
from tasks.settings import DATASETS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(folder: Path, text: str, name: str = "m.csv") -> list[Entry]:
    (folder / name).write_text(text, encoding="utf-8")
    return read_manifest(folder / name, DATASETS)


def test_all_columns(folder: Path) -> None:
    (entry,) = read(
        folder,
        "file,id,intended_text,language,width,height,aspect,brand,subtask,mime,note\n"
        'a.png,one,"Hi, you|  Bye |",pt_BR,640,480.0,4:3,northwind,fast,image/png,whatever\n',
    )
    assert entry == Entry(
        "one", "a.png", folder / "a.png",
        Expected(
            intended_text=("Hi, you", "Bye"), language="pt-BR", width=640, height=480,
            aspect=4 / 3, brand="northwind", subtask="fast", declared_mime="image/png",
        ),
    )  # fmt: skip


def test_only_the_file_is_needed(folder: Path) -> None:
    found = read(folder, "\ufefffile , language\nb.png,-\n\na.png,\n")
    assert [(e.id, e.file, e.expected) for e in found] == [
        ("b.png", "b.png", Expected()), ("a.png", "a.png", Expected()),
    ]  # fmt: skip


def test_jsonl(folder: Path) -> None:
    rows = [
        {"file": "a.png", "intended_text": ["x|y", "z"], "width": 512, "aspect": 1.78},
        {"file": "b.png", "intended_text": "x|y", "id": 7, "language": None},
    ]
    found = read(folder, "\n".join(json.dumps(r) for r in rows) + "\n", "m.jsonl")
    assert found[0].expected == Expected(intended_text=("x|y", "z"), width=512, aspect=1.78)
    assert (found[1].id, found[1].expected.intended_text) == ("7", ("x", "y"))


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ("a.png,0,,,,", "width", "whole pixels"),
        ("a.png,12.5,,,,", "width", "whole pixels"),
        ("a.png,nan,,,,", "width", "whole pixels"),
        ("a.png,,wide,,,", "aspect", "16:9"),
        ("a.png,,1:0,,,", "aspect", "16:9"),
        ("a.png,,,acme,,", "brand", "northwind"),
        ("a.png,,,,paint,", "subtask", "typography"),
        ("a.png,,,,,english please", "language", "pt-BR"),
        (",1,,,,", "file", "nothing"),
        ("a.png,1,,,,,,", None, "cells"),
        ("a.png,1,,", None, "4 cells, the header has 6"),
    ],
)
def test_bad_rows_name_row_and_field(folder: Path, row: str, field: str | None, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, f"file,width,aspect,brand,subtask,language\nb.png,1,,,,\n{row}\n")
    assert (caught.value.row, caught.value.field) == (3, field)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "m.csv", "'file'"), ("id\na\n", "m.csv", "'file'"), ("file\n", "m.csv", "no picture"),
        ("file,file\na.png,b.png\n", "m.csv", "twice"), ('file\n"a.png\n', "m.csv", "CSV"),
        ("{", "m.jsonl", "row 1"), ("[1]", "m.jsonl", "expected an object"),
        ('{"file": {"a": 1}}', "m.jsonl", "expected text"),
        ('{"file": "a.png", "intended_text": 5}', "m.jsonl", "separated by"),
        ('{"file": "a\\u0000b"}', "m.jsonl", "'file'"),
    ],
)  # fmt: skip
def test_broken_manifests_are_data_errors(folder: Path, text: str, name: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, text, name)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("file,intended_text\na.png,x\nb.png,|||\n", "m.csv"),
        ('{"file": "a.png"}\n{"file": "b.png", "intended_text": ["", " "]}', "m.jsonl"),
        ('{"file": "a.png"}\n{"file": "b.png", "intended_text": [" "]}', "m.jsonl"),
    ],
)
def test_a_text_without_a_string_is_refused(folder: Path, text: str, name: str) -> None:
    with pytest.raises(DataError, match=r"holds no text.*or nothing at all") as caught:
        read(folder, text, name)
    assert caught.value.field == "intended_text"
    assert read(folder, 'file,intended_text\na.png," "\n')[0].expected.intended_text == ()
    assert read(folder, '{"file": "a.png", "intended_text": []}', "e.jsonl")


def test_an_id_names_one_row(folder: Path) -> None:
    assert len(read(folder, "file,id\na.png,\na.png,\na.png,1\n")) == 3
    with pytest.raises(DataError, match="'1' is the id of row 2 already") as caught:
        read(folder, "file,id\na.png,1\na.png,2\nb.png,1\n")
    assert (caught.value.row, caught.value.field) == (4, "id")
    with pytest.raises(DataError, match="is the id of row 1 already"):
        read(folder, '{"file": "a.png", "id": 0}\n{"file": "b.png", "id": "0"}', "m.jsonl")


def test_columns_that_are_nearly_known_are_told(folder: Path) -> None:
    file = folder / "m.csv"
    slips = "intendet_text,widht,Prompt,langauge,upload file,mime_typ"
    file.write_text(f"file,{slips},notes,source_id,bytes,magic,generator\na.png{',x' * 11}\n")
    told: list[str] = []
    read_manifest(file, DATASETS, told.append)
    meant = ["intended_text", "width", "prompt", "language"]
    assert [one.rsplit("mean ", 1)[1] for one in told] == [f"{name!r}?" for name in meant]


@pytest.mark.parametrize("column", ["file", "upload"])
def test_a_name_that_no_system_takes_is_missing(folder: Path, column: str) -> None:
    row = {"file": "a.png", column: "x" * 5000}
    with pytest.raises(DataError, match=r"missing|no such file"):
        read(folder, json.dumps(row), "m.jsonl")
    with pytest.raises(DataError, match="no such file"):
        from_paths([Path("x" * 5000)])
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(Path("x" * 5000), DATASETS)


def test_a_name_is_one_line_of_an_error() -> None:
    assert str(DataError("a\nb\x1b.csv", 1, None, "x")) == "a\\nb\\x1b.csv, row 1: x"


def test_missing_files_are_listed_before_anything_runs(folder: Path) -> None:
    rows = "\n".join(["a.png", *(f"no{n}.png" for n in range(7))])
    with pytest.raises(DataError, match=r"7 of 8 files are missing: 'no0.png'.*and 2 more"):
        read(folder, f"file\n{rows}\n")


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_manifest(tmp_path / "none.csv", DATASETS)


def test_paths_and_folders(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "c.WEBP").write_bytes(b"x")
    (folder / "notes.txt").write_text("no picture")
    found = from_paths([folder, folder / "notes.txt"])
    assert [e.path.name for e in found] == ["a.png", "b.png", "c.WEBP", "notes.txt"]
    with pytest.raises(DataError, match="no such file or folder"):
        from_paths([folder / "none"])
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        from_paths([folder / "empty"])


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), kind=st.sampled_from(["m.csv", "m.jsonl"]))
def test_any_text_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, kind: str
) -> None:
    file = tmp_path_factory.mktemp("any") / kind
    file.write_bytes(("file\n" + text if kind == "m.csv" else text).encode("utf-8", "replace"))
    with pytest.raises(DataError):
        read_manifest(file, DATASETS)


def test_references_groups_and_truth(folder: Path) -> None:
    (one, two) = read(
        folder,
        "file,upload,mask,prompt,campaign,repeat,legible_match,level,strict\n"
        "a.png,b.png,a.png,a cat,summer,2,no,garbled,1\n"
        "b.png,,,,,,yes,,0\n",
    )
    assert one.references == {"upload": folder / "b.png", "mask": folder / "a.png"}
    assert (one.campaign, one.repeat, one.expected.prompt) == ("summer", 2, "a cat")
    assert one.expected.grouped
    assert one.truth == Truth(False, "text", "no (garbled)")
    assert (two.references, two.truth, two.in_group) == ({}, None, False)


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("mask", "b.png", "goes with an upload"),
        ("upload", "none.png", "no such file beside the manifest"),
        ("repeat", "x", "whole number"),
        ("repeat", "1", "repeats are of one prompt"),
        ("legible_match", "maybe", "expected a word such as"),
        ("truth", "perhaps", "expected a word such as"),
        ("strict", "2", "expected 1, 0 or nothing, got '2'"),
    ],
)
def test_bad_references_groups_and_truth_are_said(
    folder: Path, header: str, row: str, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        read(folder, f"file,{header}\na.png,{row}\n")
