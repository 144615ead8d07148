"""The kit that fakes of providers are built on does what it says, with two HTTP clients."""

from __future__ import annotations

import asyncio
import http.client
import io

import httpx
import pytest
from PIL import Image

from tests.fakes.http_server import FakeServer, Reply, json_reply, png


def test_requests_are_logged_and_scripts_come_in_their_order() -> None:
    with FakeServer() as server, httpx.Client(base_url=server.url) as client:
        server.script(json_reply({"no": 1}, 429, retry_after="7"), None, on=r"POST /a")
        assert client.post("/b", json={"x": 1}).status_code == 200
        first = client.post("/a?q=1%202", json={"x": 2})
        assert (first.status_code, first.headers["retry-after"]) == (429, "7")
        assert client.post("/a", data={"f": "v"}, files={"image": b"bytes"}).status_code == 200
        assert [r.path for r in server.seen("POST /a")] == ["/a", "/a"]
        assert server.seen("/a")[0].query == {"q": "1 2"}
        assert server.seen("/b")[0].json() == {"x": 1}
        assert server.seen("/a")[1].form() == {"f": [b"v"], "image": [b"bytes"]}
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(body=b"12345", cut=3), httpx.RemoteProtocolError),
        (Reply(reset=True), (httpx.ReadError, httpx.RemoteProtocolError)),
        (Reply(raw=b"220 ftp ready\r\n"), httpx.RemoteProtocolError),
        (Reply(hang=True), httpx.ReadTimeout),
    ],
    ids=["cut", "reset", "raw", "hang"],
)
def test_it_misbehaves_as_told(reply: Reply, error: type[Exception]) -> None:
    with FakeServer() as server:
        server.script(reply)
        with pytest.raises(error):
            httpx.get(server.url, timeout=0.3)
        assert httpx.get(server.url).status_code == 200


def test_it_speaks_with_another_client_and_in_chunks() -> None:
    with FakeServer() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for _ in range(2):  # the connection is kept
            connection.request("POST", "/x", iter([b"ab", b"c"]), encode_chunked=True)
            answer = connection.getresponse()
            assert answer.read() == server.picture
        connection.close()
        assert [r.body for r in server.requests] == [b"abc", b"abc"]


def test_latency_overlaps_and_the_server_times_itself() -> None:
    async def all_of_them(url: str) -> None:
        async with httpx.AsyncClient() as client:
            await asyncio.gather(*(client.get(url) for _ in range(20)))

    with FakeServer(latency_s=0.05) as server:
        asyncio.run(all_of_them(server.url))
        assert server.most_at_once > 1
        assert len(server.took_s) == 20
        assert min(server.took_s) >= 0.05


@pytest.mark.parametrize("size", [0, 1000, 1_000_000])
def test_pictures_are_whole_and_as_large_as_wanted(size: int) -> None:
    data = png(48, 32, (1, 2, 3), size)
    assert size <= len(data) <= max(size, 400)
    with Image.open(io.BytesIO(data)) as picture:  # noqa: TID251 - a file of our own
        picture.load()
        assert (picture.size, picture.getpixel((0, 0))) == ((48, 32), (1, 2, 3))
