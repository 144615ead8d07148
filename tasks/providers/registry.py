"""Which adapter speaks which protocol."""

from __future__ import annotations

from pydantic import SecretStr

from tasks.errors import ConfigError, known
from tasks.mix.catalog import Model
from tasks.providers.base import Provider
from tasks.providers.raw import RawProvider

_ADAPTERS: dict[str, type[RawProvider]] = {"raw": RawProvider}


def provider_for(model: Model, base_url: str, key: SecretStr | None) -> Provider:
    """Return the adapter for a catalog model.

    Args:
        model: The model; its ``protocol`` chooses the adapter.
        base_url: Where the model is served.
        key: The key for that address, ``None`` when it needs none.

    Raises:
        ConfigError: No adapter speaks the protocol, or the address or the key is unusable.
    """
    adapter = _ADAPTERS.get(model.protocol)
    if adapter is None:
        raise ConfigError(
            f"model {model.name!r}: no adapter for protocol {model.protocol!r} {known(_ADAPTERS)}"
        )
    return adapter(base_url, key)
