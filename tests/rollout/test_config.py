from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.rollout.config import load_rollout, open_router
from tasks.rollout.routers.file import FileRouter
from tasks.settings import Settings, load_settings


def given(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "rollout.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings({"IMAGEGATE_ROLLOUT_FILE": str(path)}, home=tmp_path)


def test_without_a_file_the_router_is_the_routing_file(tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path)
    router = open_router(settings)
    assert isinstance(router, FileRouter)
    assert router.path == settings.routing_file


def test_a_file_may_name_another_place_for_the_routing(tmp_path: Path) -> None:
    settings = given(tmp_path, f"router: {{kind: file, path: {tmp_path / 'elsewhere.json'}}}\n")
    router = open_router(settings)
    assert isinstance(router, FileRouter)
    assert router.path == tmp_path / "elsewhere.json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("router: {kind: carrier-pigeon}", "kind"),
        ("rooter: {kind: file}", "unknown field"),
        ("router: {kind: file, paht: x}", "unknown field"),
        ("schema_version: 2", "schema_version"),
        ("- router", "expected a mapping"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_rollout(given(tmp_path, text))
    assert "rollout.yaml" in str(caught.value)


def test_a_file_that_is_named_and_missing_is_an_error(tmp_path: Path) -> None:
    settings = load_settings({"IMAGEGATE_ROLLOUT_FILE": str(tmp_path / "no.yaml")}, home=tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        open_router(settings)
