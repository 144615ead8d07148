from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.alerts.blocks import (
    Figure,
    GateSummary,
    SlackMessage,
    TopFailure,
    brief,
    change_message,
    felt,
    gate_message,
    gate_root,
    metric_figures,
    table_rows,
)
from tasks.alerts.kit import drawn
from tasks.alerts.messages import notice_message
from tasks.alerts.terminal import render
from tasks.records import Accounts, Arm, ArmMetrics, Metrics, Rate

HOSTILE = (
    "<!channel> <!here> @here <@U0123> <#C0123> <https://evil.example|click> *b* `c` ```x``` "
    "\u202egnp\u202c \x1b[2J\x00 \ud800 &lt;!channel&gt; :fire: \n> quote"
)
WILD = st.text(st.characters(codec=None), max_size=400)


MENTION = "<!subteam^S0123456789>"


def body(message: SlackMessage) -> dict[str, object]:
    """Return the message as it is sent at its fullest: with the mention and the buttons."""
    return {"channel": "C1", **drawn(message.payload(), mention=MENTION, interactive=True)}


def section(message: SlackMessage, start: str) -> str:
    texts = [b["text"]["text"] for b in message.blocks if b["type"] == "section" and "text" in b]
    (found,) = [text for text in texts if text.startswith(start)]
    return str(found)


def test_a_message_begins_with_the_verdict_and_says_why(summary: GateSummary) -> None:
    message = gate_message(summary)
    assert message.blocks[0]["text"]["text"] == "⛔ ROLLBACK: summer for shop"
    assert message.text == (
        "⛔ ROLLBACK: shop production is unaffected; 12.1% of 240 images of summer failed"
    )
    assert section(message, "*Users:*").splitlines() == [
        "*Users:* 1 of 8 users would have got a broken image; "
        "production is unaffected, they get winter.",
        "*Since:* 2026-09-14 01:58 UTC, decided 2026-09-14 02:13 UTC",
    ]
    assert section(message, "*Why:*") == "*Why:* failure rate 12.1% is above 2%"
    assert "production serves 'winter' (unchanged)" in section(message, "*Done:*")
    assert "look at `imagegate report run-1`" in section(message, "*Done:*")
    assert "• typography.legible_text in locale=th: 12 of 40 images" in section(
        message, "*Failing most*"
    )
    assert "slice locale=th fails" in section(message, "*Also*")
    assert "5 images were not measured" in section(message, "*Warnings*")
    footer = [element["text"] for element in message.blocks[-1]["elements"]]
    assert footer == [
        "Run run-1",
        "Spent $3.50",
        "<https://ci.example/report.html?run=1&amp;tab=2|Report>",
        "If you must: roll back production `imagegate rollback --product shop --to 7cc1a0b2c3d4`",
    ]


def test_the_table_stands_in_columns(summary: GateSummary) -> None:
    rows = table_rows(summary)
    assert rows[1] == "Failure rate            0.4% (0.0% to 1.2%)  →  12.1% (9.0% to 15.8%)"
    assert rows[2] == "Effective cost / 1,000               $19.11  →  not measured"


def test_before_and_after_stand_together_where_a_phone_breaks_no_table(
    summary: GateSummary,
) -> None:
    message = gate_message(summary)
    assert section(message, "*Before → after*") == "*Before → after* (winter → summer)"
    (table,) = [block for block in message.blocks if "fields" in block]
    # An interval stays on one line.
    assert "(9.0%\u00a0to\u00a015.8%)" in table["fields"][0]["text"]
    shown = [field["text"].replace("\u00a0", " ").splitlines() for field in table["fields"]]
    assert shown == [
        ["*Failure rate*", "0.4% (0.0% to 1.2%)", "→ *12.1% (9.0% to 15.8%)*"],
        ["*Effective cost / 1,000*", "$19.11", "→ *not measured*"],
    ]


@pytest.mark.parametrize("verdict", ["PROMOTE", "ROLLBACK", "HOLD"])
def test_every_verdict_is_a_message_that_slack_takes(
    summary: GateSummary, fake: ModuleType, verdict: str
) -> None:
    message = gate_message(replace(summary, verdict=verdict))  # type: ignore[arg-type]
    assert fake.message_problem(body(message)) is None
    assert verdict in message.blocks[0]["text"]["text"]
    assert verdict in message.text


