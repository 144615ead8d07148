"""A message as a page: looks like the message, runs nothing, loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli_slack import slack as slack_commands
from flows.slack_preview import as_shown, kept, sample
from flows.slack_samples import SAMPLES
from tasks.alerts import picture
from tasks.alerts.blocks import GateSummary, gate_message
from tasks.alerts.config import AlertsConfig
from tasks.alerts.incidents import raise_alarm, resolve_alarm
from tasks.alerts.kit import drawn
from tasks.alerts.outbox import enqueue, messages
from tasks.alerts.preview import LOCK_SCREEN, Shown, page
from tasks.alerts.preview_emoji import DRAWN
from tasks.alerts.preview_text import mrkdwn_html, plain_html, unmarked
from tasks.errors import ConfigError
from tasks.settings import Settings
from tasks.state import State

AT = "2026-11-25T03:12:00+00:00"
HOSTILE = "</style><script>alert(1)</script><img src=//evil onerror=x> \"'> &lt;b&gt; <!channel>"
#: The smallest picture there is.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002"
    "00000500010d0a2db40000000049454e44ae426082"
)
OK_TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body div main article b i s span time h1 hr p a br pre code "
        "blockquote svg rect path circle ellipse text figure figcaption img footer",
    )
)


class Seen(HTMLParser):
    """Everything that a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._hidden = tag in ("style", "title")
        for name, value in attrs:
            if name == "href":
                self.links.append(str(value))
            elif name in ("src", "srcset", "data", "background", "poster"):
                self.loads.append(str(value))
            elif name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


def shown(*blocks: Any, text: str = "words") -> str:
    return page([Shown({"text": text, "blocks": list(blocks)}, AT)], channel="#releases")


def test_marks_become_what_slack_shows() -> None:
    assert mrkdwn_html("*bold* _it_ ~no~ `a *b*`") == (
        "<b>bold</b> <i>it</i> <s>no</s> <code>a *b*</code>"
    )
    assert mrkdwn_html("> quote\nafter") == "<blockquote>quote</blockquote>after"
    assert mrkdwn_html("a\n```\nx  <y>\n```\nb") == "a<pre>x  &lt;y&gt;</pre>b"
    assert mrkdwn_html("2*3*4 and snake_case_name") == "2*3*4 and snake_case_name"
    assert mrkdwn_html("* not bold *") == "* not bold *"


def test_entities_become_mentions_and_links_to_the_web_only() -> None:
    assert mrkdwn_html("<!subteam^S01|@night>") == '<span class="mention loud">@night</span>'
    assert mrkdwn_html("<!subteam^S01>") == '<span class="mention loud">@S01</span>'
    assert mrkdwn_html("<!here>") == '<span class="mention loud">@here</span>'
    assert mrkdwn_html("<@U1|ada>") == '<span class="mention">@ada</span>'
    assert mrkdwn_html("<#C1|ops>") == '<span class="mention">#ops</span>'
    assert mrkdwn_html("<!date^1^{date}|Monday>") == "Monday"
    link = mrkdwn_html("<https://x.example/?a=1&amp;b=2|Report>")
    assert '<a href="https://x.example/?a=1&amp;b=2" rel=' in link
    assert mrkdwn_html("<javascript:alert(1)|Report>") == "Report"
    assert mrkdwn_html("<http://[|x>") == "x"


def test_escapes_come_out_as_the_characters_they_stand_for() -> None:
    assert mrkdwn_html("&lt;!channel&gt; &amp;amp;") == "&lt;!channel&gt; &amp;amp;"
    assert unmarked("*x* <https://a.example|Report> &lt;3\n`c`") == "*x* Report <3 `c`"


def test_emoji_are_drawn_and_names_only_where_slack_reads_them() -> None:
    assert mrkdwn_html(":warning:").startswith('<svg class="emoji"')
    assert mrkdwn_html(":no_such_thing:") == ":no_such_thing:"
    assert plain_html(":x:", emoji=False) == ":x:"
    assert plain_html("⏸️") == plain_html("⏸")
    for char in DRAWN:
        assert plain_html(char).count("<svg") == 1


