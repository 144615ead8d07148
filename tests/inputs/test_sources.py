import contextlib
import csv
import io
import json
import os
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, DataError
from tasks.inputs import sources
from tasks.inputs.rows import FIELDS, BadRow, RowReader, read_rows
from tasks.inputs.sources import open_log
from tasks.settings import DATASETS

# No lone surrogates: they have no UTF-8 form, so no file can hold them as text.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def read(path):
    source = open_log(str(path))
    return list(read_rows(source.rows(), RowReader(DATASETS), source.description))


def prompts(path):
    return [row.prompt for row in read(path)]


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_plain_text_skips_blank_lines_and_takes_both_line_ends(tmp_path):
    path = write(tmp_path, "log.txt", b"\xef\xbb\xbfa cat\r\n\n   \n\tb\x00 dog\x0b!\nlast")
    assert prompts(path) == ["a cat", "\tb\x00 dog\x0b!", "last"]


def test_plain_text_breaks_at_line_feeds_only(tmp_path):
    path = write(tmp_path, "log.txt", "a\u2028b\rc\x85d\ne\n")
    assert prompts(path) == ["a\u2028b\rc\x85d", "e"]


def test_bytes_that_are_not_utf8_name_their_line(tmp_path):
    path = write(tmp_path, "log.txt", b"fine\n\nbad \xff\xfe\nfine\n")
    with pytest.raises(DataError, match="row 3, field 'prompt': is not valid UTF-8"):
        read(path)


def test_a_prompt_of_a_million_characters_names_the_limit(tmp_path):
    with pytest.raises(DataError, match=r"row 2, field 'prompt': has 1,000,000 .* 32,000"):
        read(write(tmp_path, "log.txt", "fine\n" + "x" * 1_000_000))
    with pytest.raises(DataError, match=r"row 1, field 'prompt': has 1,000,000"):
        read(write(tmp_path, "log.jsonl", json.dumps({"prompt": "x" * 1_000_000})))
    with pytest.raises(DataError, match=r"row 2: a field is longer"):
        read(write(tmp_path, "log.csv", "prompt\n" + "x" * 1_000_000))


def test_a_file_without_line_ends_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE", 100)
    with pytest.raises(DataError, match="longer than 100 bytes"):
        read(write(tmp_path, "log.txt", "x" * 101))
    assert prompts(write(tmp_path, "short.txt", "x" * 100)) == ["x" * 100]


def test_utf16_is_named(tmp_path):
    with pytest.raises(ConfigError, match="UTF-16"):
        read(write(tmp_path, "log.csv", "prompt\nx\n".encode("utf-16")))


def test_csv_with_all_columns(tmp_path):
    path = write(
        tmp_path,
        "log.csv",
        "\ufeffrequest_id,Prompt,Subtask,Language,width,height,expected_text,brand,upload,noise\r\n"
        'r1,"a ""sign"", red",typography,de_AT,640,384,Ja|Nein,northwind,,x\r\n'
        "\r\n"
        "r2,brighten,,,,,,,uploads/dark-mug.jpg,\r\n",
    )
    first, second = read(path)
    assert first.prompt == 'a "sign", red'
    assert (first.locale, first.width, first.brand) == ("de-AT", 640, "northwind")
    assert first.expected_text == ("Ja", "Nein")
    assert (second.subtask, second.upload, second.width) == ("edit", "uploads/dark-mug.jpg", 512)


def test_csv_texts_may_hold_line_breaks_and_rows_count_records(tmp_path):
    path = write(tmp_path, "log.csv", 'prompt,width,height\n"two\nlines",512,512\nbad,1,1\n')
    with pytest.raises(DataError, match="row 3, field 'width'"):
        read(path)


@pytest.mark.parametrize(("separator", "name"), [(";", "log.csv"), ("\t", "log.tsv")])
def test_other_separators(tmp_path, separator, name):
    text = f"prompt{separator}locale\na cat, grey{separator}fr\n"
    (row,) = read(write(tmp_path, name, text))
    assert (row.prompt, row.locale) == ("a cat, grey", "fr")


