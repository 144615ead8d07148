"""The last way: mail by SMTP, plain text with the contact sheet attached."""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from tasks.alerts.config import is_address
from tasks.alerts.parcel import AlertError, Parcel, Receipt, Trouble, skipped_update
from tasks.alerts.text import clean, clip
from tasks.errors import ConfigError
from tasks.settings import Settings

#: Seconds that the mail server may be silent.
TIMEOUT_S = 10
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PORTS = {"smtp": 587, "smtps": 465}
#: Codes that ask for a login, or for another one.
_LOGIN_CODES = (530, 534, 535, 538)
#: A larger sheet is left out: mail servers refuse large mails as a whole.
MOST_SHEET_BYTES = 8 * 1024 * 1024
#: Stands behind the @ of message ids; names no machine.
_DOMAIN = "imagegate.invalid"


class MailCarrier:
    """Carries messages as mail.

    ``smtps://`` is encrypted from the start; ``smtp://`` must offer STARTTLS, except on this
    machine's loopback.

    Args:
        address: ``smtp[s]://user:password@host:port``; user and password percent-encoded.
        sender: Address in From.
        recipients: Addresses in To, where the routing names none.

    Raises:
        ConfigError: One of them cannot be used.
    """

    name = "mail"

    def __init__(self, address: SecretStr, sender: str, recipients: tuple[str, ...]) -> None:
        try:
            parts = urlsplit(address.get_secret_value())
            self._host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, self._host, port = urlsplit(""), "", None
        if parts.scheme not in _PORTS or not self._host:
            raise ConfigError(
                "IMAGEGATE_SMTP_URL must read smtp://user:password@host:port or smtps://… "
                "(it holds a password and is not shown)"
            )
        self._tls = parts.scheme == "smtps"
        self._port = port or _PORTS[parts.scheme]
        self._user = unquote(parts.username or "")
        self._password = SecretStr(unquote(parts.password or ""))
        self._sender = parseaddr(sender)[1] or sender
        if not is_address(self._sender) or not sender.isprintable():
            raise ConfigError(
                f"IMAGEGATE_MAIL_FROM must be a mail address, e.g. imagegate@example.org, got "
                f"{sender!r}"
            )
        wrong = [text for text in recipients if not is_address(text)]
        if wrong:
            raise ConfigError(
                f"IMAGEGATE_MAIL_TO must be mail addresses with commas between, got {wrong[0]!r}"
            )
        self._recipients = recipients

    def send(self, parcel: Parcel) -> Receipt:
        """Send the mail to everybody it is for.

        Raises:
            AlertError: Nobody got it.
        """
        skipped = skipped_update(parcel)
        if skipped is not None:
            return skipped
        recipients = parcel.mail_to or self._recipients
        if not recipients:
            raise AlertError("nobody gets mail; set IMAGEGATE_MAIL_TO, or mail_to", "token")
        mail = self._mail(parcel, recipients)
        try:
            server = self._connected()
            try:
                refused = server.send_message(mail, self._sender, list(recipients))
            finally:
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()  # what was taken is taken, however the server says goodbye
        except smtplib.SMTPAuthenticationError as error:
            # The server's words, not the command: that holds the password.
            raise AlertError(
                f"the mail server refused the login ({error.smtp_code})", "token"
            ) from None
        except smtplib.SMTPResponseException as error:
            raise AlertError(
                self._said(error.smtp_code, error.smtp_error), _trouble(error.smtp_code)
            ) from None
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise AlertError(self._said(code, said), _trouble(code)) from None
        except smtplib.SMTPNotSupportedError:
            raise AlertError(
                "the mail server does not offer what is needed (login)", "token"
            ) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise AlertError(self._hidden(f"{type(error).__name__}: {error}")) from None
        details = {"to": [a for a in recipients if a not in refused]}
        if refused:
            details["refused"] = sorted(refused)
        return Receipt("mail", details)

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._host in _LOOPBACK:
            # A certificate proves nothing about this machine to itself.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._tls:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port, timeout=TIMEOUT_S, context=context
            )
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)
        try:
            if not self._tls:
                server.ehlo_or_helo_if_needed()
                if server.has_extn("starttls"):
                    server.starttls(context=context)
                elif self._host not in _LOOPBACK:
                    raise AlertError(
                        "the mail server does not offer STARTTLS: nothing is sent in the open",
                        "token",
                    )
            if self._user:
                server.login(self._user, self._password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server

    def _mail(self, parcel: Parcel, recipients: tuple[str, ...]) -> EmailMessage:
        message, payload = parcel.message, parcel.message.payload
        plain = str(payload.get("plain") or "") or _unescaped(str(payload.get("text") or ""))
        subject = clip(clean(plain.strip().split("\n", 1)[0]), 150)
        mail = EmailMessage()
        # ``clean`` leaves no line break: nothing in a name becomes a header of its own.
        mail["Subject"] = subject or "imagegate"
        mail["From"] = self._sender
        mail["To"] = ", ".join(recipients)
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Priority"] = "1" if parcel.severity == "page" else "3"
        mail["Message-ID"] = _message_id(message.dedup_key)
        if message.thread is not None:
            # Mail programs show the mails of one thread together.
            mail["References"] = _message_id(f"thread:{message.thread}")
        lines = ["".join(filter(str.isprintable, line)) for line in plain.splitlines()]
        mail.set_content("\n".join(lines) + "\n")
        sheet = payload.get("contact_sheet")
        data = _read(sheet) if sheet else None
        if data is not None:
            mail.add_attachment(data, maintype="image", subtype="png", filename="failures.png")
        return mail

    def _said(self, code: int, said: bytes | str) -> str:
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        return self._hidden(f"the mail server answered {code} {clip(clean(text), 200)}")

    def _hidden(self, text: str) -> str:
        password = self._password.get_secret_value()
        return text.replace(password, "(redacted)") if password else text


def _trouble(code: int) -> Trouble:
    """Return what an SMTP code asks for: 4xx another try, 5xx another message or settings."""
    if code in _LOGIN_CODES:
        return "token"
    return "outage" if code < 500 else "message"


def _unescaped(text: str) -> str:
    """Return Slack's markup as plain words."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _message_id(name: str) -> str:
    return f"<{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:32]}@{_DOMAIN}>"


def _read(sheet: str) -> bytes | None:
    try:
        data = Path(sheet).read_bytes()
    except OSError:
        return None
    return data if 0 < len(data) <= MOST_SHEET_BYTES else None


def mail_carrier(settings: Settings) -> MailCarrier | None:
    """Return the carrier that the settings ask for, ``None`` without a mail server.

    Raises:
        ConfigError: One of the settings cannot be used.
    """
    if settings.smtp_url is None:
        return None
    return MailCarrier(settings.smtp_url, settings.mail_from, settings.mail_to)
