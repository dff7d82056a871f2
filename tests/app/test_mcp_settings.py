"""The file of MCP servers is read whole at the start, and tells no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app.platforms import load_settings
from config.mcp_servers import McpServer, OAuth
from config.settings import SettingsError

FILE = """
[servers.tickets]
url = "https://tickets.example/mcp?team=${TEAM}"
headers = { Authorization = "Bearer ${TICKETS_TOKEN}", X-Team = "blue" }
tools = { search = "reads", create = "effects", "close.all" = "keyed" }
places = ["C024BE91L", 123456789012345678]

[servers.maps-2]
url = "http://10.0.0.7:8000/mcp"
tools.route = "reads"
oauth = { token_url = "https://id.example/token", client_id = "bot", client_secret = "${S}" }
"""
SECRETS = {"TEAM": "t3am-s3cret", "TICKETS_TOKEN": "s3cret-token", "S": "s3cret-id"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tools.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_the_servers_are_read_with_their_secrets_from_the_environment(file: Path) -> None:
    settings = load_settings({"MCP_SERVERS": str(file), **SECRETS}, Path("no-such-file"))

    tickets, maps = settings.tool_servers
    assert tickets == McpServer(
        name="tickets",
        url="https://tickets.example/mcp?team=t3am-s3cret",
        headers={"Authorization": "Bearer s3cret-token", "X-Team": "blue"},
        tools={"search": "reads", "create": "effects", "close.all": "keyed"},
        places=("C024BE91L", "123456789012345678"),
        secrets=tickets.secrets,
    )
    assert maps.oauth == OAuth(
        token_url="https://id.example/token", client_id="bot", client_secret="s3cret-id"
    )
    assert maps.url == "http://10.0.0.7:8000/mcp"


def test_no_log_shows_what_the_file_takes_from_the_environment(file: Path) -> None:
    settings = load_settings({"MCP_SERVERS": str(file), **SECRETS}, Path("no-such-file"))

    assert {*SECRETS.values(), "Bearer s3cret-token"} <= {*settings.secrets}
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("is_set_in_file", [True, False])
def test_its_variables_may_stand_in_the_env_file(
    file: Path, tmp_path: Path, *, is_set_in_file: bool
) -> None:
    lines = [f"{name}={text}\n" for name, text in SECRETS.items()]
    lines += [f"MCP_SERVERS={file}\n"] if is_set_in_file else []
    env_file = tmp_path / ".env"
    env_file.write_text("".join(lines))
    environment = {"TEAM": "other", "STRICT_ENVIRONMENT": "on"}
    environment |= {} if is_set_in_file else {"MCP_SERVERS": str(file)}

    settings = load_settings(environment, env_file)

    assert settings.tool_servers[0].url.endswith("team=other")
    assert settings.tool_servers[0].headers["Authorization"] == "Bearer s3cret-token"


def mistakes(text: str, folder: Path) -> list[str]:
    path = folder / "tools.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        load_settings({"MCP_SERVERS": str(path), **SECRETS}, Path("no-such-file"))
    begin = f"MCP_SERVERS={str(path)!r}: "
    found = str(caught.value).splitlines()
    assert all(it.startswith(begin) for it in found)
    assert "s3cret" not in str(caught.value)
    return [it.removeprefix(begin) for it in found]


def test_all_mistakes_are_told_at_once_with_their_names(tmp_path: Path) -> None:
    text = """
        [servers.a_b]
        kind = "http://here"
        headers = { X = 1, "X Y" = "s3cret", Z = "s3\\ncret", A = "${TEAM}${NO}", B = "${x-y}" }
        tools = { a = "writes", b = "reads", c = 1 }
        places = "C1"
        oauth = { token_url = "here", client = "s3cret" }
        [server.c]
    """

    assert mistakes(text, tmp_path) == [
        "server is unknown; did you mean servers?",
        "servers.a_b: a name has letters, digits and -, at most 24",
        "servers.a_b.kind is unknown; it may be url, headers, tools, places, oauth",
        "servers.a_b.headers.X is not a text in quotes",
        "servers.a_b.headers.X Y has a character that no header may have",
        "servers.a_b.headers.Z has a character that no header may have",
        "servers.a_b.headers.A needs NO, which is not set",
        "servers.a_b.headers.B has a variable that is not written like ${NAME}",
        "servers.a_b.url is missing",
        "servers.a_b.tools.a is none of reads, keyed, effects",
        "servers.a_b.tools.c is none of reads, keyed, effects",
        'servers.a_b.places is not a list like ["…", "…"]',
        "servers.a_b.oauth.client is unknown; did you mean client_id?",
        "servers.a_b.oauth.token_url does not begin with http:// or https://",
        "servers.a_b.oauth.client_id is missing",
        "servers.a_b.oauth.client_secret is missing",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no table [servers.NAME]"),
        ("[servers]", "has no table [servers.NAME]"),
        ("servers = 1", "servers is not a table"),
        ("[servers]\nx = 1", "servers.x is not a table"),
        ("[servers.x]\nurl = 's3cret", "is not TOML: "),
        ("\udcff", "is not a text in UTF-8"),
        (
            "[servers.x]\nurl = 'https://s3cret@here'\ntools.a = 'reads'",
            "servers.x.url holds a login: write that as a header",
        ),
        ("[servers.x]\nurl = 'https://here'", "servers.x.tools names no tool, so none is offered"),
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    assert mistakes(text, tmp_path)[0].startswith(sentence)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings({"MCP_SERVERS": str(tmp_path / "no.toml")}, Path("no-such-file"))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SEARCH_KEY": "s3cret"}, "SEARCH_KEY needs SEARCH_PROVIDER beside it"),
        ({"SEARCH_PROVIDER": "brave"}, "SEARCH_PROVIDER needs SEARCH_KEY beside it"),
        (
            {"SEARCH_PROVIDER": "duckduckgo"},
            "SEARCH_PROVIDER='duckduckgo' is none of brave, tavily",
        ),
        (
            {"SEARCH_URL": "http://here", "SEARCH_KEY": "s3cret", "SEARCH_PROVIDER": "tavily"},
            "SEARCH_URL and SEARCH_KEY are two ways to search: set one of them",
        ),
    ],
)
def test_one_way_to_search_is_set_whole(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environment, Path("no-such-file"))

    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SEARXNG_URL", "SEARCH_URL"),
        ("BRAVE_API_KEY", "SEARCH_KEY"),
        ("TAVILY_API_KEY", "SEARCH_KEY"),
        ("MCP_CONFIG", "MCP_SERVERS"),
    ],
)
def test_the_names_of_other_bots_are_understood(name: str, meant: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{name}=x\n")
    with pytest.raises(SettingsError, match=f"{name} in .env is unknown; did you mean {meant}"):
        load_settings({}, tmp_path / ".env")
