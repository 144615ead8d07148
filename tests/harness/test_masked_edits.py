"""A mask from a log goes all the way: to the server's edit, and to what the edit is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from tasks.checks.base import Role
from tasks.checks.suite import check_picture, expected_for
from tasks.harness.journal import Journal
from tasks.harness.run import run_shard
from tasks.images import ImageStore
from tasks.inputs.draw import draw_sample
from tasks.plan import RunFolder
from tasks.policy import Sampling
from tasks.providers.embedded.process import EmbeddedServer
from tasks.providers.embedded.retouch import improved, masked, open_upload, whole
from tasks.records import Case, Finding
from tasks.state import State
from tests.checks.drawing import encoded, scene
from tests.harness.test_with_embedded import settings_of, settle

SIZE = 384


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """Return a folder with an upload and a mask over its lower right quarter."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    dim = scene(SIZE, SIZE, seed=6).point(lambda level: int(level * 0.55))
    (folder / "upload.png").write_bytes(encoded(dim))
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).rectangle((SIZE // 2, SIZE // 2, SIZE, SIZE), fill=255)
    (folder / "mask.png").write_bytes(encoded(mask))
    return folder


def cases_from_a_log(datasets: Path) -> tuple[Case, ...]:
    log = datasets / "log.csv"
    log.write_text(
        "prompt,subtask,upload,mask,width,height\n"
        f"brighten the corner,edit,upload.png,mask.png,{SIZE},{SIZE}\n"
        f"brighten the picture,edit,upload.png,,{SIZE},{SIZE}\n"
    )
    only = Sampling(stress=0, adversarial=0)
    drawn = draw_sample(str(log), only, 2, 1, datasets)
    return tuple(sorted(drawn.cases, key=lambda case: case.mask or ""))


def outside(case: Case, data: bytes, datasets: Path, made: Any) -> Finding:
    files: dict[Role, bytes] = {"upload": (datasets / "upload.png").read_bytes()}
    files["mask"] = (datasets / "mask.png").read_bytes()
    report = check_picture(data, expected_for(case, made), files)
    return next(f for f in report.findings if f.check == "edit.outside")


def test_what_is_outside_of_a_logged_mask_is_kept_and_judged(
    tmp_path: Path, state: State, datasets: Path
) -> None:
    cases = cases_from_a_log(datasets)
    free, within = cases
    assert (free.mask, within.mask) == (None, "mask.png")
    plan = settle(tmp_path, cases)
    folder = RunFolder(tmp_path / "runs" / plan.run_id)
    with EmbeddedServer(tmp_path / "log.jsonl") as server:
        run_shard(
            plan, folder, state, settings_of(tmp_path), "candidate", plan.shards()[0],
            {"embedded": server.base_url}, datasets=datasets,
        )  # fmt: skip
    made = {g.case_id: g for g in Journal(state, plan.run_id).generations("candidate").values()}
    images = ImageStore(settings_of(tmp_path).images)
    found = {
        case.case_id: outside(
            case, images.get(str(made[case.case_id].image_digest)), datasets, made[case.case_id]
        )
        for case in cases
    }
    assert (found[within.case_id].verdict, found[within.case_id].message) == ("pass", "")
    # The same server without the mask brightens all: held against the mask, that is seen.
    assert found[free.case_id].verdict == "fail"
    assert "outside of the mask" in found[free.case_id].message


def test_a_masked_edit_changes_the_white_part_alone(datasets: Path) -> None:
    import numpy as np

    upload = open_upload((datasets / "upload.png").read_bytes())
    mask = open_upload((datasets / "mask.png").read_bytes(), "mask")
    rng = np.random.default_rng(1)
    edited = np.asarray(improved(upload, SIZE, SIZE, "", rng, still=True))
    changed = np.abs(masked(upload, mask, edited).astype(int) - np.asarray(upload)).max(axis=2)
    half = SIZE // 2
    assert changed[: half - 2].max() == changed[:, : half - 2].max() == 0
    assert changed[half + 4 :, half + 4 :].mean() > 10
    assert whole(upload, 100, 50) == (0, SIZE / 4, SIZE, 3 * SIZE / 4)


def test_the_server_refuses_a_mask_where_none_belongs(tmp_path: Path, datasets: Path) -> None:
    upload, mask = ((datasets / f"{name}.png").read_bytes() for name in ("upload", "mask"))
    fields = {"prompt": "brighter", "model": "retouch-2", "size": f"{SIZE}x{SIZE}"}
    cases: list[tuple[str, dict[str, str], list[tuple[str, bytes]], str]] = [
        ("edit", {}, [("image", upload), ("mask", b"no picture")], "the mask cannot be decoded"),
        ("edit", {}, [("mask", mask)], "the file 'image' is missing"),
        ("edit", {}, [("mask", mask), ("mask", mask)], "'mask' stands in the form twice"),
        (
            "upscale",
            {"model": "acnet-x2", "size": f"{2 * SIZE}x{2 * SIZE}"},
            [("image", upload), ("mask", mask)],
            "goes with edits only",
        ),
    ]
    with EmbeddedServer(tmp_path / "log.jsonl") as server, httpx.Client(trust_env=False) as client:
        for operation, changes, parts, says in cases:
            answer = client.post(
                f"{server.base_url}/{operation}",
                data=fields | changes,
                files=[(name, (name, data, "image/png")) for name, data in parts],
            )
            assert answer.status_code == 400, answer.text
            assert says in answer.text
