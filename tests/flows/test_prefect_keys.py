from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from flows.prefect_keys import block_name, with_block_keys
from tasks.settings import load_settings
from tests.conftest import ROOT, clean_environment


def test_the_environment_comes_first_and_the_block_second(tmp_path: Path) -> None:
    asked: list[str] = []

    def load(name: str) -> SecretStr | None:
        asked.append(name)
        return SecretStr("from a block") if name == "second-key" else None

    settings = load_settings({"FIRST_KEY": "from the environment"}, tmp_path)
    full = with_block_keys(settings, ("FIRST_KEY", "SECOND_KEY", "THIRD_KEY", None), load)
    assert asked == ["second-key", "third-key"]
    keys = [full.key(name) for name in ("FIRST_KEY", "SECOND_KEY", "THIRD_KEY")]
    values = [key and key.get_secret_value() for key in keys]
    assert values == ["from the environment", "from a block", None]
    assert "from a block" not in repr(full) + str(full.model_dump())
    assert settings.key("SECOND_KEY") is None


def test_nobody_is_asked_when_no_key_is_missing(tmp_path: Path) -> None:
    def load(name: str) -> SecretStr | None:
        raise AssertionError(name)

    settings = load_settings({"FIRST_KEY": "x"}, tmp_path)
    assert with_block_keys(settings, ("FIRST_KEY", None), load) is settings


def test_names_of_blocks_are_names_that_prefect_allows() -> None:
    assert block_name("OPENAI_API_KEY") == "openai-api-key"


@pytest.mark.timeout(200)
def test_a_real_block_is_found_in_a_flow(
    prefect_home: Path, prefect_server: str, tmp_path: Path
) -> None:
    code = f"""
from pathlib import Path
from prefect import flow
from prefect.blocks.system import Secret
from flows.prefect_keys import with_block_keys
from tasks.errors import ConfigError
from tasks.settings import load_settings

Secret(value="right-key").save("bold-key", overwrite=True)
Secret(value={{"a": 1}}).save("odd-key", overwrite=True)
settings = load_settings(home=Path({str(tmp_path)!r}))

@flow
def gate():
    found = with_block_keys(settings, ("BOLD_KEY", "NO_SUCH_KEY"))
    assert found.key("BOLD_KEY").get_secret_value() == "right-key"
    assert found.key("NO_SUCH_KEY") is None
    try:
        with_block_keys(settings, ("ODD_KEY",))
    except ConfigError as error:
        assert "secret/odd-key holds dict" in str(error), error
    else:
        raise AssertionError("an odd block was taken")

gate()
"""
    env = clean_environment() | {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": prefect_server,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "right-key" not in done.stdout + done.stderr
