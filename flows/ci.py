"""What a CI server reads of a gate: JUnit XML, job summary, annotations.

The files say "not finished" from the first moment on and are replaced at the end, so that a gate
that is killed, and a file of an earlier build, never read as green.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.approval.rules import waits
from tasks.errors import ConfigError, EvidenceError, ImagegateError
from tasks.settings import Settings

if TYPE_CHECKING:
    from flows.request import GateRequest, GateResult
    from tasks.evidence.ci_cases import CiFacts

UNFINISHED = (
    "the gate has not given its verdict: it still runs, or was killed; "
    "`imagegate history` shows the run, `imagegate run --resume RUN` goes on with it"
)
#: Names of environment variables whose values must not reach a report of CI.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|WEBHOOK|_DSN", re.IGNORECASE)
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class CiReports:
    """Where the reports of one gate go; see :func:`open_reports`."""

    settings: Settings
    junit: Path | None
    summary: Path | None

    @property
    def _wanted(self) -> bool:
        """Whether anybody reads a report: without CI nothing is imported for it."""
        files = (self.junit, self.summary, self.settings.github_step_summary)
        return self.settings.github_actions or any(files)

    def unfinished(self) -> None:
        """Write that there is no verdict yet."""
        self._broken(UNFINISHED, "Unfinished", at_the_end=False)

    def failed(self, error: BaseException) -> None:
        """Write that the gate refused, broke or was stopped: one error, never a verdict."""
        if isinstance(error, ImagegateError):
            text = str(error)
        elif isinstance(error, KeyboardInterrupt):
            text = "the gate was stopped by a person; nothing changed after the last finished step"
        else:
            text = f"imagegate itself broke: {type(error).__name__}: {error}"
        self._broken(redacted(text, self.settings), type(error).__name__, at_the_end=True)

    def finished(self, request: GateRequest, result: GateResult) -> None:
        """Write the reports of a verdict."""
        if not self._wanted:
            return
        from tasks.evidence.ci_summary import job_summary, workflow_commands
        from tasks.evidence.junit import gate_junit
        from tasks.records import utc_now

        try:
            facts = facts_of(request, result, self.settings)
            document, text = gate_junit(facts, utc_now()), job_summary(facts)
            commands = workflow_commands(facts)
        except Exception as error:  # noqa: BLE001 - production has changed: the verdict stands
            text = f"{result.verdict}, but this report of it cannot be made: {error}"
            _say(f"warning: {redacted(text, self.settings)}")
            self._broken(redacted(text, self.settings), type(error).__name__, at_the_end=True)
            return
        self._write(self.junit, lambda: document)
        self._write(self.summary, text.encode)
        self._github(text, commands)

    def _broken(self, sentence: str, kind: str, *, at_the_end: bool) -> None:
        if not self._wanted:
            return
        from tasks.evidence.ci_cases import broken
        from tasks.evidence.ci_summary import broken_annotation, broken_summary
        from tasks.evidence.junit import junit_xml
        from tasks.records import utc_now

        self._write(
            self.junit,
            lambda: junit_xml(
                broken(sentence, kind), properties={}, seconds=0.0, timestamp=utc_now()
            ),
        )
        text = broken_summary(sentence, kind)
        self._write(self.summary, text.encode)
        if at_the_end:
            self._github(text, [broken_annotation(sentence, kind)])

    def _write(self, target: Path | None, made: Callable[[], bytes]) -> None:
        """Write a report; a verdict that was acted on stands, whatever becomes of its report."""
        from tasks.plan import write_atomic

        if target is None:
            return
        try:
            write_atomic(target, made())
        except EvidenceError as error:
            _say(f"warning: this report is not written: {error}")

    def _github(self, summary: str, commands: list[str]) -> None:
        step = self.settings.github_step_summary
        if step is not None:
            try:
                # Other commands of the step write here too; each run of ours begins a new part.
                with step.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(f"{summary}\n")
            except OSError as error:
                _say(f"warning: the job summary {step} is not written: {error.strerror}")
        if self.settings.github_actions:
            _MUTED.say(commands)


class _Muted:
    """Keeps the runner from taking commands out of what the gate prints.

    A prompt or an error text may hold ``::error`` or ``##[…]``. GitHub's own remedy is
    ``stop-commands`` with a token that nobody can guess; only our own lines are let through.
    """

    def __init__(self) -> None:
        self._token = ""

    def begin(self) -> None:
        """Stop the commands until the end of the process."""
        if not self._token:
            atexit.register(self.end)
        self._token = secrets.token_hex(16)
        _say(f"::stop-commands::{self._token}")

    def end(self) -> None:
        """Let commands through again, for the rest of the step."""
        if self._token:
            _say(f"::{self._token}::")
            self._token = ""
            atexit.unregister(self.end)

    def say(self, commands: list[str]) -> None:
        """Give the runner commands of ours."""
        self.end()
        for line in commands:
            _say(line)
        self.begin()


_MUTED = _Muted()


@contextmanager
def open_reports(
    settings: Settings, *, junit: str | None, summary: str | None
) -> Iterator[Callable[[GateRequest, GateResult], None]]:
    """Yield what is to be called with the result; an error inside is reported and raised on.

    Args:
        settings: Says whether a CI server runs the gate.
        junit: File for the JUnit XML.
        summary: File for the job summary in Markdown.

    Raises:
        ConfigError: A file cannot be written; nothing was spent.
    """
    reports = CiReports(settings, _target("--junit", junit), _target("--summary", summary))
    if settings.github_actions:
        _MUTED.begin()
    reports.unfinished()
    done = False

    def tell(request: GateRequest, result: GateResult) -> None:
        nonlocal done
        done = True
        reports.finished(request, result)

    try:
        yield tell
    except BaseException as error:
        # A report that cannot be made must not hide what happened.
        if not done:
            reports.failed(error)
        raise


def facts_of(request: GateRequest, result: GateResult, settings: Settings) -> CiFacts:
    """Return what a finished gate says to CI, read from its evidence.

    Raises:
        EvidenceError: The evidence is incomplete.
    """
    import json

    from tasks.evidence.bundle import digests, read_table
    from tasks.evidence.ci_cases import CiFacts
    from tasks.plan import RunFolder
    from tasks.records import ExpectationResult, Metrics, Verdict

    folder = RunFolder(Path(result.evidence))
    plan = folder.load_plan()
    metrics = Metrics.model_validate_json(_read(folder.path / "metrics.json"))
    expectations = json.loads(_read(folder.path / "expectations.json"))
    # What the decision saw is read and never worked out again; an older run kept no tests.
    kept = json.loads(_read(folder.path / "verdict.json"))
    base = settings.report_base_url

    def clean(sentences: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(redacted(sentence, settings) for sentence in sentences)

    return CiFacts(
        run_id=result.run_id,
        product=result.product,
        candidate=result.candidate,
        baseline=result.baseline,
        policy=plan.policy,
        metrics=metrics,
        verdict=Verdict(
            verdict=result.verdict,
            reasons=result.reasons,
            warnings=result.warnings,
            tests=kept.get("tests", ()),
            looks=kept.get("looks", ()),
            savings=kept.get("savings"),
        ),
        expectations=tuple(ExpectationResult.model_validate(e) for e in expectations),
        findings=_findings(read_table(folder, "findings")),
        incomplete=result.incomplete,
        spend_usd=result.spend_usd,
        seconds=result.seconds,
        actions=clean(result.actions),
        digests={name: str(value) for name, value in digests(plan).items()},
        report=f"{base.rstrip('/')}/runs/{result.run_id}/report.html" if base else result.report,
        waiting=waits(result.approval),
        candidate_file="" if request.resume else _in_checkout(request.candidate),
    )


def _findings(table: Any) -> dict[str, dict[str, int]]:
    """Return how often each check of the candidate said what."""
    rows = table[table["arm"] == "candidate"]
    counted: dict[str, dict[str, int]] = {}
    for (check, verdict), count in rows.groupby(["check", "verdict"]).size().items():
        counted.setdefault(str(check), {})[str(verdict)] = int(count)
    return counted


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error.strerror}") from None


def _in_checkout(name: str) -> str:
    """Return the file as annotations name it: relative to the checkout, or nothing."""
    path = Path(name)
    return "" if path.is_absolute() or ".." in path.parts else path.as_posix()


def _target(flag: str, name: str | None) -> Path | None:
    """Return the file that a flag names, tried out: what cannot be written is said at once."""
    if name is None:
        return None
    path = Path(name).expanduser().absolute()
    try:
        if not name.strip() or path.is_dir():
            raise IsADirectoryError(0, "it is a folder, not a file")
        if path.exists() and not path.is_file():
            raise OSError(0, "it is a device or a pipe; a report is written to a plain file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{flag} {name!r}: cannot be written: {why}; name a plain file in a folder that may "
            "be written"
        ) from None
    return path


def redacted(text: str, settings: Settings) -> str:
    """Return the text without values of the environment that are secrets by their name."""
    values = {
        value.get_secret_value()
        for name, value in settings.environment.items()
        if _SECRET_NAME.search(name)
    }
    with contextlib.suppress(Exception):
        import sqlalchemy as sa

        values.add(str(sa.make_url(settings.state_url.get_secret_value()).password or ""))
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "[secret removed]")
    return text


def _say(line: str) -> None:
    """Print a line on stderr, never wrapped; a reader that went away changes nothing."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
        sys.stderr.flush()
