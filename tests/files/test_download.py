"""Files come from the hosts that they may come from, and their errors are told apart."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from bot.errors import MessageGone, SurfaceError, WriteFailed, WriteRefused
from bot.files.download import download, is_public, public_socket
from tests.emulators.serving import served


@asynccontextmanager
async def host(*, elsewhere: str = "") -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Serve files; return the address, and the requests."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        name = request.path[1:]
        if name in ("here", "there", "again"):
            to = {"here": "/file", "there": f"{elsewhere}/file", "again": "/again"}[name]
            return web.Response(status=302, headers={"Location": to})
        if name.isdecimal():
            return web.Response(status=int(name))
        return web.Response(body=b"bytes " * 50_000)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    async with served(app) as address:
        yield address, asked


async def fetched(address: str, *, api_url: str = "", hosts: tuple[str, ...] = ()) -> bytes:
    headers = {"Authorization": "Bearer secret"}
    chunks = download(address, hosts=hosts, api_url=api_url, headers=headers)
    return b"".join([chunk async for chunk in chunks])


async def test_a_redirect_at_the_same_host_is_followed_with_the_token() -> None:
    async with host() as (address, asked):
        data = await fetched(f"{address}/here", api_url=f"{address}/api")

    assert data == b"bytes " * 50_000
    assert [one.headers["Authorization"] for one in asked] == ["Bearer secret"] * 2


async def test_a_redirect_to_another_host_is_refused() -> None:
    async with host() as (other, theirs), host(elsewhere=other) as (address, _):
        with pytest.raises(WriteRefused, match="another host"):
            await fetched(f"{address}/there", api_url=address)

    assert theirs == []


@pytest.mark.parametrize(
    "address",
    [
        "http://files.example/a",
        "https://other.example/a",
        "https://files.example.evil/a",
        "https://files.example@evil.example/a",
        "file:///etc/passwd",
        "no address",
        "https://files.example:port/a",
    ],
)
async def test_other_addresses_are_not_asked(address: str) -> None:
    with pytest.raises(WriteRefused):
        await fetched(address, hosts=("files.example",))


async def test_a_name_of_the_platform_leads_to_no_private_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with pytest.raises(WriteFailed):
            await fetched(f"https://localhost:{server.getsockname()[1]}/a", hosts=("localhost",))

        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("401", WriteRefused),
        ("404", MessageGone),
        ("410", MessageGone),
        ("429", WriteFailed),
        ("503", WriteFailed),
        ("again", WriteRefused),
    ],
)
async def test_errors_are_told_apart(name: str, error: type[SurfaceError]) -> None:
    async with host() as (address, _):
        with pytest.raises(error):
            await fetched(f"{address}/{name}", api_url=address)


async def test_a_host_that_is_away_may_come_back() -> None:
    async with host() as (address, _):
        pass

    with pytest.raises(WriteFailed):
        await fetched(f"{address}/file", api_url=address)


PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254
    172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1
    203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8
    64:ff9b::10.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::a00:1 100::1 2001::1 2001:0:4136:e378::1
    2001:10::1 2001:db8::1 2002:a00:1:: 2002:808:808::1 3fff::1 4000::1 5f00::1 fc00::1
    fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
    2a00:1450::5efe:10.0.0.1 2a00:1450::200:5efe:8.8.8.8
    localhost 127.1 2130706433 0x7f000001 nothing
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_no_form_of_a_private_address_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2a00:1450:4001::200e", "2606:4700::1111"]
)
def test_others_are_public(address: str) -> None:
    assert is_public(address)


def test_the_connector_checks_each_address_that_it_connects_to() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.1", 443))
    with pytest.raises(OSError, match="no public address"):
        public_socket(info)
