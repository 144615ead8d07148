from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.pools import base_job_template, job_variables, worker_hint
from tasks.errors import ConfigError
from tasks.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        {
            "IMAGEGATE_STATE_URL": "postgresql+psycopg://gate:hunter2@db/gate",
            "SLACK_BOT_TOKEN": "xoxb-1-secret",
            "IMAGEGATE_SLACK_CHANNEL": "C012345",
            "IMAGEGATE_EVIDENCE_URL": "s3://bucket/evidence",
        },
        home=tmp_path,
    )


def test_a_process_gets_this_home_and_no_secret(settings: Settings, tmp_path: Path) -> None:
    made = job_variables(settings, "process", image=None, home=None, extra={"TZ": "UTC"})
    assert made["env"]["IMAGEGATE_HOME"] == str(tmp_path)
    assert made["env"]["IMAGEGATE_SLACK_CHANNEL"] == "C012345"
    assert made["env"]["TZ"] == "UTC"
    assert "hunter2" not in str(made)
    assert "xoxb" not in str(made)


def test_a_container_gets_its_own_home_and_image(settings: Settings) -> None:
    made = job_variables(settings, "docker", image="reg.example.com/g:1", home=None, extra={})
    assert made["image"] == "reg.example.com/g:1"
    assert made["env"]["IMAGEGATE_HOME"] == "/var/lib/imagegate"
    bare = job_variables(settings, "kubernetes", image="g:1", home="worker", extra={})
    assert "IMAGEGATE_HOME" not in bare["env"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLACK_BOT_TOKEN", "x"),
        ("IMAGEGATE_STATE_URL", "sqlite://"),
        ("MY_KEY", "x"),
        ("PROXY", "http://user:pass@proxy"),
        ("NOTE", "xoxb-12"),
    ],
)
def test_what_looks_like_a_secret_is_refused_and_not_repeated(
    settings: Settings, name: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        job_variables(settings, "process", image=None, home=None, extra={name: value})
    assert "user:pass" not in str(caught.value)


def test_an_evidence_address_with_a_password_is_refused(tmp_path: Path) -> None:
    settings = load_settings({"IMAGEGATE_EVIDENCE_URL": "s3://key:secret@bucket"}, home=tmp_path)
    with pytest.raises(ConfigError, match="IMAGEGATE_EVIDENCE_URL"):
        job_variables(settings, "process", image=None, home=None, extra={})


def test_flags_have_to_fit_the_type(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="--image"):
        job_variables(settings, "docker", image=None, home=None, extra={})
    with pytest.raises(ConfigError, match="--image"):
        job_variables(settings, "process", image="g:1", home=None, extra={})


class Server:
    """Knows only its own types of pools."""

    def read_worker_metadata(self) -> dict[str, Any]:
        return {"prefect": {"process": {"type": "process"}}}


def test_a_type_without_a_template_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match="prefect-docker") as caught:
        base_job_template(Server(), "docker")  # type: ignore[arg-type]
    assert "base-job-template" in str(caught.value)


def test_the_hint_names_the_worker() -> None:
    assert "prefect worker start --pool p --type docker" in worker_hint("p", "docker")
    assert "prefect-kubernetes" in worker_hint("p", "kubernetes")