def test_a_bare_summary_is_a_message_too(fake: ModuleType) -> None:
    message = gate_message(GateSummary("HOLD", "shop", "summer", "winter", "run-1", ()))
    assert fake.message_problem(body(message)) is None
    assert message.text == "⏸️ HOLD: shop production is unaffected; no reason was given"
    assert section(message, "*Done:*").endswith("*Asked of you:* nothing")


def test_what_was_saved_stands_beside_what_was_spent(summary: GateSummary) -> None:
    saved = "$26.71 by deciding on 72 of 600 planned cases"
    early = replace(summary, saved=saved)
    assert f"Spent $3.50, saved {saved}" in str(body(gate_message(early)))
    assert f"Spent   $3.50, saved {saved}" in render(early)
    # No block more than without it.
    assert len(gate_message(early).blocks) == len(gate_message(summary).blocks)
    assert "saved" not in str(body(gate_message(summary)))


def hostile_summary(text: str, many: int) -> GateSummary:
    return GateSummary(
        verdict="ROLLBACK",
        product=text,
        candidate_name=text,
        baseline_name=text,
        run_id=text,
        reasons=(text,) * many,
        warnings=(text,) * many,
        top_failures=(TopFailure(text, text, 1, 2),) * many,
        figures=(Figure(text, text, text),) * many,
        done=(text,) * many,
        asked=(text,) * many,
        report=text,
        spend_usd=1.0,
        saved=text,
        since=text,
        decided=text,
        run_page=text,
        rollback=text,
        baseline_digest=text,
    )


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE * 50, "<" * 9000, "👍" * 9000, "&; " * 3000])
@pytest.mark.parametrize("many", [1, 60])
def test_hostile_text_pings_nobody_and_breaks_no_limit(
    fake: ModuleType, text: str, many: int
) -> None:
    message = gate_message(hostile_summary(text, many))
    assert fake.message_problem(body(message)) is None
    assert fake.markup_of(body(message)) == [MENTION[1:-1]] * 2
    json.dumps(message.payload()).encode()


@settings(max_examples=60, deadline=None)
@given(WILD, st.integers(0, 12))
def test_any_text_makes_a_message_that_slack_takes(fake: ModuleType, text: str, many: int) -> None:
    message = gate_message(hostile_summary(text, many))
    seen = "\n".join(fake.texts_of(body(message)))
    ours = seen.replace("<https", "").replace("<http", "").replace(MENTION, "")
    assert "<" not in ours
    for block in drawn(message.payload(), mention=MENTION)["blocks"]:
        parts = [block["text"]] if "text" in block else block.get("fields", block.get("elements"))
        for part in parts:
            most = 150 if block["type"] == "header" else 2000 if "fields" in block else 3000
            assert 0 < len(part["text"].encode("utf-16-le")) // 2 <= most
    assert len(body(message)["blocks"]) <= 50  # type: ignore[arg-type]
    # What a phone shows, the mention included.
    assert len(str(body(message)["text"]).encode("utf-16-le")) // 2 <= 150


@pytest.mark.parametrize(
    ("report", "shown"),
    [
        ("/home/ci/runs/r-1/report.html", "Report: /home/ci/runs/r-1/report.html"),
        ("javascript:alert(1)", "Report: javascript:alert(1)"),
        ("https://x.example/a|b>c", "<https://x.example/a%7Cb%3Ec|Report>"),
        ("https://x.example/a b<!channel>", "<https://x.example/a%20b%3C!channel%3E|Report>"),
        ("https://[broken/", "Report: https:\u2060//[broken/"),
        ("https://x.example/" + "a" * 4000, None),
    ],
)
def test_only_a_web_address_becomes_a_link(
    summary: GateSummary, fake: ModuleType, report: str, shown: str | None
) -> None:
    message = gate_message(replace(summary, report=report))
    texts = [element["text"] for element in message.blocks[-1]["elements"]]
    assert fake.message_problem(body(message)) is None
    if shown is None:
        assert not any(text.startswith("<") for text in texts)
    else:
        assert shown in texts


