"""Provenance: versions that can be looked up, and none that is guessed."""

import subprocess
from importlib import metadata

import pytest

from tasks.evidence import provenance as module
from tasks.evidence.provenance import LIBRARIES, provenance


def test_it_names_code_python_and_libraries() -> None:
    found = provenance()
    assert found["pandas"] == metadata.version("pandas")
    assert set(found) >= {"imagegate", "git commit", "python", "platform", *LIBRARIES}
    assert all(found.values())


def test_without_git_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert module.provenance.__wrapped__()["git commit"] == "none"
