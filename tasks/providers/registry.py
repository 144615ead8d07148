"""Which adapter speaks which protocol: the module of the protocol's name, imported when asked.

A module names its adapter by ``ADAPTER``, a class that is made of address and key.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Protocol as Shape
from typing import cast, get_args

from pydantic import SecretStr

from tasks.errors import ConfigError, known
from tasks.mix.catalog import Model, Protocol
from tasks.providers.base import Provider

_PACKAGE = __name__.rpartition(".")[0]


class _Making(Shape):
    """What a module's ``ADAPTER`` is."""

    def __call__(self, base_url: str, key: SecretStr | None) -> Provider:
        """Return the adapter for an address."""
        ...


def protocols() -> tuple[str, ...]:
    """Return the protocols that an adapter speaks, without importing any."""
    names: tuple[str, ...] = get_args(Protocol)
    return tuple(n for n in names if importlib.util.find_spec(f"{_PACKAGE}.{n}") is not None)


def provider_for(model: Model, base_url: str, key: SecretStr | None) -> Provider:
    """Return the adapter for a catalog model.

    Args:
        model: The model; its ``protocol`` chooses the adapter.
        base_url: Where the model is served.
        key: The key for that address, ``None`` when it needs none.

    Raises:
        ConfigError: No adapter speaks the protocol, or the address or the key is unusable.
    """
    spoken = protocols()
    if model.protocol not in spoken:
        raise ConfigError(
            f"model {model.name!r}: no adapter for protocol {model.protocol!r} {known(spoken)}"
        )
    module = importlib.import_module(f"{_PACKAGE}.{model.protocol}")
    return cast("_Making", module.ADAPTER)(base_url, key)