def test_a_person_is_told_of_a_rollback_by_hand(fake: ModuleType) -> None:
    message = change_message(
        title="Rollback",
        product="shop",
        mix_name="winter",
        actor="mia <!here>",
        reason=HOSTILE,
        epoch=7,
        seconds=0.42,
    )
    assert fake.message_problem(body(message)) is None
    assert fake.markup_of(body(message)) == [MENTION[1:-1]] * 2
    assert message.blocks[0]["text"]["text"] == "↩️ Rollback: shop serves winter"
    assert "0.4 s after the command (epoch 7)" in message.blocks[1]["text"]["text"]


def arm(name: Arm, rate: Rate, cost: float | None, latency: float | None) -> ArmMetrics:
    return ArmMetrics(
        arm=name,
        mix_digest="sha256:0",
        images=rate.n,
        failure_rate=rate,
        accounts=Accounts(defect=0, refused=0, undelivered=0, unmeasured=0),
        right_refusals=0,
        text_unjudged=0,
        text_cases=0,
        spend_usd=0,
        cost_per_1k_usd=None,
        effective_cost_per_1k_usd=cost,
        latency_p50_s=None,
        latency_p95_s=latency,
        latency_p99_s=None,
        ttfb_p50_s=None,
        ttfb_p95_s=None,
        retries_per_image=0,
    )


def test_figures_say_not_measured_where_nothing_was_measured() -> None:
    metrics = Metrics(
        baseline=arm(
            "baseline", Rate(estimate=0.12, lower=0.09, upper=0.158, n=240, failures=29), 42.0, 1.25
        ),
        candidate=arm(
            "candidate", Rate(estimate=None, lower=0, upper=1, n=0, failures=0), None, None
        ),
        slices=(),
        forecast_usd_per_month=None,
        baseline_forecast_usd_per_month=None,
    )
    figures = {figure.label: (figure.before, figure.after) for figure in metric_figures(metrics)}
    assert figures == {
        "Failure rate": ("12.0% (9.0% to 15.8%)", "not measured"),
        "Effective cost / 1,000": ("$42.00", "not measured"),
        "p95 latency": ("1.25 s", "not measured"),
    }


def test_the_terminal_says_the_same(summary: GateSummary) -> None:
    text = render(summary)
    assert text.splitlines()[0] == "⛔ ROLLBACK: summer for shop"
    for part in (
        "failure rate 12.1% is above 2%",
        "slice locale=th fails",
        "production serves 'winter' (unchanged)",
        "look at `imagegate report run-1`",
        "typography.legible_text in locale=th: 12 of 40 images",
        "12.1% (9.0% to 15.8%)",
        "$3.50",
        "https://ci.example/report.html?run=1&tab=2",
    ):
        assert part in text


def test_a_bare_summary_asks_nothing_in_the_terminal() -> None:
    text = render(GateSummary("PROMOTE", "shop", "summer", "winter", "run-1", ()))
    assert "Done\n  - nothing changed" in text
    assert "Asked of on-call\n  - nothing" in text
    assert "Report" not in text


@pytest.mark.parametrize("many", [1, 60])
def test_hostile_text_moves_no_cursor_in_the_terminal(many: int) -> None:
    text = render(hostile_summary(HOSTILE, many))
    assert not set(text) & set("\x1b\x00\u202e\u202c\ud800")
    assert len(text.splitlines()) < 130


@pytest.mark.parametrize(
    ("share", "verdict", "said"),
    [
        (0.121, "ROLLBACK", "1 of 8 users would have got a broken image; production is unaffected"),
        (0.7, "ROLLBACK", "7 of 10 users would have"),
        (1.0, "ROLLBACK", "nearly every user would have"),
        (0.0, "ROLLBACK", "no user would have"),
        (0.121, "HOLD", "production is unaffected, they get winter"),
        (0.018, "PROMOTE", "all users get summer now; 1 of 56 users is expected"),
    ],
)
def test_what_users_feel_is_said_as_people_picture_it(
    summary: GateSummary, share: float, verdict: str, said: str
) -> None:
    rate = Rate(estimate=share, lower=0, upper=1, n=240, failures=round(240 * share))
    assert felt(replace(summary, verdict=verdict, failure=rate)).startswith(said)  # type: ignore[arg-type]


