from __future__ import annotations

import base64
import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.policy import parse_strict
from tasks.rollout.outcomes.api import JsonApi
from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError
from tasks.rollout.outcomes.config import LogsConfig, TicketsApiConfig, TicketsCsvConfig
from tasks.rollout.outcomes.logs import LogSource
from tasks.rollout.outcomes.tickets import CsvDesk, TicketSource, ZendeskDesk, basic

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class Zendesk:
    """The incremental export as Zendesk documents it, with pages, limits and its login."""

    def __init__(self, page: int = 100) -> None:
        self.now, self.page, self.asked = T0, page, 0
        self.tickets: list[dict[str, Any]] = []
        self.limited = False

    def open(self, seconds: float, *tags: str, **fields: Any) -> dict[str, Any]:
        ticket = {
            "id": len(self.tickets) + 1,
            "created_at": at(seconds).isoformat().replace("+00:00", "Z"),
            "updated_at": at(seconds).isoformat().replace("+00:00", "Z"),
            "status": "new",
            "tags": list(tags),
            "custom_fields": [{"id": 77, "value": None}],
            **fields,
        }
        self.tickets.append(ticket)
        return ticket

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        login = base64.b64encode(b"bot@shop.example/token:tok-secret-123").decode()
        if request.headers.get("Authorization") != f"Basic {login}":
            return httpx.Response(401, json={"error": "Couldn't authenticate you"})
        if self.limited:
            return httpx.Response(429, json={"error": "limit"}, headers={"Retry-After": "60"})
        assert request.url.path == "/api/v2/incremental/tickets/cursor.json"
        query = dict(request.url.params)
        if "cursor" in query:
            start, offset = (int(part) for part in query["cursor"].split("-"))
        else:
            start, offset = int(query["start_time"]), 0
            if start > self.now.timestamp() - 60:
                return httpx.Response(400, json={"error": "StartTimeTooRecent"})
        found = [
            t for t in self.tickets if datetime.fromisoformat(t["updated_at"]).timestamp() >= start
        ]
        page = found[offset : offset + self.page]
        done = offset + self.page >= len(found)
        return httpx.Response(
            200,
            json={
                "tickets": page,
                "after_url": "http://169.254.169.254/latest/meta-data",
                "after_cursor": f"{start}-{offset + len(page)}",
                "end_of_stream": done,
            },
        )


class Looks:
    """Looks at tickets that follow each other."""

    def __init__(self, folder: Path, desk: Zendesk, **config: Any) -> None:
        section = {
            "kind": "tickets_api",
            "url": "https://shop.example",
            "token_env": "DESK_TOKEN",
            "user": "bot@shop.example",
            "mix_field": "77",
            "every_s": 0,
            **config,
        }
        self.desk, self.folder, self.since = desk, folder, T0
        self.config = parse_strict(TicketsApiConfig, section, "test")
        self.requests: LogSource | None = None
        self.notes: tuple[str, ...] = ()

    def look(self, now: float, *digests: str) -> dict[str, int | None]:
        self.desk.now = at(now)
        headers = {"Authorization": basic("bot@shop.example", SecretStr("tok-secret-123"))}
        api = JsonApi(self.config.url, headers, 10, httpx.MockTransport(self.desk))
        source = TicketSource(
            self.config,
            ZendeskDesk(self.config, api, lambda: at(now)),
            self.folder,
            self.requests,
            lambda: at(now),
        )
        found = source.read("shop", digests or (A, B), self.since, at(now))
        self.since, self.notes = found.until, found.notes
        return {digest: arm.tickets for digest, arm in found.arms.items()}


def test_tickets_count_once_by_their_mix_in_the_window_after_they_were_seen(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk)
    desk.open(-50, f"mix_{'a' * 12}")  # From before the first look.
    assert looks.look(10) == {A: 0, B: 0}
    desk.open(11, f"mix_{'a' * 16}")
    desk.open(12, custom_fields=[{"id": 77, "value": B}])
    assert looks.look(20) == {A: 0, B: 0}
    assert looks.look(30) == {A: 1, B: 1}
    assert looks.look(40) == {A: 0, B: 0}


def test_a_ticket_that_is_tagged_later_counts_then(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk)
    looks.look(10)
    ticket = desk.open(15)
    looks.look(20)
    assert any("name no mix" in note for note in looks.notes)
    ticket["tags"] = [f"mix_{'b' * 64}"]
    looks.look(3_600)
    assert looks.look(3_700) == {A: 0, B: 1}


def test_many_pages_and_no_address_of_the_server_is_followed(tmp_path: Path) -> None:
    desk = Zendesk(page=7)
    looks = Looks(tmp_path, desk)
    looks.look(1)
    for n in range(50):
        desk.open(2 + n / 100, f"mix_{'a' * 12}")
    looks.look(10)
    assert looks.look(20)[A] == 50


def test_which_tickets_count(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk, only_tags=["$product-images"], not_tags=["spam", "billing"])
    looks.look(1)
    mix = f"mix_{'a' * 12}"
    desk.open(2, mix, "shop-images")
    desk.open(2, mix, "blog-images")
    desk.open(2, mix, "Shop-Images", "billing")
    desk.open(2, mix, "shop-images", status="deleted")
    looks.look(10)
    assert looks.look(20)[A] == 1


def test_the_desk_is_not_asked_at_every_look(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk, every_s=300)
    for now in range(10, 620, 10):
        looks.look(now)
    assert desk.asked == 3


