"""Let Great Expectations check a policy, and keep suites, results and Data Docs as evidence."""

from __future__ import annotations

import html
import json
import math
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import EvidenceError
from tasks.expectations.compile import (
    OUTCOME_COLUMNS,
    TABLES,
    Rule,
    Table,
    build_suite,
    compile_rules,
    seen,
)
from tasks.expectations.docs import self_contained
from tasks.metrics.measures import measures
from tasks.plan import write_atomic
from tasks.policy import Policy
from tasks.records import ExpectationResult, Metrics

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.data_context.data_context.abstract_data_context import (
        AbstractDataContext,
    )

#: Great Expectations keeps one current context a process.
_CONTEXT = threading.Lock()


def warm_up() -> None:
    """Import Great Expectations, which takes seconds: in a thread while images are made."""
    build_suite((), "metrics")


def validate(
    policy: Policy, metrics: Metrics, outcomes: pd.DataFrame, folder: Path
) -> tuple[ExpectationResult, ...]:
    """Validate the outcomes of both arms and the candidate's figures against a policy.

    Writes ``expectations/suite-<table>.json``, ``expectations/validation-<table>.json`` and the
    site ``data_docs/index.html``, which needs no network, in place of what an earlier validation
    of the same run left there.

    Args:
        policy: The policy.
        metrics: The metrics of the run.
        outcomes: The frame of :func:`tasks.metrics.tables.outcomes_frame`, both arms.
        folder: The run's folder.

    Returns:
        One result a rule, in the order of :func:`tasks.expectations.compile.compile_rules`. What
        is missing, no number, or made Great Expectations stumble is ``unmeasured`` and no success.

    Raises:
        EvidenceError: The evidence cannot be written.
    """
    rules = compile_rules(policy)
    figures = measures(metrics)
    frames = {"outcomes": _presentable(outcomes), "metrics": _one_row(figures)}
    with _CONTEXT:
        context = _context()
        found = {table: _run(context, rules, table, frames[table]) for table in TABLES}
        try:
            for table in TABLES:
                _keep(folder / "expectations", table, rules, found[table])
            _publish(context, folder / "data_docs")
            held = [(table, bool(result.success)) for table, result in found.items()]
            self_contained(folder / "data_docs", held)
        except OSError as error:
            raise EvidenceError(
                f"{folder}: the validation cannot be written: {error.strerror or error}; free "
                "space or set IMAGEGATE_HOME elsewhere, then resume the run"
            ) from error
    return tuple(_result(rule, found[rule.table], figures) for rule in rules)


def _context() -> AbstractDataContext:
    """Return a context in memory that reports to nobody and draws no progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _run(
    context: AbstractDataContext, rules: Sequence[Rule], table: Table, frame: pd.DataFrame
) -> ExpectationSuiteValidationResult:
    """Return the validation of one table."""
    import great_expectations as gx

    asset = context.data_sources.add_pandas(table).add_dataframe_asset(table)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=table,
            data=asset.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(build_suite(rules, table)),
        )
    )
    return definition.run(batch_parameters={"dataframe": frame})


def _presentable(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that the suite looks at, safe to show.

    Data Docs write values into HTML as they are, and whoever writes the inputs chooses the case
    ids. A column that is not there stays away: its expectations then fail as unmeasured.
    """
    present = [column for column in OUTCOME_COLUMNS if column in outcomes.columns]
    frame = outcomes[present].copy()
    for column in frame.select_dtypes(include=["str", "object"]).columns:
        frame[column] = frame[column].map(_escape, na_action="ignore")
    return frame


def _escape(value: object) -> object:
    return html.escape(value) if isinstance(value, str) else value


def _one_row(figures: dict[str, float | None]) -> pd.DataFrame:
    """Return the figures as a table of one row; what is unknown is NaN."""
    import pandas as pd

    row = {name: [math.nan if value is None else value] for name, value in figures.items()}
    return pd.DataFrame(row, dtype="float64")


def _keep(
    folder: Path, table: Table, rules: Sequence[Rule], found: ExpectationSuiteValidationResult
) -> None:
    """Write the suite and its validation as JSON."""
    evidence: dict[str, Any] = {"suite": build_suite(rules, table), "validation": found}
    for what, value in evidence.items():
        write_atomic(folder / f"{what}-{table}.json", json.dumps(value.to_json_dict(), indent=1))


def _publish(context: AbstractDataContext, folder: Path) -> None:
    """Write the Data Docs as Great Expectations draws them."""
    if folder.exists():
        shutil.rmtree(folder)
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    context.add_data_docs_site(
        site_name="evidence",
        site_config={
            "class_name": "SiteBuilder",
            "store_backend": backend,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    context.build_data_docs()


def _result(
    rule: Rule, found: ExpectationSuiteValidationResult, figures: dict[str, float | None]
) -> ExpectationResult:
    """Return what came of one rule."""
    results = [r for r in found.results if _source(r) == rule.source]
    complete = len(results) == len(rule.expectations)
    broken = not complete or any(_raised(r.exception_info) for r in results)
    holds = complete and all(r.success is True for r in results)
    if rule.limit is None:
        return _outcome(rule, holds and not broken, broken, None, rule.sentence)
    value = figures.get(rule.limit.measure)
    # Said by us and not by Great Expectations alone: nulls are nothing to it.
    unknown = broken or value is None or not math.isfinite(value)
    return _outcome(rule, holds and not unknown, unknown, value, seen(rule.limit, value))


def _outcome(
    rule: Rule, success: bool, unmeasured: bool, observed: float | None, sentence: str
) -> ExpectationResult:
    """Return the record of a rule."""
    return ExpectationResult(
        name=rule.name,
        source=rule.source,
        on_breach=rule.on_breach,
        success=success,
        unmeasured=unmeasured,
        observed=observed,
        sentence=sentence,
    )


def _source(result: Any) -> str | None:
    """Return which rule a result of Great Expectations belongs to."""
    config = result.expectation_config
    return None if config is None else config.meta.get("source")


def _raised(info: Any) -> bool:
    """Tell whether an expectation raised: one flag, or one for each of its metrics."""
    if not isinstance(info, dict):
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(_raised(part) for part in info.values())
