"""The readers and the sampler on the real prompts in ../shared/data/prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.inputs import infer
from tasks.inputs.draw import draw_sample
from tasks.inputs.rows import BadRow, RowReader, read_rows
from tasks.inputs.sources import open_log
from tasks.policy import Sampling
from tasks.settings import DATASETS, PROJECT_ROOT

PROMPTS = PROJECT_ROOT.parent / "shared" / "data" / "prompts"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not PROMPTS.is_dir(), reason=f"no real data at {PROMPTS}"),
]
ONLY_LOG = Sampling(stress=0, adversarial=0)


def rows_of(path: Path):
    source = open_log(str(path))
    return list(read_rows(source.rows(), RowReader(DATASETS), source.description))


def test_real_users_prompts_are_sampled():
    cases, coverage, _ = draw_sample(
        str(PROMPTS / "user_prompts_pickapic.txt"), ONLY_LOG, 500, 1, DATASETS
    )
    assert coverage["log"]["rows"] == 25_432
    assert len({case.digest for case in cases}) == 500
    assert sum(case.weight for case in cases) == pytest.approx(25_432)
    assert coverage["notes"] == []
    subtasks = Counter(case.subtask for case in cases)
    assert set(subtasks) == {"typography", "creative", "fast"}


def test_parti_prompts():
    rows = rows_of(PROMPTS / "PartiPrompts.tsv")
    assert len(rows) == 1632
    quoted = [row for row in rows if row.expected_text]
    assert {row.subtask for row in quoted} == {"typography"}
    assert any(row.expected_text == ("PEACE",) for row in quoted)


def test_draw_bench():
    rows = rows_of(PROMPTS / "DrawBench.csv")
    assert len(rows) == 200
    assert rows[0].subtask == "fast"


def test_prompts_with_known_texts():
    rows = rows_of(PROMPTS / "text_to_render.jsonl")
    assert len(rows) == 2490
    lines = [
        json.loads(line)
        for line in (PROMPTS / "text_to_render.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [list(row.expected_text) for row in rows] == [line["texts"] for line in lines]
    # How often the rule for quotes finds what people labelled, where the texts stand in quotes.
    stands = [
        line
        for line in lines
        if line["texts"] and all(f'"{t}"' in line["prompt"] for t in line["texts"])
    ]
    right = sum(
        set(infer.expected_text(line["prompt"])) == set(map(str.strip, line["texts"]))
        for line in stands
    )
    assert right / len(stands) > 0.85


def test_naughty_strings_survive_every_format(tmp_path):
    naughty = [
        text
        for text in json.loads((PROMPTS / "blns.json").read_text(encoding="utf-8"))
        if text and not text.isspace()
    ]
    (tmp_path / "log.jsonl").write_text(
        "\n".join(json.dumps({"prompt": text}) for text in naughty), encoding="utf-8"
    )
    pq.write_table(pa.table({"prompt": naughty}), tmp_path / "log.parquet")
    assert [row.prompt for row in rows_of(tmp_path / "log.jsonl")] == naughty
    assert [row.prompt for row in rows_of(tmp_path / "log.parquet")] == naughty
    cases, _, _ = draw_sample(str(tmp_path / "log.jsonl"), ONLY_LOG, 10_000, 1, DATASETS)
    assert {case.prompt for case in cases} == set(naughty)


def test_sentences_in_157_scripts_have_a_locale():
    samples = json.loads((PROMPTS / "multilingual_samples.json").read_text(encoding="utf-8"))
    known = {
        "Cyrl": {"ru", "uk"}, "Grek": {"el"}, "Arab": {"ar"}, "Hebr": {"he"}, "Deva": {"hi"},
        "Thai": {"th"}, "Hang": {"ko"}, "Kore": {"ko"}, "Jpan": {"ja"}, "Hans": {"zh"},
        "Hant": {"zh"}, "Latn": {"en", "und", "vi"},
    }  # fmt: skip
    wrong = Counter()
    judged = 0
    for sample in samples:
        if sample["script"] in known and sample.get("styles"):
            judged += 1
            if infer.script_locale(sample["styles"]) not in known[sample["script"]]:
                wrong[sample["script"]] += 1
    assert judged > 300
    assert sum(wrong.values()) <= judged * 0.02, wrong


def test_no_line_of_a_foreign_file_crashes_a_reader(tmp_path):
    for name, suffix in (("blns.json", ".txt"), ("multilingual_samples.json", ".csv")):
        copy = tmp_path / f"log{suffix}"
        copy.write_bytes((b"prompt\n" if suffix == ".csv" else b"") + (PROMPTS / name).read_bytes())
        assert all(isinstance(item, tuple | BadRow) for item in open_log(str(copy)).rows())