def test_a_candidate_that_served_already_is_confirmed_and_users_hear_what_they_really_get(
    summary: GateSummary,
) -> None:
    again = replace(summary, verdict="PROMOTE", serves="summer", confirms=True)
    assert felt(again).startswith("nothing changes for users, they go on with summer")
    assert "go on with" in brief(again)
    held = replace(summary, verdict="HOLD", serves="summer", confirms=True)
    assert felt(held) == "production is unaffected, they get summer"


def test_users_who_had_the_candidate_hear_that_they_were_taken_off_it(
    summary: GateSummary,
) -> None:
    told = felt(replace(summary, rolled_back=True))
    assert told.endswith("production was rolled back, they get winter again")


def test_buttons_fit_the_verdict_and_stay_in_a_reply_only_of_a_page(
    summary: GateSummary,
) -> None:
    names = {
        verdict: [
            [b.name for b in made(replace(summary, verdict=verdict)).buttons] for made in both
        ]
        for both in [(gate_root, gate_message)]
        for verdict in ("PROMOTE", "ROLLBACK", "HOLD")
    }
    assert names == {
        "PROMOTE": [["roll_back"], []],
        "ROLLBACK": [["acknowledge"], ["acknowledge"]],
        "HOLD": [[], []],
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "⛔ ROLLBACK: shop production is unaffected; 12.1% of 240 images of summer failed"),
        (
            {"rolled_back": True},
            "⛔ ROLLBACK: shop users are back on winter; 12.1% of 240 images of summer failed",
        ),
        (
            {"verdict": "PROMOTE"},
            "✅ PROMOTE: shop users get summer now; 12.1% of 240 images of summer failed",
        ),
        (
            {"verdict": "HOLD", "failure": None},
            "⏸️ HOLD: shop production is unaffected; failure rate 12.1% is above 2%",
        ),
    ],
)
def test_a_lock_screen_shows_verdict_users_and_figure(
    summary: GateSummary, changes: dict[str, object], text: str
) -> None:
    told = replace(summary, **changes)  # type: ignore[arg-type]
    assert gate_message(told).text == text
    assert notice_message(gate_root(told)).text == text


def test_long_names_do_not_push_what_users_feel_off_the_lock_screen(summary: GateSummary) -> None:
    long = "long-name-" * 30
    told = replace(summary, product=long, candidate_name=long, baseline_name=long)
    text = str(body(gate_message(told))["text"])
    assert len(text) <= 150
    assert text.index("production is unaffected") < 60


def test_a_page_that_asks_nothing_says_so_at_the_top_of_root_and_reply(
    summary: GateSummary,
) -> None:
    told = replace(summary, asked=())
    reply, root = body(gate_message(told)), body(notice_message(gate_root(told)))
    asked = "*Asked of you:* nothing now; read the report in the morning"
    for sent, most in ((reply, 4), (root, 3)):
        blocks: list[dict[str, dict[str, str]]] = sent["blocks"]  # type: ignore[assignment]
        top = "\n".join(b["text"]["text"] for b in blocks[:most])
        assert asked in top
        assert "*Done:* production serves 'winter' (unchanged)" in top
    mention = reply["blocks"][1]["text"]["text"]  # type: ignore[index]
    assert mention == f"{MENTION} paged for your knowledge; nothing is asked of you now."


@pytest.mark.parametrize("verdict", ["HOLD", "ROLLBACK", "PROMOTE"])
def test_the_command_to_roll_back_is_large_only_where_production_moved(
    summary: GateSummary, verdict: str
) -> None:
    told = replace(summary, verdict=verdict)  # type: ignore[arg-type]
    for message in (gate_message(told), notice_message(gate_root(told))):
        *large, small = message.blocks
        assert ("imagegate rollback" in json.dumps(large)) == (verdict == "PROMOTE")
        assert ("If you must: roll back production" in json.dumps(small)) == (verdict != "PROMOTE")


def test_the_first_message_at_the_end_calls_nobody_and_says_all_at_a_glance(
    summary: GateSummary, fake: ModuleType
) -> None:
    root = gate_root(summary)
    message = notice_message(root)
    assert fake.message_problem(body(message)) is None
    assert not root.mention
    text = json.dumps(message.payload(), ensure_ascii=False)
    for part in ("⛔ ROLLBACK: summer for shop", "1 of 8 users", "failure rate 12.1%", "|Report>"):
        assert part in text
