"""Keys of model providers from Prefect's Secret blocks, where the environment has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import SecretStr

from tasks.errors import ConfigError
from tasks.settings import Settings


def block_name(variable: str) -> str:
    """Return the name of the Secret block that stands for a variable: ``openai-api-key``."""
    return variable.lower().replace("_", "-").strip("-")


def load_block(name: str) -> SecretStr | None:
    """Return the value of a Secret block, ``None`` when there is no such block.

    Raises:
        ConfigError: The block holds something else than one text.
    """
    from prefect.blocks.system import Secret

    try:
        block = Secret.load(name)
    except ValueError:
        return None
    # Called where no event loop runs, so it is the block and not a promise of it.
    value = block.get() if isinstance(block, Secret) else block
    if not isinstance(value, str):
        raise ConfigError(
            f"Prefect block secret/{name} holds {type(value).__name__}, a key is one text; "
            "save the block again with the key alone"
        )
    return SecretStr(value) if value else None


def with_block_keys(
    settings: Settings,
    variables: Iterable[str | None],
    load: Callable[[str], SecretStr | None] = load_block,
) -> Settings:
    """Return the settings with the keys that only Prefect's Secret blocks have.

    The environment comes first. A variable ``OPENAI_API_KEY`` is looked for in the block
    ``openai-api-key``; what neither has stays missing, and the preflight names it.

    Args:
        settings: The settings.
        variables: Names of the keys that the models of a run need.
        load: Gives the value of a block.

    Raises:
        ConfigError: A block holds something else than a key.
    """
    missing = {name for name in variables if name is not None and settings.key(name) is None}
    found = {name: key for name in sorted(missing) if (key := load(block_name(name))) is not None}
    if not found:
        return settings
    return settings.model_copy(update={"environment": {**settings.environment, **found}})