def test_foreign_text_in_every_place_is_only_text() -> None:
    mrk = {"type": "mrkdwn", "text": HOSTILE}
    plain = {"type": "plain_text", "text": HOSTILE}
    button = {
        "type": "button",
        "text": plain,
        "style": HOSTILE,
        "value": HOSTILE,
        "confirm": {"title": plain, "text": mrk},
    }
    blocks = [
        {"type": "header", "text": plain},
        {"type": "section", "text": mrk, "fields": [mrk, plain], "accessory": button},
        {"type": "context", "elements": [mrk, {"type": "image", "alt_text": HOSTILE}]},
        {"type": "actions", "elements": [button]},
        {"type": "image", "image_url": "https://evil.example/x.png", "alt_text": HOSTILE},
        {"type": HOSTILE},
        HOSTILE,
    ]
    message = Shown(
        {"text": HOSTILE, "blocks": blocks}, HOSTILE, notification=HOSTILE, remark=HOSTILE
    )
    seen = Seen(page([message], channel=HOSTILE, app_name=HOSTILE))
    assert seen.tags <= OK_TAGS
    assert (seen.links, seen.loads, seen.handlers) == ([], [], [])
    assert "alert(1)" in seen.text


def test_half_a_surrogate_and_private_characters_do_not_break_a_page() -> None:
    html = mrkdwn_html("a\ud800b \ue0000\ue001 *c*")
    html.encode("utf-8")
    assert html.endswith("<b>c</b>")


def test_the_page_forbids_scripts_and_every_load() -> None:
    html = shown({"type": "divider"})
    assert "default-src &#x27;none&#x27;" in html or "default-src 'none'" in html
    assert "http" not in re.sub(r"http-equiv", "", html)


def test_what_cannot_be_drawn_is_named() -> None:
    assert "video: not drawn here" in Seen(shown({"type": "video"})).text
    assert "picture: a chart" in Seen(shown({"type": "image", "alt_text": "a chart"})).text


def test_a_gate_message_shows_verdict_table_and_buttons(summary: GateSummary) -> None:
    payload = drawn(gate_message(summary).payload(), mention="<!subteam^S01>", interactive=True)
    html = page([Shown(payload, AT)], channel="releases")
    text = Seen(html).text
    assert text.index("ROLLBACK: summer for shop") < text.index("@S01") < text.index("Acknowledge")
    assert "Failure rate" in html[html.index('<div class="fields">') :]
    assert "03:12 UTC" in text
    # Slack's escapes for the header's plain text are undone too.
    assert "&amp;amp;" not in html


def test_the_lock_screen_shows_the_first_words_only_of_what_notifies() -> None:
    long = Shown({"text": "x"}, AT, notification="⛔ ROLLBACK " + "w" * 400)
    html = page([long, Shown({"text": "quiet"}, AT)], channel="releases")
    (lock,) = re.findall(r'<div class="lock">(.*?)</div>', html)
    assert f"{'w' * (LOCK_SCREEN - 11)}…" in lock
    assert "w" * LOCK_SCREEN not in lock


def test_a_phone_shows_the_page_of_a_run_and_not_its_quiet_start(
    make_settings: Callable[..., Settings],
) -> None:
    for routing in ("schema_version: 1\n", "default: {on_call: S0123456789}\n"):
        for name, words in (
            ("rollback", "⛔ ROLLBACK: storefront production is unaffected; 12.2%"),
            ("failure", "🚨 GATE FAILED: storefront production is unaffected; EvidenceError"),
            ("approval", "🙋 WAITING FOR APPROVAL: storefront production is unaffected; decide"),
            ("budget", "🚨 BUDGET ALARM: users are not affected, new gates refused; storefront"),
            ("hold", "🔎 CHECKING"),
        ):
            (root,), _ = sample(make_settings(routing), name)
            assert root.notification.startswith(words)
            assert [reply.notification for reply in root.replies] == [""] * len(root.replies)
    assert unmarked("x <!subteam^S0123456789>") == "x @S0123456789"


def test_a_thread_is_put_together_with_its_last_state(
    state: State, make_settings: Callable[..., Settings]
) -> None:
    raise_alarm(state, "budget:shop:month:hard", title="Budget <gone>", severity="page")
    resolve_alarm(state, "budget:shop:month:hard", how="A new month began.")
    (root,) = as_shown(messages(state), AlertsConfig(), interactive=True)
    assert root.edited
    assert "RESOLVED" in str(root.payload["text"])
    # The update is silent: the phone showed the first words.
    assert "RESOLVED" not in root.notification
    assert root.notification.startswith("🚨")
    assert "mentions nobody: set on_call" in root.remark
    assert "Not delivered yet" in root.remark
    assert [reply.notification for reply in root.replies] == [""]
    assert "RESOLVED" in str(root.replies[0].payload["text"])


