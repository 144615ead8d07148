"""Which files a picture of a run is judged against."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.checks.task import _references
from tasks.context import RunContext
from tasks.records import Case, Generation
from tasks.settings import DATASETS

NEW = Case(case_id="c", prompt="a mug", subtask="creative", width=512, height=512)


def generation(arm: str, digest: str | None, **more: Any) -> Generation:
    return Generation(
        run_id="r", arm=arm, mix_digest="m", case_id="c", seed=1, models=("a",),
        status="ok" if digest else "refused", image_digest=digest, **more,
    )  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    (tmp_path / "base").write_bytes(b"x")
    return cast(RunContext, SimpleNamespace(images=SimpleNamespace(path=tmp_path.joinpath)))


def test_a_new_picture_is_judged_beside_the_baselines(context: RunContext, tmp_path: Path) -> None:
    mine = generation("candidate", "mine")
    found = _references(context, NEW, mine, generation("baseline", "base"))
    assert found == {"baseline": tmp_path / "base"}


def test_without_a_baselines_picture_it_is_judged_by_itself(context: RunContext) -> None:
    mine = generation("candidate", "mine")
    for before in (None, generation("baseline", "lost"), generation("baseline", None)):
        assert _references(context, NEW, mine, before) == {}


def test_what_a_picture_was_made_from_goes_before_the_baselines(
    context: RunContext, tmp_path: Path
) -> None:
    before = generation("baseline", "base")
    edit = NEW.model_copy(update={"subtask": "edit", "upload": "uploads/a.png"})
    found = _references(context, edit, generation("candidate", "mine"), before)
    assert found == {"upload": DATASETS / "uploads/a.png"}
    large = generation("candidate", "mine", source_digest="small")
    assert _references(context, NEW, large, before) == {"source": tmp_path / "small"}
