"""Recorded pictures stand in for a model."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, GateError
from tasks.harness.setup import adapter
from tasks.mix.catalog import Catalog, Model, Price
from tasks.mix.manifest import Mix, resolve_mix
from tasks.providers.base import AttemptResult
from tasks.providers.registry import provider_for
from tasks.providers.replay import ReplayProvider
from tasks.providers.replay_entries import Entry, Made, Manifest, find, tape
from tasks.providers.replay_store import MANIFEST, load, manifest_for, write
from tasks.records import SUBTASKS, FailureClass, digest_bytes
from tests.fakes.contract import Row, a_model, a_request, ask, check
from tests.fakes.http_fake import PAGE, picture

F = FailureClass
PLAN, TABLE = "plan.json", "tables/generations.parquet"
FOX, CAT = "a fox", "a cat on a mat"
FREE = Price(usd=0, source="recorded", date=date(2026, 1, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with pictures made elsewhere."""
    root = tmp_path / "made elsewhere"
    (root / "cats").mkdir(parents=True)
    (root / "fox.png").write_bytes(picture(64, 64, "fox"))
    for number in range(3):
        (root / "cats" / f"{number}.png").write_bytes(picture(64, 64, f"cat {number}"))
    (root / "page.png").write_bytes(PAGE)
    entries: list[dict[str, Any]] = [
        {"prompt": FOX, "files": ["fox.png"], "latency_s": 1.5},
        {"prompt": CAT, "files": [f"cats/{n}.png" for n in range(3)]},
        {"prompt": CAT, "width": 64, "height": 64, "seed": 5, "files": ["fox.png"]},
        {
            "prompt": "edited",
            "operation": "edit",
            "upload": digest_bytes(b"one"),
            "files": ["fox.png"],
        },
        {
            "prompt": "edited",
            "operation": "edit",
            "upload": digest_bytes(b"two"),
            "files": ["cats/0.png"],
        },
        {"prompt": "twice", "width": 64, "files": ["fox.png"]},
        {"prompt": "twice", "height": 64, "files": ["cats/0.png"]},
        {"prompt": "a page", "files": ["page.png"]},
        {"prompt": "unsafe", "failure": "refusal", "message": "against the rules"},
        {"prompt": "late", "failure": "transport", "message": "timed out", "latency_s": 60.0},
        {"prompt": "swallowed", "failure": "server"},
    ]
    write(root, manifest_for(root, "an agency, 2026-11", entries))
    return root


def model(folder: Path, **fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "replay",
        "endpoint": folder.as_uri(),
        "version": digest_bytes((folder / MANIFEST).read_bytes())
        if (folder / MANIFEST).exists()
        else "sha256:" + 64 * "0",
        "pin": "immutable",
        "price": FREE,
    }
    return a_model(**(usual | fields))


def get(folder: Path, entry: Model | None = None, **fields: Any) -> AttemptResult:
    entry = entry or model(folder)
    return ask(entry.endpoint, a_request(entry, **({"width": 64, "height": 64} | fields)))


ROWS = [
    Row("recorded", None, request={"prompt": FOX}),
    Row("sample by seed", None, request={"prompt": CAT, "seed": 4}),
    Row(
        "edit of this upload",
        None,
        request={"prompt": "edited", "operation": "edit", "image": b"two"},
    ),
    Row("recorded refusal", F.REFUSAL, request={"prompt": "unsafe"}, says="recorded: against"),
    Row("recorded time-out", F.TRANSPORT, request={"prompt": "late"}, says="recorded: timed out"),
    Row("recorded failure", F.SERVER, request={"prompt": "swallowed"}, says="recorded: server"),
    Row(
        "prompt not recorded", F.BAD_REQUEST, request={"prompt": "a dog"}, says="no entry has this"
    ),
    Row("prompt almost recorded", F.BAD_REQUEST, request={"prompt": FOX + " "}),
    Row(
        "edit of another upload",
        F.BAD_REQUEST,
        request={"prompt": "edited", "operation": "edit", "image": b"three"},
        says="2 entries have this prompt, none is of edit",
    ),
    Row(
        "operation not recorded",
        F.BAD_REQUEST,
        request={"prompt": "edited", "operation": "generate"},
    ),
    Row("two fit alike", F.BAD_REQUEST, request={"prompt": "twice"}, says="differ in their pict"),
    Row("page as picture", F.MALFORMED, request={"prompt": "a page"}, says="text/html"),
    Row(
        "other manifest than pinned",
        F.DRIFT,
        request={"prompt": FOX},
        model={"version": "sha256:" + 64 * "1"},
        says="is pinned to",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row, folder: Path) -> None:
    check(row, get(folder, model(folder, **row.model), **row.request), None)


def test_a_replay_brings_the_very_bytes_at_the_recorded_pace(folder: Path) -> None:
    result = get(folder, prompt=FOX)
    assert result.image == (folder / "fox.png").read_bytes()
    attempt = result.attempt
    assert (attempt.total_s, attempt.ttfb_s) == (1.5, 1.5)
    assert (attempt.billed, attempt.cost_microusd, attempt.pin) == ("no", 0, "held")
    assert attempt.body_digest == digest_bytes(result.image or b"")


def test_the_seed_chooses_among_samples_and_an_exact_entry_comes_first(folder: Path) -> None:
    for seed in range(3):
        sample = (folder / "cats" / f"{seed}.png").read_bytes()
        assert get(folder, prompt=CAT, seed=seed).image == sample
    assert get(folder, prompt=CAT, seed=5).image == (folder / "fox.png").read_bytes()


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "a\nb"]
)
def test_a_manifest_cannot_name_a_file_outside(folder: Path, name: str) -> None:
    value = {
        "source": "x",
        "entries": [{"prompt": "p", "pictures": [{"file": name, "sha256": digest_bytes(b"")}]}],
    }
    (folder / MANIFEST).write_text(json.dumps(value))
    with pytest.raises(ConfigError, match="below the manifest's folder"):
        load(folder, "candidate")