def test_messages_are_found_by_run_by_key_and_the_newest_by_default(
    state: State, make_settings: Callable[..., Settings], summary: GateSummary, tmp_path: Path
) -> None:
    settings = make_settings()
    with pytest.raises(ConfigError, match="never held a message"):
        kept(settings, None, None)
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    enqueue(state, "gate:run-1", "run-1", gate_message(summary).payload(str(sheet)))
    other = replace(summary, run_id="run-2", candidate_name="autumn")
    enqueue(state, "gate:run-2", "run-2", gate_message(other).payload("/no/such/file"))
    (one,), _ = kept(settings, "run-1", None)
    assert one.picture == PNG
    assert "data:image/png;base64,iVBOR" in page([one], channel="x")
    (two,), _ = kept(settings, None, "gate:run-2")
    assert "autumn" in two.payload["text"]
    assert two.picture is None
    assert kept(settings, None, None)[0] == [two]
    with pytest.raises(ConfigError, match=r"no message is about run 'run-9' \(known: run-1, run-2"):
        kept(settings, "run-9", None)
    with pytest.raises(ConfigError, match="no message has the key"):
        kept(settings, None, "gate:run-9")


def test_a_contact_sheet_that_is_no_picture_is_not_put_into_the_page(
    state: State, make_settings: Callable[..., Settings], summary: GateSummary, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    enqueue(state, "gate:run-1", "run-1", gate_message(summary).payload(str(secret)))
    (one,), _ = kept(make_settings(), "run-1", None)
    assert one.picture is None


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_are_made_of_real_messages(
    name: str, make_settings: Callable[..., Settings], fake: Any
) -> None:
    routing = 'schema_version: 1\ndefault: {channel: "#releases", on_call: S0123456789}\n'
    found, channel = sample(make_settings(routing), name)
    assert channel == "#releases"
    every = [one for root in found for one in (root, *root.replies)]
    assert every
    assert [fake.message_problem(dict(one.payload)) for one in every] == [None] * len(every)
    pages = [one for one in every if "<!subteam^S0123456789>" in str(one.payload["text"])]
    # On-call is woken by exactly one message of a ROLLBACK, a failure or a budget alarm.
    assert len(pages) == (name in ("rollback", "failure", "budget"))


def test_the_command_writes_a_page_and_says_where(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    env = {"IMAGEGATE_HOME": str(settings.home), "IMAGEGATE_ALERTS_FILE": str(settings.alerts_file)}
    target = tmp_path / "p.html"
    arguments = ["preview", "--sample", "hold", "--html", str(target), "--json"]
    done = CliRunner().invoke(slack_commands, arguments, env=env)
    assert json.loads(done.output) == {"files": [str(target)]}
    assert "HOLD: aurora for storefront" in Seen(target.read_text(encoding="utf-8")).text
    for wrong in (["--sample", "nonsense"], ["run-1", "--key", "k"], ["run-1"]):
        failed = CliRunner().invoke(slack_commands, ["preview", *wrong], env=env)
        assert isinstance(failed.exception, ConfigError)


def test_without_a_browser_the_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "find_browser", lambda: None)
    with pytest.raises(ConfigError, match=r"none is on the PATH.*--html"):
        picture.write_png("<p>x</p>", tmp_path / "x.png", width=300)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'no display' >&2; exit 1", "drew no picture; its last words: no display"),
        ("echo junk > shot", "drew no picture"),
        (
            'for a; do case $a in --screenshot=*) echo junk > "${a#*=}";; esac; done',
            "is no picture",
        ),
    ],
)
def test_a_browser_that_fails_is_an_error_not_an_empty_file(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "chromium"
    browser.write_text(f"#!/bin/sh\n{script}\n")
    browser.chmod(0o755)
    monkeypatch.setattr(picture, "find_browser", lambda: str(browser))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says):
        picture.write_png("<p>x</p>", tmp_path / "x.png", width=300)
    assert not (tmp_path / "x.png").exists()
