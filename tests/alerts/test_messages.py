"""Notices, and the parts of Block Kit that they are made of."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.alerts.kit import MAX_BLOCKS, Button, drawn, link
from tasks.alerts.messages import Notice, notice_message
from tasks.alerts.text import code, prose, units

WILD = st.text(st.characters(codec=None), max_size=300)
MENTION = "<@U0123456789>"
BUTTONS = (
    Button("acknowledge", run_id="r", product="p", key="k"),
    Button("roll_back", run_id="r", product="p", to="sha256:1", mix="winter"),
    Button("approve", run_id="r"),
    Button("reject", run_id="r"),
)


def full(notice: Notice) -> dict[str, object]:
    payload = json.loads(json.dumps(notice_message(notice).payload()))
    return {"channel": "C1", **drawn(payload, mention=MENTION, interactive=True)}


def test_a_notice_says_state_facts_duties_and_where_to_look(fake: ModuleType) -> None:
    notice = Notice(
        title="BUDGET: shop spent its month",
        severity="page",
        product="shop",
        lines=("Users: nothing changes for them.", "Since: 2026-09-14 03:00 UTC"),
        asked=("raise it: `imagegate budget --raise 10`",),
        links=(("Spend", "https://x.example/?a=1&b=2"), ("By hand", "imagegate budget")),
        run_id="run-1",
        status=("Came 3 times",),
        buttons=BUTTONS,
    )
    sent = full(notice)
    assert fake.message_problem(sent) is None
    assert fake.markup_of(sent) == [MENTION[1:-1]] * 2 + ["https://x.example/?a=1&amp;b=2|Spend"]
    texts = [b["text"]["text"] for b in sent["blocks"] if "text" in b]  # type: ignore[attr-defined]
    assert texts == [
        "🚨 BUDGET: shop spent its month",
        "<@U0123456789> please look at this now.",
        "*Came 3 times*",
        "*Users:* nothing changes for them.\n*Since:* 2026-09-14 03:00 UTC",
        "*Asked of you*\n• raise it: `imagegate budget --raise 10`",
    ]
    assert str(sent["text"]).startswith("🚨 BUDGET: shop spent its month. Came 3 times. Users")
    plain = notice_message(notice).plain.splitlines()
    assert plain[0] == "🚨 BUDGET: shop spent its month"
    assert "  - raise it: `imagegate budget --raise 10`" in plain


def test_a_roll_back_asks_once_more(fake: ModuleType) -> None:
    sent = full(Notice("x", "page", product="shop", buttons=BUTTONS))
    buttons = sent["blocks"][-1]["elements"]  # type: ignore[index]
    assert [b["action_id"] for b in buttons] == [
        "imagegate_acknowledge",
        "imagegate_roll_back",
        "imagegate_approve",
        "imagegate_reject",
    ]
    assert buttons[1]["confirm"]["text"]["text"] == "All users of p get winter again, at once."
    assert json.loads(buttons[1]["value"]) == {"product": "p", "run_id": "r", "to": "sha256:1"}


@settings(max_examples=40, deadline=None)
@given(
    WILD,
    st.integers(0, 14),
    st.sampled_from(["info", "warning", "page"]),
    st.sampled_from([0, 1, 400]),
)
def test_any_notice_is_a_message_that_slack_takes_and_pings_nobody_else(
    fake: ModuleType, text: str, many: int, severity: str, long: int
) -> None:
    text = text + "x`<!channel>" * long
    notice = Notice(
        title=text,
        severity=severity,  # type: ignore[arg-type]
        product=text,
        lines=(text,) * many,
        asked=(text,) * many,
        links=((text, text),) * many,
        run_id=text,
        status=(text,) * many,
        buttons=(Button("acknowledge", run_id=text, product=text, key=text[:200]),) if many else (),
    )
    sent = full(notice)
    problem = fake.message_problem(sent)
    assert problem is None, problem
    assert len(sent["blocks"]) <= MAX_BLOCKS  # type: ignore[arg-type]
    marks = [mark for mark in fake.markup_of(sent) if not mark.startswith("http")]
    assert set(marks) <= {MENTION[1:-1]}
    assert Notice.from_dict(json.loads(json.dumps(notice.to_dict()))) == notice


@given(WILD, st.integers(0, 120))
def test_prose_fits_and_its_code_is_closed(text: str, limit: int) -> None:
    shown = prose(text, limit)
    assert units(shown) <= limit
    assert shown.count("`") % 2 == 0
    assert "<" not in shown
    assert ">" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run `imagegate run --resume x_y` now", "run `imagegate run --resume x_y` now"),
        ("a `b` c `d", "a `b` c ʼd"),
        ("`<!channel>`", "`&lt;!channel&gt;`"),
        ("*bold* `*` _x_", "∗bold∗ `*` ˍxˍ"),
        ("``", ""),
        ("no code", "no code"),
    ],
)
def test_commands_can_be_copied_and_nothing_else_is_markup(text: str, shown: str) -> None:
    assert prose(text, 100) == shown


@given(WILD, st.integers(2, 60))
def test_a_command_is_one_closed_span(text: str, limit: int) -> None:
    shown = code(text, limit)
    assert units(shown) <= max(limit, 0)
    assert shown.count("`") in (0, 2)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("imagegate rollback --product shop", "Undo: `imagegate rollback --product shop`"),
        ("imagegate `x` <!here>", "Undo: `imagegate ʼxʼ &lt;!here&gt;`"),
        ("https://x.example/a?b=1&c=2", "<https://x.example/a?b=1&amp;c=2|Undo>"),
        ("javascript:alert(1)", "Undo: javascript:alert(1)"),
        ("/srv/report.html", "Undo: /srv/report.html"),
    ],
)
def test_a_link_leads_to_a_page_a_path_or_a_command(target: str, shown: str) -> None:
    assert link(target, "Undo") == shown
