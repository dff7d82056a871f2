"""The library's internals are as they were read: discord.py 2.7.1."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import discord
import pytest
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket
from packaging.requirements import Requirement

from adapters.discord.gateway.connection import _resume_address, use_gateway
from adapters.discord.gateway.session_store import Session
from adapters.discord.platform import DiscordPlatform

READ = "2.7.1"  # the version whose source was read
ROOT = Path(__file__).parents[3]


def test_the_library_is_as_its_internals_were_read() -> None:
    """`gateway/connection.py` leans on these: after a change read the library anew.

    `Client.connect` is what ours stands in for.
    """
    opened = inspect.signature(DiscordWebSocket.from_client).parameters
    source = inspect.getsource(discord.Client.connect) + inspect.getsource(discord.Client.close)
    received = inspect.getsource(DiscordWebSocket.received_message)
    state = inspect.getsource(discord.state.ConnectionState.__init__)
    ready = inspect.getsource(discord.state.ConnectionState.parse_ready)

    assert discord.__version__ == READ
    assert {"initial", "gateway", "shard_id", "session", "sequence", "resume"} <= set(opened)
    assert "DiscordWebSocket.from_client(self, **ws_params)" in source
    # The client itself closes no connection that it has not opened.
    assert "self.ws is not None and self.ws.open" in source
    assert received.index("self.sequence = seq") < received.index("self._discord_parsers[event]")
    assert received.index("self.session_id = data") < received.index("self._discord_parsers[event]")
    assert "self.gateway = yarl.URL(data['resume_gateway_url'])" in received
    assert inspect.signature(DiscordWebSocket.close).parameters["code"].default == 4000
    assert ReconnectWebSocket(None, resume=False).resume is False
    assert isinstance(DiscordWebSocket.DEFAULT_GATEWAY, yarl.URL)
    assert "self.parsers: Dict[str, Callable[[Any], None]]" in state
    assert "self.dispatch: Callable[..., Any] = dispatch" in state
    assert "self._ready_state: asyncio.Queue[Guild] = asyncio.Queue()" in ready
    assert "self._ready_task = asyncio.create_task(self._delay_ready())" in ready
    assert list(inspect.signature(discord.state.ConnectionState.create_message).parameters) == [
        "self",
        "channel",
        "data",
    ]


def test_only_the_series_whose_internals_were_read_can_be_installed() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    allowed = next(Requirement(one) for one in lines if one.startswith("discord.py")).specifier
    locked = re.search(r"^discord-py==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)

    assert allowed.contains(READ)
    assert locked
    assert locked[1] == READ
    assert not any(allowed.contains(one, prereleases=True) for one in ("2.7.0", "2.8.0a1", "2.8.0"))


INTERNALS = {
    "gateway": r"discord\.(gateway|state)\b|\b_connection\b|(?<!self)\._state\b|DiscordWebSocket",
    "REST": r"discord\.http\b|\.http\b|\bRoute\b|HTTPClient",
}


@pytest.mark.parametrize(
    ("internals", "file"), [("gateway", "gateway/connection.py"), ("REST", "rest.py")]
)
def test_the_librarys_internals_are_used_in_one_file(internals: str, file: str) -> None:
    folder = Path(inspect.getfile(DiscordPlatform)).parent

    found = [
        str(one.relative_to(folder))
        for one in folder.rglob("*.py")
        # Without the names of our own modules.
        if re.search(INTERNALS[internals], one.read_text().replace("adapters.discord", ""))
    ]

    assert found == [file]


@pytest.mark.parametrize(
    ("saved", "goes_there"),
    [
        ("wss://gateway-us-east1-b.discord.gg", True),
        ("ws://gateway-us-east1-b.discord.gg", False),
        ("wss://gateway.discord.gg.example", False),
        ("wss://evildiscord.gg", False),
        ("", False),
        ("wss://[", False),
        ("wss://a][@", False),
        ("wss://gateway.discord.gg:999999", False),
    ],
)
def test_a_token_goes_to_discord_alone_and_never_in_the_clear(saved: str, goes_there: bool) -> None:
    use_gateway("")

    address = _resume_address(Session("secret", 1, saved))

    assert address == (yarl.URL(saved) if goes_there else None)


def test_where_the_operator_names_a_gateway_the_token_goes_there_alone() -> None:
    use_gateway("wss://gateway.example/path")
    try:
        addresses = [
            _resume_address(Session("secret", 1, saved))
            for saved in ("wss://gateway.discord.gg", "wss://gateway.example/resume")
        ]
    finally:
        use_gateway("")

    assert addresses == [None, yarl.URL("wss://gateway.example/resume")]


async def test_a_client_has_a_parser_for_each_event_that_somebody_waits_for() -> None:
    client = discord.Client(intents=discord.Intents.none())

    awaited = {
        *("READY", "RESUMED", "GUILD_CREATE", "INTERACTION_CREATE"),
        *("MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK"),
    }
    assert awaited <= set(client._connection.parsers)
