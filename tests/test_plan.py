from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import EvidenceError
from tasks.images import ImageStore
from tasks.mix.catalog import Catalog, Licence, Model, Price
from tasks.mix.manifest import Mix, ResolvedMix, resolve_mix
from tasks.plan import RunFolder, RunPlan, write_atomic
from tasks.policy import Policy, Sampling
from tasks.records import Case, digest_bytes


def mix_of(model_name: str) -> ResolvedMix:
    model = Model(
        name=model_name,
        protocol="raw",
        endpoint="embedded",
        version="v1",
        pin="dated",
        operations=("generate", "edit"),
        licence=Licence(id="MIT", uses=("commercial",)),
        price=Price.model_validate({"usd": 0.02, "source": "s", "date": "2026-01-01"}),
    )
    routes: dict[str, Any] = {
        subtask: [{"stages": [{"model": model_name}]}]
        for subtask in ("typography", "creative", "fast", "upscale")
    }
    routes["edit"] = [{"stages": [{"model": model_name, "operation": "edit"}]}]
    mix = Mix.model_validate({"name": model_name, "product": "shop", "routes": routes})
    return resolve_mix(mix, Catalog(models=(model,)), "test")


@pytest.fixture
def plan() -> RunPlan:
    cases = tuple(Case(case_id=f"c{n}", prompt=f"p{n}", subtask="fast") for n in range(10))
    return RunPlan(
        run_id="run-1",
        product="shop",
        created_at="2026-09-14T00:00:00.000Z",
        baseline=mix_of("folio-1"),
        candidate=mix_of("folio-2"),
        policy=Policy(sampling=Sampling(shard_size=4)),
        seed=7,
        budget_microusd=1_000_000,
        day_budget_microusd=2_000_000,
        inputs="log.csv",
        cases=cases,
        coverage={"strata": 3},
    )


def test_a_plan_comes_back_as_it_was_written(plan: RunPlan, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    folder.write("plan.json", plan.model_dump_json())
    assert folder.load_plan() == plan
    assert folder.run_id == "run-1"


def test_shards_hold_every_case_once_in_order(plan: RunPlan) -> None:
    shards = plan.shards()
    assert [len(shard.case_ids) for shard in shards] == [4, 4, 2]
    assert [shard.number for shard in shards] == [0, 1, 2]
    drawn = [case_id for shard in shards for case_id in shard.case_ids]
    assert drawn == [case.case_id for case in plan.cases]


def test_arms_have_their_mixes(plan: RunPlan) -> None:
    assert plan.mix("baseline").mix.name == "folio-1"
    assert plan.mix("candidate").mix.name == "folio-2"


def test_a_seed_belongs_to_what_is_asked_for_and_to_the_run(plan: RunPlan) -> None:
    first, second = plan.cases[:2]
    renamed = first.model_copy(update={"case_id": "other", "weight": 9.0})
    assert plan.case_seed(first) == plan.case_seed(renamed)
    assert plan.case_seed(first) != plan.case_seed(second)
    other = plan.model_copy(update={"seed": 8})
    assert plan.case_seed(first) != other.case_seed(first)
    assert all(0 <= plan.case_seed(case) < 2**31 for case in plan.cases)


def test_a_run_without_plan_points_to_the_history(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"'run-9' has no plan.*imagegate history"):
        RunFolder(tmp_path / "run-9").load_plan()


@pytest.mark.parametrize("text", ["", "{", '{"run_id": 1}', "null"])
def test_a_damaged_plan_is_said_to_be_damaged(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path / "run-1")
    folder.write("plan.json", text)
    with pytest.raises(EvidenceError, match=r"plan\.json: the plan is damaged"):
        folder.load_plan()


def test_a_file_is_replaced_all_at_once(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    assert write_atomic(target, "first") == target
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_broken_unicode_can_be_written(tmp_path: Path) -> None:
    target = write_atomic(tmp_path / "prompts.txt", "half \ud800 pair")
    assert target.read_bytes().decode("utf-8", "surrogatepass") == "half \ud800 pair"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_disk_full_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = write_atomic(tmp_path / "file.txt", "old")

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(EvidenceError, match=r"file\.txt.*the disk is full; free space"):
        write_atomic(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_the_error_is_the_first_one_when_cleaning_up_fails_too(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EvidenceError, match="File exists"):
        write_atomic(blocked / "below", "x")


def test_threads_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    data = [bytes([n]) * 200_000 for n in range(4)]
    start = threading.Barrier(8)
    errors: list[Exception] = []

    def put() -> None:
        start.wait()
        try:
            for one in data:
                store.put(one)
                write_atomic(tmp_path / "same", one)
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the test
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(store.get(digest_bytes(one)) == one for one in data)
    assert (tmp_path / "same").read_bytes() in data
    assert not list(tmp_path.rglob("*.tmp"))


def test_images_are_stored_once_by_their_digest(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    digest = store.put(b"picture")
    written = store.path(digest).stat().st_mtime_ns
    assert store.put(b"picture") == digest == digest_bytes(b"picture")
    assert store.path(digest).stat().st_mtime_ns == written
    assert store.get(digest) == b"picture"


def test_an_altered_or_missing_image_is_an_evidence_error(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    digest = store.put(b"picture")
    store.path(digest).write_bytes(b"painting")
    with pytest.raises(EvidenceError, match="was altered"):
        store.get(digest)
    store.path(digest).unlink()
    with pytest.raises(EvidenceError, match="cannot be read"):
        store.get(digest)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:../../etc/passwd",
        "md5:" + "0" * 32,
        "sha256:" + "G" * 64,
        "sha256:" + "0" * 64 + "\n",
    ],
)
def test_only_a_digest_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(EvidenceError, match="not an image digest"):
        ImageStore(tmp_path).path(digest)