def test_a_desk_that_refuses_is_an_error_and_nothing_is_lost(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk)
    looks.look(1)
    desk.open(2, f"mix_{'a' * 12}")
    desk.limited = True
    with pytest.raises(OutcomeError, match="429") as caught:
        looks.look(10)
    assert "tok-secret-123" not in str(caught.value)
    desk.limited = False
    looks.look(5_000)
    assert looks.look(5_010)[A] == 1


def test_two_readers_each_see_every_ticket(tmp_path: Path) -> None:
    desk = Zendesk()
    canary, watch = Looks(tmp_path, desk), Looks(tmp_path, desk)
    canary.look(1)
    watch.look(2)
    desk.open(3, f"mix_{'a' * 12}")
    first = [looks.look(now)[A] for now, looks in ((4, canary), (5, watch))]
    second = [looks.look(now)[A] for now, looks in ((6, canary), (7, watch))]
    assert [a + b for a, b in zip(first, second, strict=True)] == [1, 1]  # type: ignore[operator]


def test_one_without_a_mix_belongs_to_the_only_one(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk, unattributed="only_mix")
    looks.look(1)
    desk.open(2)
    desk.open(2, f"mix_{'b' * 12}")
    looks.look(3, A)
    assert looks.look(10, A) == {A: 1}
    assert any("not looked at" in note for note in looks.notes)


def test_the_request_of_a_ticket_names_the_mix(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    rows = [
        {"time": at(-7_200 + n).isoformat(), "request_id": f"r{n}", "mix_digest": mix, "ok": True}
        for n, mix in enumerate((A, B, B))
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk = Zendesk()
    looks = Looks(tmp_path / "book", desk, mix_field=None, request_field="77", requests="logs")
    logs = parse_strict(LogsConfig, {"kind": "logs", "files": str(log)}, "test")
    looks.requests = LogSource(logs, lambda: at(100))
    looks.look(1)
    for request in ("r0", "r1", "r2", "r99"):
        desk.open(2, custom_fields=[{"id": 77, "value": request}])
    looks.look(3)
    assert looks.look(10) == {A: 1, B: 2}


@pytest.mark.parametrize(
    "answer",
    [
        {"tickets": [{"id": 1}], "end_of_stream": True},
        {"tickets": [{"id": 1, "created_at": "soon"}], "end_of_stream": True},
        {"tickets": None, "end_of_stream": True},
        {"tickets": []},
        {"tickets": [], "end_of_stream": False, "after_cursor": "same"},
        {"tickets": ["x"], "end_of_stream": True},
        [],
    ],
)
def test_what_is_no_ticket_is_an_error(answer: Any, tmp_path: Path) -> None:
    config = parse_strict(
        TicketsApiConfig,
        {"kind": "tickets_api", "url": "https://d.example", "token_env": "T"},
        "test",
    )
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    desk = ZendeskDesk(config, JsonApi(config.url, {}, 10, transport), lambda: at(1))
    source = TicketSource(config, desk, tmp_path, None, lambda: at(1))
    with pytest.raises(OutcomeError):
        source.read("shop", [A], T0, at(1))


def _csv(path: Path, rows: list[list[str]], head: str = "id,created_at,tags,request") -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(head.split(","))
        writer.writerows(rows)


def _csv_source(tmp_path: Path, now: float, **config: Any) -> TicketSource:
    section = {"kind": "tickets_csv", "files": str(tmp_path / "*.csv"), "every_s": 0, **config}
    parsed = parse_strict(TicketsCsvConfig, section, "test")
    return TicketSource(parsed, CsvDesk(parsed), tmp_path / "book", None, lambda: at(now))


def test_exported_files(tmp_path: Path) -> None:
    _csv(tmp_path / "one.csv", [])
    _csv_source(tmp_path, 1).read("shop", [A], T0, at(1))
    rows = [
        ["1", at(5).isoformat(), f"shop mix_{'a' * 12}", ""],
        ["2", at(6).isoformat(), f"mix_{'a' * 12},shop", "with\nlines, and commas"],
    ]
    _csv(tmp_path / "one.csv", rows)
    _csv(tmp_path / "two.csv", rows)  # The next export holds the same tickets again.
    _csv_source(tmp_path, 10).read("shop", [A], at(1), at(10))
    found = _csv_source(tmp_path, 20).read("shop", [A], at(10), at(20))
    assert found.arms[A] == ArmOutcomes(tickets=2)


@pytest.mark.parametrize(
    ("rows", "config", "problem"),
    [
        ([["1", "soon", "", ""]], {}, "line 2"),
        ([["", "2020-02-29T12:00:05Z", "", ""]], {}, "no 'id'"),
        ([["1"]], {}, "line 2"),
        ([], {"mix_column": "Mix"}, "no column 'Mix'"),
    ],
)
def test_files_that_make_no_sense_are_errors(
    tmp_path: Path, rows: list[list[str]], config: dict[str, str], problem: str
) -> None:
    _csv(tmp_path / "one.csv", rows)
    with pytest.raises(OutcomeError, match=problem):
        _csv_source(tmp_path, 10, **config).read("shop", [A], T0, at(10))


def test_a_missing_export_is_not_peace(tmp_path: Path) -> None:
    with pytest.raises(OutcomeError, match="nobody knows"):
        _csv_source(tmp_path, 10).read("shop", [A], T0, at(10))


def test_half_a_line_left_by_a_crash_does_no_harm(tmp_path: Path) -> None:
    desk = Zendesk()
    looks = Looks(tmp_path, desk)
    looks.look(1)
    (book,) = tmp_path.glob("*.jsonl")
    with book.open("a") as file:
        file.write('["1", "mix')
    desk.open(2, f"mix_{'a' * 12}")
    looks.look(3)
    assert looks.look(10)[A] == 1
