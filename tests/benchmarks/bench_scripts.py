"""How well each script is read: the table in the docs of the checks.

Drawn texts in several fonts, sizes and grounds, each once right and once with one letter
exchanged for another of the script.
"""

from collections import Counter
from typing import Any

import pytest

from tasks.records import Finding
from tests.real import test_real_mixed_scripts as mixed
from tests.real.test_real_scripts import SCRIPTS, tried

ROUNDS = 4


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", SCRIPTS)
def bench_script(benchmark: Any, language: str, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.group = "scripts"
    good, bad = benchmark.pedantic(tried, args=(language, ROUNDS), rounds=1)
    with capsys.disabled():
        print(f"\n| {language} | {_cells(good)} | {_cells(bad)} |")  # noqa: T201 - the table
    assert sum(f.verdict == "pass" for f in bad) <= 0.05 * len(bad)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", mixed.MIXED)
def bench_mixed(benchmark: Any, language: str, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.group = "scripts"
    good, bad = benchmark.pedantic(mixed.tried, args=(language, ROUNDS), rounds=1)
    with capsys.disabled():
        print(f"\n| {language}, mixed | {_cells(good)} | {_cells(bad)} |")  # noqa: T201
    assert not any(f.verdict == "pass" for f in bad)


def _cells(findings: list[Finding]) -> str:
    """Return how many passed, failed and were not sure."""
    verdicts = Counter(finding.verdict for finding in findings)
    return " | ".join(str(verdicts[name]) for name in ("pass", "fail", "skip"))
