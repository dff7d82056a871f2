"""The file that MCP_SERVERS names: servers of tools, and what may be called there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from config.variables import checked_address

ToolKind = Literal["reads", "keyed", "effects"]

_KINDS: Mapping[str, ToolKind] = {it: it for it in get_args(ToolKind)}
_KEYS = ("url", "headers", "tools", "places", "oauth")
_OAUTH_KEYS = ("token_url", "client_id", "client_secret", "scopes")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
# The name of a tool begins with that of its server, and a "_" follows: no two are equal then.
_NAME = re.compile(r"[A-Za-z0-9-]{1,24}")
# RFC 9110, sections 5.1 and 5.5.
_HEADER, _HEADER_TEXT = re.compile(r"[!#$%&'*+.^`|~\w-]+", re.ASCII), re.compile(r"[\t -~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """Credentials of the bot at the server that issues tokens (RFC 6749, section 4.4)."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server of tools, by the operator's name.

    Of its `tools` only those with a kind are offered, in `places` alone (ids of servers, channels
    and threads), or everywhere if there are none. `secrets` are the texts that no log may show.
    """

    name: str
    url: str = field(repr=False)
    tools: Mapping[str, ToolKind]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    places: tuple[str, ...] = ()
    oauth: OAuth | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


def variables_in(path: str) -> set[str]:
    """Return the variables that a file names; none if it cannot be read."""
    try:
        return set(_VARIABLE.findall(Path(path).expanduser().read_text("utf-8"))) if path else set()
    except (OSError, ValueError, RuntimeError):
        return set()


def read_servers(path: Path, values: Mapping[str, str]) -> tuple[McpServer, ...]:
    """Return the servers of a file, whose variables have these values.

    Raises ValueError with all mistakes, one a line, without values.
    """
    import tomllib  # only where there is such a file

    try:
        file = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise ValueError("is not a text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from None
    reading = _Reading(values)
    tables = reading.table("servers", reading.table("", file, ("servers",)).get("servers", {}))
    found = tuple(reading.server(name, one) for name, one in tables.items())
    if not found:
        reading.mistakes.append("has no table [servers.NAME]")
    if reading.mistakes:
        raise ValueError("\n".join(reading.mistakes))
    return found


class _Reading:
    """Reads tables, and collects what is wrong in them; `where` is the name of a value."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.mistakes: list[str] = []
        self._values = values
        self._secrets: list[str] = []

    def server(self, name: str, value: object) -> McpServer:
        where = f"servers.{name}"
        if not _NAME.fullmatch(name):
            self.mistakes.append(f"{where}: a name has letters, digits and -, at most 24")
        self._secrets = []
        table = self.table(where, value, _KEYS)
        headers = self._headers(f"{where}.headers", table.get("headers", {}))
        return McpServer(
            name=name,
            url=self._address(f"{where}.url", table.get("url", "")),
            headers=headers,
            tools=self._tools(f"{where}.tools", table.get("tools", {})),
            places=self._words(f"{where}.places", table.get("places", [])),
            oauth=self._oauth(f"{where}.oauth", table["oauth"]) if "oauth" in table else None,
            secrets=tuple(self._secrets),
        )

    def table(self, where: str, value: Any, keys: Collection[str] = ()) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self.mistakes.append(f"{where} is not a table")
            return {}
        for key in value if keys else ():
            if key not in keys:
                near = get_close_matches(key, keys, n=1)
                cure = f"did you mean {near[0]}?" if near else f"it may be {', '.join(keys)}"
                self.mistakes.append(f"{f'{where}.{key}'.lstrip('.')} is unknown; {cure}")
        return value

    def _headers(self, where: str, value: object) -> Mapping[str, str]:
        found = {}
        for name, text in self.table(where, value).items():
            found[name] = self._text(f"{where}.{name}", text)
            self._secrets.append(found[name])
            if not _HEADER.fullmatch(name) or not _HEADER_TEXT.fullmatch(found[name] or "-"):
                self.mistakes.append(f"{where}.{name} has a character that no header may have")
        return found

    def _tools(self, where: str, value: object) -> Mapping[str, ToolKind]:
        table = self.table(where, value)
        if not table:
            self.mistakes.append(f"{where} names no tool, so none is offered")
        found = {name: _KINDS.get(str(kind)) for name, kind in table.items()}
        for name in (name for name, kind in found.items() if not kind):
            self.mistakes.append(f"{where}.{name} is none of {', '.join(_KINDS)}")
        return {name: kind for name, kind in found.items() if kind}

    def _oauth(self, where: str, value: object) -> OAuth:
        table = self.table(where, value, _OAUTH_KEYS)
        found = OAuth(
            token_url=self._address(f"{where}.token_url", table.get("token_url", "")),
            client_id=self._text(f"{where}.client_id", table.get("client_id", "")),
            client_secret=self._text(f"{where}.client_secret", table.get("client_secret", "")),
            scopes=self._words(f"{where}.scopes", table.get("scopes", [])),
        )
        self._secrets.append(found.client_secret)
        return found

    def _address(self, where: str, value: object) -> str:
        if text := self._text(where, value):
            try:
                if checked_address(text, ("http", "https")).username is not None:
                    self.mistakes.append(f"{where} holds a login: write that as a header")
            except ValueError as error:
                self.mistakes.append(f"{where} {error}")
        return text

    def _text(self, where: str, value: object) -> str:
        """Return a text that must not be empty, with its variables filled in."""
        if not isinstance(value, str):
            self.mistakes.append(f"{where} is not a text in quotes")
            return ""
        names = _VARIABLE.findall(value)
        lacking = [name for name in names if not self._values.get(name)]
        self.mistakes += [f"{where} needs {name}, which is not set" for name in lacking]
        self._secrets += [self._values[name] for name in names if name not in lacking]
        if not value:
            self.mistakes.append(f"{where} is missing")
        elif "${" in _VARIABLE.sub("", value):
            self.mistakes.append(f"{where} has a variable that is not written like ${{NAME}}")
        return _VARIABLE.sub(lambda found: self._values.get(found[1], ""), value)

    def _words(self, where: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str | int) for one in value):
            self.mistakes.append(f'{where} is not a list like ["…", "…"]')
            return ()
        return tuple(map(str, value))
