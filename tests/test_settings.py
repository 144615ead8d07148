from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.settings import DATASETS, DEPLOYMENTS, PROJECT_ROOT, Settings, load_settings

SECRETS = {
    "SLACK_BOT_TOKEN": "xoxb-very-secret",
    "IMAGEGATE_STATE_URL": "postgresql://u:hunter2@h/n",
    "FOLIO_KEY": "sk-very-secret",
}


def test_everything_lies_below_one_home(tmp_path: Path) -> None:
    settings = load_settings({"IMAGEGATE_HOME": str(tmp_path)})
    assert settings.home == tmp_path
    assert settings.runs == tmp_path / "runs"
    assert settings.images == tmp_path / "images"
    assert settings.routing_file == tmp_path / "routing.json"
    assert settings.state_url.get_secret_value() == f"sqlite:///{tmp_path / 'state.db'}"
    assert settings.slack_token is None
    assert settings.slack_base_url == "https://slack.com/api/"


def test_without_a_home_it_is_a_folder_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).home == tmp_path / ".imagegate"
    assert load_settings({"IMAGEGATE_HOME": ""}).home == tmp_path / ".imagegate"


def test_the_argument_comes_before_the_environment(tmp_path: Path) -> None:
    settings = load_settings({"IMAGEGATE_HOME": "/elsewhere"}, home=tmp_path)
    assert settings.home == tmp_path


def test_the_environment_says_where_things_are(tmp_path: Path) -> None:
    settings = load_settings(
        SECRETS
        | {
            "IMAGEGATE_HOME": str(tmp_path),
            "IMAGEGATE_SLACK_CHANNEL": "#ops",
            "IMAGEGATE_SLACK_URL": "http://127.0.0.1:1/api/",
            "IMAGEGATE_ROUTING_FILE": str(tmp_path / "etc" / "routing.json"),
        }
    )
    assert settings.slack_token is not None
    assert settings.slack_token.get_secret_value() == "xoxb-very-secret"
    assert settings.slack_channel == "#ops"
    assert settings.slack_base_url == "http://127.0.0.1:1/api/"
    assert settings.routing_file == tmp_path / "etc" / "routing.json"


def test_keys_are_found_by_name_and_empty_ones_are_missing(tmp_path: Path) -> None:
    settings = load_settings(SECRETS | {"EMPTY_KEY": ""}, home=tmp_path)
    key = settings.key("FOLIO_KEY")
    assert key is not None
    assert key.get_secret_value() == "sk-very-secret"
    assert settings.key("EMPTY_KEY") is None
    assert settings.key("NO_SUCH_KEY") is None


def test_no_secret_is_shown_by_any_way_of_showing_settings(tmp_path: Path) -> None:
    settings = load_settings(SECRETS, home=tmp_path)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for secret in ("xoxb-very-secret", "hunter2", "sk-very-secret"):
        assert secret not in shown


def test_settings_do_not_change_and_take_no_unknown_field(tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path)
    with pytest.raises(ValidationError):
        settings.home = Path("/")  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings.model_validate({**dict(settings), "colour": "red"})


def test_the_project_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (PROJECT_ROOT / "pyproject.toml").is_file()
    assert DATASETS.parent == DEPLOYMENTS.parent == PROJECT_ROOT


def test_how_many_drawings_a_run_plants_defects_in() -> None:
    assert load_settings({}).planted_drawings == 10
    assert load_settings({}).planted_file == DATASETS / "planted.json"
    asked = {"IMAGEGATE_PLANTED_DRAWINGS": "25", "IMAGEGATE_PLANTED_FILE": "/data/p.json"}
    assert load_settings(asked).planted_drawings == 25
    assert load_settings(asked).planted_file == Path("/data/p.json")
    for wrong in ("0", "-3", "2.5", "1001", "many", "\u0661"):
        with pytest.raises(ConfigError, match=r"IMAGEGATE_PLANTED_DRAWINGS=.* from 1 to 1,000"):
            load_settings({"IMAGEGATE_PLANTED_DRAWINGS": wrong})