def test_quotes_in_tab_separated_files_are_text_unless_a_writer_put_them_there(tmp_path):
    lines = ['"Open" sign\ta', '"Shut"\tb', '"a ""red"" door"\tc', 'say ""\td', '""""\te']
    path = write(tmp_path, "log.tsv", "prompt\tid\n" + "\n".join(lines) + "\n")
    assert prompts(path) == ['"Open" sign', '"Shut"', 'a "red" door', 'say ""', '"']


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("a\n", "row 2: has 1 fields, the header has 2"),
        ("a,b,c\n", "row 2: has 3 fields"),
        ('"a" b,en\n', "row 2: is not CSV"),
        ('"never closed,en\n', "row 2: is not CSV"),
        (b"\xff,en\n", "row 2: is not valid UTF-8"),
        (",en\n", "row 2, field 'prompt': is missing"),
    ],
)
def test_bad_csv_rows_are_named(tmp_path, body, match):
    header = b"prompt,locale\nfine,en\n"[:14]
    data = body if isinstance(body, bytes) else body.encode()
    with pytest.raises(DataError, match=match):
        read(write(tmp_path, "log.csv", header + data))


def test_jsonl_rows_may_differ_in_their_fields(tmp_path):
    path = write(
        tmp_path,
        "log.jsonl",
        '{"prompt": "a", "texts": ["x"]}\n\n{"lang": "de", "prompt": "b\\ud800"}\r\n',
    )
    first, second = read(path)
    assert first.expected_text == ("x",)
    assert (second.locale, second.prompt) == ("de", "b\ufffd")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "row 2: is not JSON"),
        ("[1]", "row 2: must be a JSON object, got list"),
        ('{"text": "x"}', "row 2, field 'prompt': is missing"),
        ('{"prompt": null}', "row 2, field 'prompt': is missing"),
        ("[" * 200_000, "row 2: is not JSON"),
        ('{"prompt": "x", "width": ' + "9" * 5000 + "}", "row 2: is not JSON"),
        ('{"prompt": "\xff"}'.encode("latin-1"), "row 2: is not valid UTF-8"),
    ],
)
def test_bad_json_lines_are_named(tmp_path, line, match):
    data = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(DataError, match=match):
        read(write(tmp_path, "log.jsonl", b'{"prompt": "ok"}\n' + data + b"\n"))


def test_parquet_in_several_batches(tmp_path):
    count = sources.BATCH * 2 + 5
    table = pa.table(
        {
            "noise": list(range(count)),
            "prompt": pa.array([f"cat {n}" for n in range(count)]).dictionary_encode(),
            "expected_text": [["x"] if n % 2 else None for n in range(count)],
        }
    )
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    rows = read(path)
    assert [row.prompt for row in rows] == [f"cat {n}" for n in range(count)]
    assert rows[1].expected_text == ("x",)


def test_parquet_bad_row_has_its_number(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"prompt": ["x"] * 5000 + [None]}), path)
    with pytest.raises(DataError, match="row 5001, field 'prompt'"):
        read(path)


