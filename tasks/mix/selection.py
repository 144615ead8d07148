"""Which files a gate is about: catalog, policy, candidate and baseline, read and held together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ConfigError, RefusedError
from tasks.mix.catalog import load_catalog
from tasks.mix.manifest import ResolvedMix, load_mix
from tasks.mix.production import kept_mix, previous_digest, production_mix, read_production
from tasks.plan import RunPlan
from tasks.policy import Policy, load_policy
from tasks.settings import DEPLOYMENTS, PROJECT_ROOT
from tasks.state import State


@dataclass(frozen=True, slots=True)
class Selection:
    """What a gate judges, by which rules, against what."""

    policy: Policy
    candidate: ResolvedMix
    baseline: ResolvedMix

    @property
    def product(self) -> str:
        """The product whose production is at stake."""
        return self.candidate.mix.product


def find_file(name: str) -> Path:
    """Return the file as the caller named it, or the one of that name in the project.

    Raises:
        ConfigError: Neither exists.
    """
    given = Path(name).expanduser()
    for path in (given, PROJECT_ROOT / name):
        if path.is_file():
            return path
    raise ConfigError(f"{name}: no such file (looked in {Path.cwd()} and {PROJECT_ROOT})")


def select(
    state: State, candidate: str, baseline: str | None, policy: str, catalog: str
) -> Selection:
    """Read the files of a gate and find the baseline.

    Without a named baseline it is what serves now; when the candidate itself serves now, what
    served before it; when nothing was ever released, the shipped ``mixes/production.yaml``.

    Raises:
        ConfigError: A file is missing or invalid, or the two mixes are of different products.
        RefusedError: Production serves neither the baseline nor the candidate.
    """
    models = load_catalog(find_file(catalog))
    rules = load_policy(find_file(policy))
    asks = load_mix(find_file(candidate), models)
    product = asks.mix.product
    pointer = read_production(state, product)
    if baseline is not None:
        serves = load_mix(find_file(baseline), models)
    elif pointer is None:
        serves = load_mix(DEPLOYMENTS / "mixes" / "production.yaml", models)
    elif pointer.mix_digest != asks.digest:
        serves = production_mix(state, product, models)
    else:
        before = previous_digest(state, product)
        if before is None:
            raise ConfigError(
                f"{candidate}: this mix serves {product!r} already and no earlier mix is left "
                "to compare with; name one by --baseline"
            )
        serves = kept_mix(state, before)
    if serves.mix.product != product:
        raise ConfigError(
            f"{candidate} is of product {product!r}, the baseline {serves.mix.name!r} of "
            f"{serves.mix.product!r}; a gate compares mixes of one product"
        )
    if pointer is not None and pointer.mix_digest not in (serves.digest, asks.digest):
        name = kept_mix(state, pointer.mix_digest).mix.name
        raise RefusedError(
            f"production of {product!r} serves {name!r} ({pointer.mix_digest[:19]}…), which is "
            f"neither the baseline nor the candidate; leave out --baseline to compare with it, or "
            f"put another mix back first with `imagegate rollback --to DIGEST`"
        )
    return Selection(policy=rules, candidate=asks, baseline=serves)


def selection_of(plan: RunPlan) -> Selection:
    """Return the selection that a plan was made of; a resumed run keeps it."""
    return Selection(policy=plan.policy, candidate=plan.candidate, baseline=plan.baseline)
