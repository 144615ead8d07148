"""Protocols find their adapters, and none is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
from pydantic import SecretStr

from tasks.errors import ConfigError
from tasks.mix.catalog import Protocol
from tasks.providers import registry
from tasks.providers.base import Capabilities
from tests.providers.kit import a_model


@pytest.mark.parametrize(
    "protocol", [name for name in registry.protocols() if name != "replay"]
)  # a replay reads a folder and has neither address nor key
def test_every_protocol_has_an_adapter_that_shows_no_key(protocol: str) -> None:
    key = "AKIDEXAMPLE0000:secret-of-the-test-0123"
    adapter = registry.provider_for(
        a_model(protocol=protocol), "http://127.0.0.1:9", SecretStr(key)
    )
    assert key not in repr(adapter)
    assert "secret" not in repr(adapter)
    assert isinstance(adapter.capabilities(a_model(protocol=protocol)), Capabilities)


def test_the_catalog_offers_no_protocol_without_an_adapter() -> None:
    assert set(registry.protocols()) == set(get_args(Protocol))


def test_a_protocol_without_an_adapter_is_refused_with_the_known_ones() -> None:
    model = a_model().model_copy(update={"protocol": "carrier-pigeon"})
    with pytest.raises(ConfigError, match=r"protocol 'carrier-pigeon' \(known: .*raw"):
        registry.provider_for(model, "http://127.0.0.1:9", None)


def test_the_registry_imports_no_adapter() -> None:
    code = (
        "import sys, tasks.providers.registry as r; r.protocols();"
        "print([p for p in r.protocols() if f'tasks.providers.{p}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