def test_damaged_parquet_is_a_data_error(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"prompt": [f"a long prompt {n}" for n in range(20_000)]}), path)
    data = bytearray(path.read_bytes())
    for broken in (b"", b"PAR1", bytes(data[: len(data) // 2])):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a sound Parquet"):
            read(path)
    data[200:4000] = os.urandom(3800)
    path.write_bytes(data)
    with pytest.raises(DataError):
        read(path)


def test_parquet_with_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "log.parquet"
    bad = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": bad}), path)
    with pytest.raises(DataError):
        read(path)


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.jsonl"])
def test_a_log_without_prompts_lists_its_columns(tmp_path, name):
    text = '{"colour": 1, "shape": 2}\n' if name.endswith("jsonl") else "colour,shape\n1,2\n"
    with pytest.raises(ConfigError, match=r"colour.*shape.*'prompt'"):
        read(write(tmp_path, name, text))


@pytest.mark.parametrize("name", ["log.txt", "log.csv", "log.jsonl"])
@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty_files_have_no_rows(tmp_path, name, data):
    assert read(write(tmp_path, name, data)) == []


def test_files_that_are_no_logs(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        open_log(str(tmp_path / "absent.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        open_log(str(tmp_path / "folder.csv"))
    with pytest.raises(ConfigError, match=r"\.parquet"):
        open_log(str(write(tmp_path, "log.xlsx", b"")))


def test_a_source_can_be_read_twice(tmp_path):
    source = open_log(str(write(tmp_path, "log.txt", "a\nb\n")))
    assert list(source.rows()) == list(source.rows()) != []


@given(texts=st.lists(TEXTS.filter(lambda t: t.strip()), min_size=1, max_size=8))
def test_every_format_gives_back_the_same_prompts(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("logs")
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["prompt", "width", "height"])
    writer.writerows([text, 512, 512] for text in texts)
    pq.write_table(pa.table({"prompt": texts}), folder / "log.parquet")
    lines = "\n".join(json.dumps({"prompt": text}) for text in texts)
    for path in (
        write(folder, "log.csv", stream.getvalue()),
        write(folder, "log.jsonl", lines),
        folder / "log.parquet",
    ):
        assert prompts(path) == texts


@given(data=st.binary(max_size=300), name=st.sampled_from(["a.txt", "a.csv", "a.tsv", "a.jsonl"]))
def test_any_bytes_give_rows_or_a_config_error(tmp_path_factory, data, name):
    path = write(tmp_path_factory.mktemp("fuzz"), name, data)
    items = []
    # Any other exception is a bug of the reader and fails the test.
    with contextlib.suppress(ConfigError):
        items.extend(open_log(str(path)).rows())
    assert all(isinstance(item, BadRow) or len(item[1]) == len(FIELDS) for item in items)


@given(data=st.binary(max_size=200))
def test_any_bytes_after_a_csv_header_give_rows_or_bad_rows(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("fuzz"), "a.csv", b"prompt,locale\n" + data)
    for item in open_log(str(path)).rows():
        assert isinstance(item, BadRow) or len(item[1]) == len(FIELDS)


def grouped_rows(folder):
    """The same three rows in every kind of file that has columns."""
    rows = [
        {"prompt": "a", "campaign": "summer", "repeat": None, "mask": None, "upload": None},
        {"prompt": "b", "campaign": "summer", "repeat": 2, "mask": None, "upload": None},
        {"prompt": "c", "campaign": None, "repeat": None, "mask": MUG, "upload": MUG},
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write(folder, "log.csv", table.getvalue())
    write(folder, "log.jsonl", "\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
    with contextlib.closing(sqlite3.connect(folder / "log.db")) as database:
        database.execute("CREATE TABLE t (prompt, campaign, repeat, mask, upload)")
        database.executemany("INSERT INTO t VALUES (?,?,?,?,?)", [tuple(r.values()) for r in rows])
        database.commit()


MUG = "uploads/colour-cast-mug.jpg"


@pytest.mark.parametrize("kind", ["log.csv", "log.jsonl", "log.parquet", "sql"])
def test_masks_and_groups_are_read_from_every_kind_of_log(tmp_path, kind):
    grouped_rows(tmp_path)
    where = tmp_path / kind
    database = f"sqlite:///{tmp_path}/log.db::SELECT * FROM t"  # noqa: S608 - a path of our own
    rows = read(database if kind == "sql" else where)
    assert [(r.prompt, r.campaign, r.repeat, r.mask) for r in rows] == [
        ("a", "summer", None, None), ("b", "summer", 2, None), ("c", None, None, MUG),
    ]  # fmt: skip
