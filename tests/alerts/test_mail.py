"""Mail by the standard library against a real SMTP server (aiosmtpd)."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.alerts import mail as mail_module
from tasks.alerts.blocks import GateSummary, gate_message
from tasks.alerts.delivery import deliver_all
from tasks.alerts.mail import MailCarrier
from tasks.alerts.outbox import as_message, enqueue, packed, pending
from tasks.alerts.parcel import AlertError, Parcel
from tasks.errors import ConfigError
from tasks.settings import Settings
from tasks.state import State

PASSWORD = "pass-w0rd/secret"
PNG = b"\x89PNG\r\n\x1a\n not looked at here"


class Inbox:
    """Keeps mails; answers RCPT or DATA as told."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.data_answer = "250 kept"
        self.refuse: set[str] = set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address in self.refuse:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.data_answer.startswith("250"):
            parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(parsed, EmailMessage)
            self.mails.append(parsed)
            self.to.append(list(envelope.rcpt_tos))
        return self.data_answer


def login(_server: Any, _session: Any, _envelope: Any, _way: str, data: Any) -> AuthResult:
    good = (data.login, data.password) == (b"gate", PASSWORD.encode())
    return AuthResult(success=good, handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(inbox: Inbox, certificate: ssl.SSLContext) -> Iterator[Controller]:
    """A server that asks for STARTTLS and a login, as a team's relay does."""
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=certificate,
        require_starttls=True,
        auth_required=True,
        authenticator=login,
    )
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def by_mail(server: Controller, make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    def make(routing: str = "schema_version: 1\n", **more: str) -> Settings:
        environ = {
            "IMAGEGATE_SMTP_URL": f"smtp://gate:pass-w0rd%2Fsecret@127.0.0.1:{server.port}",
            "IMAGEGATE_MAIL_FROM": "imagegate <gate@example.org>",
            "IMAGEGATE_MAIL_TO": "oncall@example.org, lead@example.org",
        }
        return make_settings(routing, **(environ | more))

    return make


def parcel(text: str, **more: Any) -> Parcel:
    row = dict.fromkeys(("run_id", "last_error", "claimed_at", "delivered_at", "receipt"))
    payload = {"text": text, "plain": text}
    fields: dict[str, Any] = {
        "id": 1,
        "dedup_key": "k",
        "channel": "slack",
        "payload": packed(payload),
        "status": "sending",
        "attempts": 1,
        "created_at": "",
        "kind": "open",
    }
    return Parcel(as_message(row | fields | more), "page")


def test_a_mail_says_what_the_message_says_with_the_pictures_attached(
    inbox: Inbox,
    by_mail: Callable[..., Settings],
    state: State,
    summary: GateSummary,
    tmp_path: Path,
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    enqueue(
        state,
        "end",
        "run-1",
        gate_message(summary).payload(str(sheet)),
        kind="reply",
        thread="run:run-1",
        severity="page",
    )
    enqueue(state, "next", "run-1", {"text": "more"}, kind="reply", thread="run:run-1")
    report = deliver_all(state, by_mail())
    assert report.via == {"end": "mail", "next": "mail"}, report
    mail, other = inbox.mails
    assert mail["Subject"] == "⛔ ROLLBACK: summer for shop"
    assert mail["From"] == "gate@example.org"
    assert inbox.to[0] == ["oncall@example.org", "lead@example.org"]
    assert mail["References"] == other["References"], "one thread in a mail program too"
    assert mail["Message-ID"] != other["Message-ID"]
    body = mail.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "1 of 8 users would have got a broken image" in text
    assert "imagegate rollback --product shop --to 7cc1a0b2c3d4" in text
    assert "failure rate 12.1% is above 2%" in text
    (attached,) = mail.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("failures.png", PNG)
    assert '"via": "mail"' in str(state_receipt(state))


def state_receipt(state: State) -> str | None:
    from tasks.alerts.outbox import messages

    return messages(state)[0].receipt


def test_the_routing_of_a_product_names_its_own_people(
    inbox: Inbox, by_mail: Callable[..., Settings], state: State
) -> None:
    enqueue(state, "a", None, {"text": "a"}, product="shop")
    deliver_all(state, by_mail("products: {shop: {mail_to: [shop@example.org]}}\n"))
    assert inbox.to == [["shop@example.org"]]


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [("451 try later", "outage"), ("554 spam", "message"), ("552 too big", "message")],
)
def test_answers_of_the_server_mean_different_things(
    inbox: Inbox, by_mail: Callable[..., Settings], answer: str, trouble: str
) -> None:
    settings = by_mail()
    assert settings.smtp_url is not None
    inbox.data_answer = answer
    carrier = MailCarrier(settings.smtp_url, "gate@example.org", ("a@example.org",))
    with pytest.raises(AlertError, match=answer) as caught:
        carrier.send(parcel("x"))
    assert caught.value.trouble == trouble


def test_some_recipients_refused_is_delivered_and_noted(
    inbox: Inbox, by_mail: Callable[..., Settings], state: State
) -> None:
    inbox.refuse = {"lead@example.org"}
    enqueue(state, "a", None, {"text": "a"})
    assert deliver_all(state, by_mail()).delivered == ["a"]
    assert inbox.to == [["oncall@example.org"]]
    assert '"refused": ["lead@example.org"]' in str(state_receipt(state))
    inbox.refuse = {"lead@example.org", "oncall@example.org"}
    enqueue(state, "b", None, {"text": "b"})
    assert "no such mailbox" in deliver_all(state, by_mail()).failed["b"]


def test_a_wrong_password_closes_the_way_and_is_not_shown(
    server: Controller, by_mail: Callable[..., Settings], state: State
) -> None:
    settings = by_mail(IMAGEGATE_SMTP_URL=f"smtp://gate:wr0ng-secret@127.0.0.1:{server.port}")
    enqueue(state, "a", None, {"text": "a"})
    report = deliver_all(state, settings)
    assert "refused the login (535)" in report.failed["a"]
    assert "wr0ng-secret" not in str(report) + str(pending(state)) + repr(settings)


def test_a_server_without_starttls_gets_nothing(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Controller(inbox, hostname="127.0.0.1", port=free_port())
    plain.start()
    try:
        address = SecretStr(f"smtp://gate:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{plain.port}")
        monkeypatch.setattr(mail_module, "_LOOPBACK", ())  # as if it were far away
        carrier = MailCarrier(address, "gate@example.org", ("a@example.org",))
        with pytest.raises(AlertError, match="does not offer STARTTLS") as caught:
            carrier.send(parcel("x"))
        assert caught.value.trouble == "token"
        monkeypatch.undo()
        # On this machine's loopback a plain relay is good enough, without a login.
        MailCarrier(
            SecretStr(f"smtp://127.0.0.1:{plain.port}"), "gate@example.org", ("a@example.org",)
        ).send(parcel("x"))
    finally:
        plain.stop()
    assert len(inbox.mails) == 1


def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    server: Controller, inbox: Inbox, by_mail: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = by_mail()
    assert settings.smtp_url is not None
    monkeypatch.setattr(mail_module, "_LOOPBACK", ())
    carrier = MailCarrier(settings.smtp_url, "gate@example.org", ("a@example.org",))
    with pytest.raises(AlertError, match="certificate"):
        carrier.send(parcel("x"))
    assert inbox.mails == []


def test_smtps_is_encrypted_from_the_start(inbox: Inbox, certificate: ssl.SSLContext) -> None:
    controller = Controller(inbox, hostname="127.0.0.1", port=free_port(), ssl_context=certificate)
    controller.start()
    try:
        MailCarrier(
            SecretStr(f"smtps://127.0.0.1:{controller.port}"), "g@example.org", ("a@example.org",)
        ).send(parcel("x"))
    finally:
        controller.stop()
    assert len(inbox.mails) == 1


def test_a_server_that_is_away_is_an_outage(inbox: Inbox) -> None:
    carrier = MailCarrier(
        SecretStr(f"smtp://gate:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{free_port()}"),
        "g@example.org",
        ("a@example.org",),
    )
    with pytest.raises(AlertError) as caught:
        carrier.send(parcel("x"))
    assert caught.value.trouble == "outage"
    assert PASSWORD not in str(caught.value)


@given(st.text(st.characters(codec=None), max_size=300))
def test_no_text_becomes_a_header(text: str) -> None:
    carrier = MailCarrier(SecretStr("smtp://127.0.0.1"), "g@example.org", ("a@example.org",))
    hostile = f"{text}\r\nBcc: evil@example.org\r\n\r\nbody"
    mail = carrier._mail(parcel(hostile), ("a@example.org",))
    # As a mail server reads it.
    parsed = email.message_from_bytes(mail.as_bytes(), policy=email.policy.default)
    assert parsed["Bcc"] is None
    assert parsed["To"] == "a@example.org"
    assert set(parsed.keys()) <= {
        "Subject", "From", "To", "Date", "Auto-Submitted", "X-Priority", "Message-ID",
        "References", "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "sender", "to", "said"),
    [
        ("http://user:secret-part@mail.example", "g@e.org", "a@e.org", "IMAGEGATE_SMTP_URL"),
        ("smtp://", "g@e.org", "a@e.org", "IMAGEGATE_SMTP_URL"),
        ("smtp://user:secret-part@[x", "g@e.org", "a@e.org", "IMAGEGATE_SMTP_URL"),
        ("smtp://user:secret-part@mail:port", "g@e.org", "a@e.org", "IMAGEGATE_SMTP_URL"),
        ("smtp://mail", "", "a@e.org", "IMAGEGATE_MAIL_FROM"),
        ("smtp://mail", "g@e.org\nBcc: x@e.org", "a@e.org", "IMAGEGATE_MAIL_FROM"),
        ("smtp://mail", "g@e.org", "a@e.org\nBcc: x@e.org", "IMAGEGATE_MAIL_TO"),
    ],
)
def test_wrong_settings_are_named_and_secrets_not_shown(
    url: str, sender: str, to: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        MailCarrier(SecretStr(url), sender, (to,))
    assert "secret-part" not in str(caught.value)