def test_a_link_that_leads_out_is_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(64, 64, "secret"))
    (folder / "fox.png").unlink()
    (folder / "fox.png").symlink_to(secret)
    attempt = get(folder, prompt=FOX).attempt
    assert attempt.failure is F.BAD_REQUEST
    assert "lies outside" in attempt.message
    with pytest.raises(ConfigError, match="lies outside"):
        manifest_for(folder, "x", [{"prompt": "p", "files": ["fox.png"]}])


def test_a_pipe_in_place_of_a_picture_does_not_hang(folder: Path) -> None:
    import os

    (folder / "fox.png").unlink()
    os.mkfifo(folder / "fox.png")
    assert "is no file" in get(folder, prompt=FOX).attempt.message


@pytest.mark.parametrize("change", ["altered", "gone"])
def test_a_picture_that_is_not_the_recorded_one_is_not_judged(folder: Path, change: str) -> None:
    if change == "altered":
        (folder / "fox.png").write_bytes(picture(64, 64, "another"))
    else:
        (folder / "fox.png").unlink()
    result = get(folder, prompt=FOX)
    assert (result.image, result.attempt.failure) == (None, F.BAD_REQUEST)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("{}", "source"),
        ('{"source": "x", "entries": []}', "at least 1"),
        ('{"source": "x", "entries": [{"prompt": "p"}]}', "either pictures or the failure"),
        ('{"source": "x", "entries": [{"prompt": "p", "failure": "bad luck"}]}', "failure"),
        ('{"source": "x", "entries": [{"prompt": "p", "failure": "server", "cost": 1}]}', "cost"),
    ],
)
def test_what_is_no_manifest(folder: Path, text: str, said: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(folder, "candidate")


@pytest.mark.parametrize("address", ["file://host/x", "file:relative", "file:///no/such/folder"])
def test_what_is_no_folder(address: str) -> None:
    with pytest.raises(ConfigError):
        ReplayProvider(address, None)


def test_a_folder_without_a_manifest_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds neither replay\.json"):
        load(tmp_path, "candidate")


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_prompt_gets_the_picture_of_another(one: str, other: str) -> None:
    made = Made(Entry(prompt=one, failure=F.SERVER))
    found = find(tape("d", [made]), a_request(a_model(protocol="raw", version="v"), prompt=other))
    assert (found == made.entry) == (one == other)


def served(entry: Model) -> dict[str, str | None]:
    async def look() -> dict[str, str | None]:
        async with httpx.AsyncClient() as client:
            provider = provider_for(entry, entry.endpoint, None)
            return {n: m.version for n, m in (await provider.served(client, [entry])).items()}

    return asyncio.run(look())


def test_served_tells_the_digest_to_pin(folder: Path) -> None:
    entry = model(folder)
    assert served(entry) == {"m": entry.version}
    (folder / MANIFEST).write_text(json.dumps({"source": "x"}))
    with pytest.raises(GateError, match="entries"):
        served(model(folder))


# A recorded run


def record(home: Path, *, seal: bool = True) -> Path:
    """Write what a run leaves behind: tables, a seal and the image store."""
    run = home / "runs" / "20261129-000000-candidate-0000"
    (run / "tables").mkdir(parents=True)
    cases, generations = [], []
    rows = [("c1", FOX, "fast", "fox", None), ("c2", CAT, "edit", "cat", None)]
    rows += [("c3", "unsafe", "creative", None, "refusal"), ("c4", CAT, "edit", "mat", None)]
    for number, (case, prompt, subtask, key, failure) in enumerate(rows):
        cases.append(
            {
                "case_id": case,
                "prompt": prompt,
                "subtask": subtask,
                "width": 64,
                "height": 64,
                "locale": "en",
                "brand": None,
            }
        )
        for arm in ("candidate", "baseline"):
            digest = None
            if key is not None:
                data = picture(64, 64, f"{key} {arm}")
                digest = digest_bytes(data)
                path = home / "images" / digest[7:9] / digest[7:]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            generations.append(
                {
                    "arm": arm,
                    "case_id": case,
                    "seed": 100 + number,
                    "image_digest": digest,
                    "failure": failure,
                    "message": "refused" if failure else "",
                    "latency_s": 0.5 + number,
                }
            )
    # What a run does not need at first it takes from the reserve.
    (run / PLAN).write_text(json.dumps({"cases": cases[:2], "reserve": cases[2:]}))
    columns = {c: [row[c] for row in generations] for c in generations[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), run / TABLE)
    files = {n: {"sha256": digest_bytes((run / n).read_bytes())} for n in (PLAN, TABLE)}
    if seal:
        (run / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": files}))
    return run


def of_run(run: Path, **fields: Any) -> Model:
    return model(run, version=digest_bytes((run / "manifest.json").read_bytes()), **fields)


@pytest.mark.parametrize("arm", ["candidate", "baseline"])
def test_a_recorded_run_stands_in_for_a_model(tmp_path: Path, arm: str) -> None:
    run = record(tmp_path)
    entry = of_run(run, options={"arm": arm})
    result = get(run, entry, prompt=FOX, locale="en", seed=1)
    assert result.image == picture(64, 64, f"fox {arm}")
    assert (result.attempt.total_s, result.attempt.cost_microusd) == (0.5, 0)
    refused = get(run, entry, prompt="unsafe", locale="en").attempt
    assert (refused.failure, refused.message) == (F.REFUSAL, "recorded: refused")
    assert served(entry) == {"m": entry.version}


def test_cases_that_read_alike_are_told_apart_by_the_recorded_seed(tmp_path: Path) -> None:
    """Both edits have one prompt; the tables do not say which upload each had."""
    run = record(tmp_path)
    entry, fields = of_run(run), {"prompt": CAT, "operation": "edit", "locale": "en"}
    assert get(run, entry, seed=101, **fields).image == picture(64, 64, "cat candidate")
    assert get(run, entry, seed=103, **fields).image == picture(64, 64, "mat candidate")
    assert get(run, entry, seed=7, **fields).attempt.failure is F.BAD_REQUEST


@pytest.mark.parametrize("name", [PLAN, TABLE])
def test_what_was_altered_after_the_seal_is_refused(tmp_path: Path, name: str) -> None:
    run = record(tmp_path)
    path = run / name
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="was altered since"):
        load(run, "candidate")


@pytest.mark.parametrize("plan", ["[]", "{}", '{"cases": [1]}', '{"cases": [{"case_id": "c1"}]}'])
def test_a_sealed_folder_that_is_no_run(tmp_path: Path, plan: str) -> None:
    run = record(tmp_path)
    (run / PLAN).write_text(plan)
    seal = json.loads((run / "manifest.json").read_text())
    seal["files"][PLAN]["sha256"] = digest_bytes(plan.encode())
    (run / "manifest.json").write_text(json.dumps(seal))
    with pytest.raises(ConfigError, match="is not the record of a run"):
        load(run, "candidate")


@pytest.mark.parametrize("seal", ["[]", "{}", '{"files": {}}', '{"files": []}'])
def test_what_is_no_seal(tmp_path: Path, seal: str) -> None:
    run = record(tmp_path, seal=False)
    (run / "manifest.json").write_text(seal)
    with pytest.raises(ConfigError):
        load(run, "candidate")


def test_an_arm_that_was_not_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        load(record(tmp_path), "production")


# In the catalog and in the harness


def test_only_a_replay_has_a_folder_for_an_address(folder: Path) -> None:
    for protocol, endpoint in (("raw", folder.as_uri()), ("replay", "https://x.test")):
        with pytest.raises(ValueError, match="goes with protocol 'replay'"):
            a_model(protocol=protocol, endpoint=endpoint, version="v")


def test_where_the_folder_lies_is_not_part_of_the_mix(folder: Path, tmp_path: Path) -> None:
    def digest(entry: Model) -> str:
        route = ({"stages": ({"model": entry.name, "operation": "generate"},)},)
        edits = ({"stages": ({"model": entry.name, "operation": "edit"},)},)
        routes: dict[str, Any] = {s: edits if s == "edit" else route for s in SUBTASKS}
        mix = Mix.model_validate({"name": "x", "product": "p", "routes": routes})
        return resolve_mix(mix, Catalog(models=(entry,)), "x").digest

    moved = tmp_path / "moved"
    moved.mkdir()
    one = model(folder)
    assert digest(one) == digest(one.model_copy(update={"endpoint": moved.as_uri()}))
    assert digest(one) != digest(one.model_copy(update={"version": "sha256:" + 64 * "2"}))
    assert digest(one) != digest(one.model_copy(update={"options": {"arm": "baseline"}}))


def test_the_harness_opens_a_replay_without_a_key(folder: Path) -> None:
    entry = model(folder)
    provider = adapter(entry, None, {}, provider_for)  # type: ignore[arg-type]
    assert repr(provider) == f"ReplayProvider({str(folder)!r})"


def test_a_manifest_reads_back_as_it_was_written(folder: Path) -> None:
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    assert manifest.source == "an agency, 2026-11"
    assert len(manifest.entries) == 11
    assert write(folder, manifest) == model(folder).version
