"""Pictures that are judged together: copies among prompts, campaigns, repeats of one prompt.

Pure functions on cases and on what was kept of each picture, its fingerprint and its look: a
stored run is judged again without its pictures. What a finding counts as is the policy's to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.check_rules import GROUP_KINDS, ConsistencyRules
from tasks.checks import consistency, duplicates
from tasks.checks.consistency import Norm
from tasks.checks.look import Look, unpacked
from tasks.records import Arm, Case, Finding, ImageReport

#: Cases and reports of one arm.
Members = Sequence[tuple[Case, ImageReport]]
Found = dict[str, tuple[Finding, ...]]
#: Repeats are held to the others of their group where nobody knows what production does.
OTHERS: Literal["others"] = "others"


def group_findings(
    cases: Iterable[Case],
    reports: Mapping[tuple[Arm, str], ImageReport],
    rules: ConsistencyRules,
    kinds: Collection[str] = GROUP_KINDS,
) -> dict[tuple[Arm, str], tuple[Finding, ...]]:
    """Return what is found on every picture of both arms beside those of its own arm.

    Args:
        cases: The cases that count.
        reports: What the checks found on the pictures, by arm and case id; only of pictures that
            were delivered and are kept.
        rules: Tolerances.
        kinds: Which findings are wanted; the others are not looked for, which saves time.
    """
    listed = list(cases)
    arms: dict[Arm, Members] = {
        arm: [(c, reports[arm, c.case_id]) for c in listed if (arm, c.case_id) in reports]
        for arm in ("baseline", "candidate")
    }
    norm = repeat_norm(arms["baseline"], rules)
    return {
        (arm, case_id): findings
        for arm, members in arms.items()
        for case_id, findings in judge_groups(members, rules, norm, kinds).items()
    }


def judge_groups(
    members: Members,
    rules: ConsistencyRules,
    norm: Norm | Literal["others"] | None,
    kinds: Collection[str] = GROUP_KINDS,
) -> Found:
    """Return the findings on the pictures of one arm, by case id, in a fixed order of checks.

    Args:
        members: The pictures.
        rules: Tolerances of campaigns.
        norm: How far the colours of repeats may be apart, or those of the others in their group;
            ``None``: no norm is known.
        kinds: Which findings are wanted.
    """
    found: dict[str, list[Finding]] = {}
    parts = []
    if "near_duplicate" in kinds:
        parts.append(near_duplicates(members))
    if "campaign" in kinds:
        parts.append(campaigns(members, rules))
    if "repeat" in kinds:
        parts.append(straying(members, norm, rules))
    if "seed" in kinds:
        parts.append(unseeded(members))
    for part in parts:
        for case_id, finding in part.items():
            found.setdefault(case_id, []).append(finding)
    return {case_id: tuple(findings) for case_id, findings in found.items()}


def near_duplicates(members: Members) -> dict[str, Finding]:
    """Find pictures that repeat an earlier one of another prompt.

    Edits are left out, as two edits of one upload are meant to look alike, and so are two
    pictures of one campaign.
    """
    return duplicates.find_duplicates(
        [(c.case_id, c.prompt, r.fingerprint) for c, r in members if c.subtask != "edit"],
        campaigns={c.case_id: c.campaign for c, _ in members if c.campaign is not None},
    )


def campaigns(members: Members, rules: ConsistencyRules) -> dict[str, Finding]:
    """Find pictures that do not share the colours or the layout of their campaign."""
    groups: dict[str, list[tuple[str, Look]]] = {}
    for case, seen in _looks(members):
        if case.campaign is not None:
            groups.setdefault(case.campaign, []).append((case.case_id, seen))
    found: dict[str, Finding] = {}
    for group in groups.values():
        found |= consistency.campaign(
            group, palette=rules.campaign_palette, layout=rules.campaign_layout
        )
    return found


def straying(
    members: Members, norm: Norm | Literal["others"] | None, rules: ConsistencyRules
) -> dict[str, Finding]:
    """Find repeats of a prompt whose colours stray from the other repeats."""
    found: dict[str, Finding] = {}
    for group in _repeat_groups(members).values():
        if norm == OTHERS:
            found |= consistency.repeats_by_others(group, rules.repeat_floor)
        else:
            found |= consistency.repeats(group, norm)
    return found


def unseeded(members: Members) -> dict[str, Finding]:
    """Find repeats of a prompt that are one picture whatever the seed; each of them is accused."""
    marks: dict[str, dict[str, str | None]] = {}
    for case, report in members:
        if case.repeat_of is not None:
            marks.setdefault(case.repeat_of, {})[case.case_id] = report.fingerprint
    return {
        case_id: finding
        for group in marks.values()
        for finding in [consistency.seeds_ignored(list(group.values()))]
        for case_id in group
    }


def repeat_norm(baseline: Members, rules: ConsistencyRules) -> Norm | None:
    """Return how far the colours of repeats may be apart.

    Returns:
        What production does, or for the palette what the policy says; ``None`` when neither says
        anything.
    """
    groups = [[seen for _, seen in group] for group in _repeat_groups(baseline).values()]
    own = consistency.norm_of(groups, rules.repeat_floor)
    if rules.repeat_palette is None:
        return own
    return Norm(rules.repeat_palette, own.shift if own else None)


def _repeat_groups(members: Members) -> dict[str, list[tuple[str, Look]]]:
    groups: dict[str, list[tuple[str, Look]]] = {}
    for case, seen in _looks(members):
        if case.repeat_of is not None:
            groups.setdefault(case.repeat_of, []).append((case.case_id, seen))
    return groups


def _looks(members: Members) -> list[tuple[Case, Look]]:
    """Return the pictures of groups with their looks.

    One without does not decode, or its own report says that the check broke.
    """
    found = []
    for case, report in members:
        if case.campaign is None and case.repeat is None:
            continue
        try:
            found.append((case, unpacked(report.look)))
        except ValueError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one kind of group finding in one arm."""

    #: Pictures that were judged, and the case ids of those that failed.
    judged: int
    failed: tuple[str, ...]
    #: Pictures on which the check broke.
    faults: int
    #: What was said of the first that failed.
    said: str


def tally(reports: Mapping[tuple[Arm, str], ImageReport], arm: Arm, check: str) -> Tally:
    """Count the findings of one check in one arm; skipped ones are not counted."""
    found = [
        (case_id, finding)
        for (whose, case_id), report in reports.items()
        for finding in report.findings
        if whose == arm and finding.check == check
    ]
    judged = [each for each in found if each[1].verdict in ("pass", "fail")]
    failed = [(case_id, finding) for case_id, finding in judged if finding.verdict == "fail"]
    return Tally(
        len(judged),
        tuple(case_id for case_id, _ in failed),
        sum(finding.verdict == "fault" for _, finding in found),
        failed[0][1].message if failed else "",
    )
