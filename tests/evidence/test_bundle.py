"""The bundle: everything is in it, twice the same, no secret, and every change is noticed."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from pydantic import SecretStr

from flows.ci import facts_of
from flows.request import GateRequest
from flows.results import build_result
from tasks.errors import EvidenceError
from tasks.evidence.bundle import (
    MANIFEST,
    TABLES,
    known_secrets,
    read_table,
    seal,
    verify_seal,
    write_bundle,
)
from tasks.evidence.ci_cases import ci_cases
from tasks.evidence.view import ReportView
from tasks.images import ImageStore
from tasks.metrics.tables import (
    attempts_frame,
    cases_frame,
    findings_frame,
    generations_frame,
    outcomes_frame,
    reports_frame,
)
from tasks.mix.catalog import load_catalog
from tasks.mix.manifest import Mix, load_mix
from tasks.plan import RunFolder
from tasks.policy import load_policy
from tasks.records import Look, Savings, SequentialResult, Verdict
from tasks.settings import Settings, load_settings

KEY = "sk-live-0123456789abcdef"
SLACK = "xoxb-99887766-secret"
PASSWORD = "corr3ct-horse-battery"


@pytest.fixture(scope="module")
def view(builders: ModuleType) -> ReportView:
    return builders.a_view(cases=30, hostile=True)


def frames(view: ReportView) -> dict[str, pd.DataFrame]:
    return {
        "cases": cases_frame(view.plan.cases),
        "generations": generations_frame(view.generations),
        "attempts": attempts_frame(view.generations),
        "findings": findings_frame(
            (RUN_ID, arm, case, finding)
            for (arm, case), report in view.reports.items()
            for finding in report.findings
        ),
        "reports": reports_frame((RUN_ID, *key, seen) for key, seen in view.reports.items()),
        "outcomes": outcomes_frame(view.outcomes),
        "metrics": pd.DataFrame({"measure": ["failure_rate"], "value": [0.01]}),
    }


RUN_ID = "20260914-100000-summer"


def write(folder: RunFolder, view: ReportView, **more: object) -> None:
    arguments: dict[str, object] = {
        "plan": view.plan,
        "tables": frames(view),
        "metrics": view.metrics,
        "expectations": view.expectations,
        "verdict": view.verdict,
        "actions": view.actions,
        "finished_at": view.finished_at,
    }
    write_bundle(folder, **(arguments | more))  # type: ignore[arg-type]


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {
        p.relative_to(folder.path).as_posix(): p.read_bytes()
        for p in sorted(folder.path.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / RUN_ID)


def test_everything_is_written_and_can_be_read_back(folder: RunFolder, view: ReportView) -> None:
    write(folder, view)
    names = set(contents(folder))
    assert names >= {f"tables/{name}.parquet" for name in TABLES}
    assert names >= {"verdict.json", "metrics.json", "expectations.json", "digests.json"}
    for name, frame in frames(view).items():
        back = read_table(folder, name)
        assert list(back.columns) == list(frame.columns), name
        assert len(back) == len(frame), name
    prompts = read_table(folder, "cases")["prompt"]
    assert prompts[2] == view.plan.cases[2].prompt
    assert "\\ud800" in prompts[0]
    verdict = json.loads((folder.path / "verdict.json").read_text())
    assert verdict["verdict"] == "PROMOTE"
    assert verdict["actions"] == list(view.actions)
    digests = json.loads((folder.path / "digests.json").read_text())
    assert digests["policy"] == view.plan.policy.digest
    assert digests["candidate"] == view.plan.candidate.digest


def test_what_is_kept_can_be_used_again(folder: RunFolder, view: ReportView) -> None:
    write(folder, view)
    assert load_policy(folder.path / "policy.json").digest == view.plan.policy.digest
    catalog = load_catalog(folder.path / "catalog.json")
    for arm in ("baseline", "candidate"):
        path = folder.path / f"mixes/{arm}.manifest.json"
        assert load_mix(path, catalog).digest == view.plan.mix(arm).digest  # type: ignore[arg-type]
        manifest = json.loads((folder.path / f"mixes/{arm}.manifest.json").read_text())
        assert Mix.model_validate(manifest) == view.plan.mix(arm).mix  # type: ignore[arg-type]


def test_writing_and_sealing_again_gives_the_same_files(
    folder: RunFolder, view: ReportView
) -> None:
    write(folder, view)
    seal(folder)
    first = contents(folder)
    write(folder, view)
    seal(folder)
    assert contents(folder) == first


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_the_tables_must_be_exactly_the_tables(
    folder: RunFolder, view: ReportView, change: str
) -> None:
    tables = frames(view)
    if change == "missing":
        del tables["outcomes"]
    else:
        tables["verdicts"] = tables["metrics"]
    with pytest.raises(EvidenceError, match="outcomes" if change == "missing" else "verdicts"):
        write(folder, view, tables=tables)


def test_a_table_that_parquet_cannot_hold_is_an_error(folder: RunFolder, view: ReportView) -> None:
    tables = frames(view) | {"metrics": pd.DataFrame({"value": [1.0, "two", object()]})}
    with pytest.raises(EvidenceError, match="'metrics' cannot be stored"):
        write(folder, view, tables=tables)


def test_mappings_in_cells_become_json(folder: RunFolder, view: ReportView) -> None:
    cells = pd.DataFrame({"headers": [{}, {"b": 1, "a": "\ud800"}], "list": [[{"x": 1}], []]})
    write(folder, view, tables=frames(view) | {"metrics": cells})
    back = read_table(folder, "metrics")
    assert list(back["headers"]) == ["{}", '{"a":"\\\\ud800","b":1}']


def secret_settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path,
        state_url=SecretStr(f"postgresql+psycopg://gate:{PASSWORD}@db/gate"),
        slack_token=SecretStr(SLACK),
        routing_file=tmp_path / "routing.json",
        environment={
            "PICTURE_KEY": SecretStr(KEY),
            "LANG": SecretStr("en_GB.UTF-8"),
            "SHORT": SecretStr("on"),
        },
    )


def leaking(view: ReportView, builders: ModuleType) -> Mapping[str, pd.DataFrame]:
    """Return tables into which a provider has echoed the secrets."""
    first = view.generations[0]
    attempt = first.attempts[0].model_copy(
        update={"message": f"invalid key {KEY}", "headers": {"x-echo": f"Bearer {KEY}"}}
    )
    loud = first.model_copy(
        update={"message": f"{SLACK} {PASSWORD}", "attempts": (attempt,), "models": (KEY,)}
    )
    return frames(view) | {
        "generations": generations_frame([loud]),
        "attempts": attempts_frame([loud]),
    }


def everything_readable(folder: RunFolder) -> str:
    """Return all text of the bundle, that of the compressed tables included."""
    files = contents(folder)
    text = b"".join(files.values()).decode("latin-1")
    for name in files:
        if name.endswith(".parquet"):
            frame = pd.read_parquet(folder.path / name)
            text += repr(frame.to_dict("records"))
    return text


def test_secrets_never_enter(
    folder: RunFolder, view: ReportView, builders: ModuleType, tmp_path: Path
) -> None:
    settings = secret_settings(tmp_path)
    secrets = known_secrets(settings, view.plan)
    assert set(secrets) == {KEY, SLACK, PASSWORD}
    tables = leaking(view, builders)
    loud = view.verdict.model_copy(update={"reasons": (f"the provider says {KEY}",)})
    write(folder, view, tables=tables, verdict=loud, secrets=secrets, actions=(f"told {SLACK}",))
    seal(folder, secrets)
    text = everything_readable(folder)
    assert not [secret for secret in secrets if secret in text]
    assert "[secret removed]" in text
    # The counter-check: without the list of secrets the same tables do carry them.
    write(folder, view, tables=tables)
    assert KEY in everything_readable(folder)


def test_every_secret_of_the_installation_is_known(view: ReportView, tmp_path: Path) -> None:
    env = {
        "IMAGEGATE_STATE_URL": "postgresql+psycopg://gate@host/x?password=behind-the-mark",
        "IMAGEGATE_SMTP_URL": "smtps://gate:mail-password@host:465",
        "IMAGEGATE_SLACK_WEBHOOK": "https://hooks.example.com/services/T0/B0/x",
        "SLACK_APP_TOKEN": "xapp-1-token",
        "AWS_SECRET_ACCESS_KEY": "aws-secret-key",
        "AWS_ACCESS_KEY_ID": "names-nobody-hides",
    }
    assert set(known_secrets(load_settings(env, tmp_path), view.plan)) == {
        "behind-the-mark",
        "mail-password",
        env["IMAGEGATE_SLACK_WEBHOOK"],
        "xapp-1-token",
        "aws-secret-key",
    }


def test_a_file_with_a_secret_is_not_sealed(folder: RunFolder, view: ReportView) -> None:
    write(folder, view)
    # Across the border of two pieces that are read one after the other.
    folder.write("server-requests.jsonl", b"x" * ((1 << 20) - 7) + KEY.encode())
    with pytest.raises(EvidenceError, match=r"server-requests\.jsonl: holds a secret") as caught:
        seal(folder, (KEY,))
    assert KEY not in str(caught.value)
    assert not (folder.path / MANIFEST).exists()
    seal(folder)


def test_a_seal_is_whole_until_something_changes(folder: RunFolder, view: ReportView) -> None:
    assert verify_seal(folder) == [f"{MANIFEST}: missing; the evidence was never sealed"]
    write(folder, view)
    manifest = seal(folder)
    assert manifest == folder.path / MANIFEST
    assert verify_seal(folder) == []
    # What a killed writer leaves is no evidence.
    (folder.path / ".verdict.json.4711.tmp").write_text("half")
    assert verify_seal(folder) == []

    (folder.path / "verdict.json").write_text("{}")
    (folder.path / "policy.json").unlink()
    (folder.path / "tables" / "extra.parquet").write_text("")
    problems = verify_seal(folder)
    assert [p.split(":")[0] for p in problems] == [
        "tables/extra.parquet",
        "verdict.json",
        "policy.json",
    ]
    assert "extra" in problems[0]
    assert "altered" in problems[1]
    assert "missing" in problems[2]


def test_a_changed_manifest_is_noticed(folder: RunFolder, view: ReportView) -> None:
    write(folder, view)
    path = seal(folder)
    body = json.loads(path.read_text())
    body["images"] = []
    path.write_text(json.dumps(body))
    assert any("its own digest" in problem for problem in verify_seal(folder))
    path.write_text('{"files": 3}')
    assert verify_seal(folder)[0].startswith(f"{MANIFEST}: cannot be read")
    path.write_text("[]")
    assert verify_seal(folder)[0].startswith(f"{MANIFEST}: cannot be read")


def test_evidence_of_another_run_is_noticed(folder: RunFolder, view: ReportView) -> None:
    write(folder, view)
    seal(folder)
    moved = RunFolder(folder.path.with_name("another-run"))
    folder.path.rename(moved.path)
    assert verify_seal(moved) == [
        f"{MANIFEST}: seals run {RUN_ID!r}, but the folder is 'another-run'"
    ]


def test_links_are_no_evidence(folder: RunFolder, view: ReportView, tmp_path: Path) -> None:
    write(folder, view)
    (tmp_path / "elsewhere").write_text("x")
    (folder.path / "link.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EvidenceError, match="is a link"):
        seal(folder)


def test_all_pictures_are_listed_and_compared(
    folder: RunFolder, builders: ModuleType, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path / "images")
    view = builders.a_view(cases=6, store=store, side=32)
    write(folder, view)
    listed = json.loads(seal(folder).read_text())["images"]
    assert listed == sorted({g.image_digest for g in view.generations if g.image_digest})
    assert verify_seal(folder, store) == []
    store.path(listed[0]).write_bytes(b"other")
    store.path(listed[1]).unlink()
    problems = verify_seal(folder, store)
    assert len(problems) == 2
    assert "altered" in problems[0]
    assert listed[1] in problems[1]


def test_a_full_disk_is_an_error_and_leaves_the_old_files(
    folder: RunFolder, view: ReportView, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, view)
    before = contents(folder)
    real = os.fsync
    left = [3]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EvidenceError, match="the disk is full"):
        write(folder, view, actions=("another",))
    monkeypatch.undo()
    assert set(contents(folder)) == set(before)
    write(folder, view)
    assert contents(folder) == before


def test_a_missing_table_is_an_error(folder: RunFolder) -> None:
    with pytest.raises(EvidenceError, match="outcomes"):
        read_table(folder, "outcomes")
    folder.write("tables/outcomes.parquet", b"PAR1 but not really")
    with pytest.raises(EvidenceError, match="outcomes"):
        read_table(folder, "outcomes")


def test_ci_reads_what_the_decision_rested_on(folder: RunFolder, builders: ModuleType) -> None:
    kept = Verdict(
        verdict="ROLLBACK",
        reasons=("bad",),
        tests=(SequentialResult(name="failure_rate", kind="headline", images=30, failed=True),),
        looks=(
            Look(shards=1, images=30, failures=9, log_e_fail=9, log_e_pass=-9, verdict="ROLLBACK"),
        ),
        savings=Savings(planned=600, decided=30, used=54, images=1092, usd=30.0),
    )
    view = builders.a_view(cases=30, verdict=kept)
    folder.write_plan(view.plan)
    write(folder, view)
    result = build_result(
        view.plan,
        view.metrics,
        kept,
        production="spring",
        actions=(),
        evidence=folder.path,
        report=folder.path / "report.html",
        seconds=1.0,
        spend_usd=2.0,
    )
    assert (result.savings, result.looks, result.incomplete) == (kept.savings, 1, False)
    facts = facts_of(GateRequest(), result, load_settings({}))
    assert facts.verdict == kept
    (headline,) = [case for case in ci_cases(facts) if case.name == "failure rate"]
    assert headline.outcome == "failure"
