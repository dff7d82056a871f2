"""Every variable that an operator can set: its name, type, default and meaning."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from dotenv.parser import Binding, parse_stream

from config.mcp_servers import McpServer, read_servers, variables_in
from config.names import NEAR, OF_OTHERS, misspelt
from config.persona_files import read_personas
from config.variables import (
    ON,
    SENTINELS,
    IdForm,
    Ids,
    NumbersById,
    checked_address,
    each_server,
    file_text,
    host_name,
    one_of,
    port_number,
    setting,
    switch,
    switch_or_auto,
    url,
    whole_text,
    within,
    word,
    words,
)

# Filled in within SYSTEM_PROMPT; see `SystemPrompt` in bot/text/prompt.py.
PLACEHOLDERS = ("date", "time", "name", "place", "platform")
# How an empty value is written; anything else behind the "=" is a comment, or cannot be seen.
_EMPTY = re.compile(r"""[ \t]*(['"]?)[ \t]*\1""")
# A limit behind what only some editors show as the end of a line, or in quotes that do not end.
_HIDDEN_LINE = re.compile(
    r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*(export\s+)?"
    r"(?P<name>ALLOWED_\w+|BLOCKED_\w+|ADMINS|DIRECT_MESSAGES|\w+_PER_(?:DAY|MONTH)"
    r"|WEB_PASSWORD(?:_FILE)?)\s*="
)
# A port that Kubernetes sets for a service called "web".
_LINK = re.compile(r"\w+_PORT=tcp://.*")
# The options of REDIS_URL. redis-py hands all others to its connections: some raise there, and its
# timeouts would replace those of `bot.store`.
_REDIS_OPTIONS = (
    *("db", "username", "password", "client_name", "protocol"),
    *("max_connections", "health_check_interval", "socket_keepalive"),
)
_TLS_OPTIONS = (
    *("ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname"),
    *("ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password"),
)
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_LABEL_LENGTH = 60  # characters; menus have no room for more
_LINE_LENGTH = 120  # characters of what a model is for
# A comma within "(what it is for)" at the end of a model is none between two.
_BETWEEN_MODELS = re.compile(r",(?![^()]*\)\s*(?:,|$))")
_DESCRIBED = re.compile(r"(.*\S)\s+\(([^()]*)\)")
_SHOWN = 400  # characters of a refused value

# Also for other programs' names; python-dotenv accepts anything up to a blank or an equals sign.
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_HUB_FILE = re.compile(r"\w[\w.-]*/[\w.-]+:[\w.-]+")
_MOST_PRICE = 1_000_000
_limit = within(0, 10**12)
_money = within(0, 10**9, float)
_tokens = within(1, 10_000_000)


class SettingsError(Exception):
    """All mistakes in the settings, one per line, without secrets."""


class PlatformSettings:
    """The settings of one platform: a frozen dataclass of `setting` fields.

    The variable of `token` is NAME_TOKEN.
    """

    name: ClassVar[str]  # of the platform, before each of its variables
    # Pairs of fields, of which the first means nothing without the second.
    needs: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def variable(cls, setting_name: str) -> str:
        """Return the variable of a field."""
        return f"{cls.name}_{setting_name}".upper()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return this platform's part of all settings."""
        found = settings.platforms.get(cls.name)
        return found if isinstance(found, cls) else cls()

    @property
    def is_configured(self) -> bool:
        """Whether the operator wants the platform."""
        return False

    @property
    def post_path(self) -> str:
        """The path on HOST and PORT to which the platform posts its events; "" if it does not."""
        return ""

    @property
    def get_paths(self) -> tuple[str, ...]:
        """The paths of its pages on HOST and PORT."""
        return ()

    def ports(self) -> Mapping[str, tuple[str, int]]:
        """Return the host and port on which its role listens, by the variable of the port."""
        return {}

    def lacks(self) -> Iterator[str]:
        """Yield what its role needs, beside the credential, and does not have."""
        return iter(())

    def mistakes(self, settings: Settings) -> Iterator[str]:
        """Yield the contradictions in its settings, also with those of all."""
        return iter(())


class DescribesSettings(Protocol):
    """The part of `PlatformSpec` from which settings are read."""

    @property
    def settings(self) -> type[PlatformSettings]:
        """The class of its settings."""
        ...

    @property
    def ids(self) -> Mapping[str, IdForm]:
        """What its ids look like, by kind."""
        ...


def _models(text: str) -> tuple[tuple[str, str, str], ...]:
    """Return names with their labels, and what they are for; the default label is the name."""
    found: list[tuple[str, str, str]] = []
    for part in filter(None, map(str.strip, _BETWEEN_MODELS.split(text))):
        named, purpose = (
            described.groups() if (described := _DESCRIBED.fullmatch(part)) else (part, "")
        )
        label, _, name = (each.strip() for each in named.rpartition("="))
        is_readable = label.isprintable() and purpose.isprintable()
        if not name or not is_readable or len(label) > _LABEL_LENGTH or len(purpose) > _LINE_LENGTH:
            raise ValueError(f"has {part!r} in it, which is not like Label=name (what it is for)")
        found.append((word(name), label or name, purpose.strip()))
    names = [name for *one, _ in found for name in {each.casefold() for each in one}]
    if len(names) > len(set(names)):
        raise ValueError("names a model, or uses a label, twice")
    return tuple(found)


def _prices(text: str) -> tuple[tuple[str, float, float], ...]:
    """Return names, each with the prices of tokens read and written."""
    found: dict[str, tuple[float, float]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, written = (each.strip() for each in part.rpartition("="))
        prices = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*([0-9]+(?:\.[0-9]+)?)", written)
        if not name or not prices or max(map(float, prices.groups())) > _MOST_PRICE:
            raise ValueError(f"has {part!r} in it, which is not like NAME=0.2/0.6")
        if name in found:
            raise ValueError(f"has {name} twice")
        found[name] = float(prices[1]), float(prices[2])
    return tuple((name, *both) for name, both in found.items())


def _system_prompt(text: str) -> str:
    for name in re.findall(r"\{(\w+)\}", text):
        near = get_close_matches(name.lower(), PLACEHOLDERS, n=1, cutoff=NEAR)
        if near and name != near[0]:
            raise ValueError(f"has {{{name}}} in it; did you mean {{{near[0]}}}?")
    return text


def _redis_url(text: str) -> str:
    for address in each_server(text):
        parts = checked_address(address, ("redis", "rediss", "unix"))
    known: tuple[str, ...] = _REDIS_OPTIONS + (_TLS_OPTIONS if parts.scheme == "rediss" else ())
    database = parts.path.strip("/")
    if SENTINELS.fullmatch(text):
        known += _SENTINEL_OPTIONS
        name, _, database = database.partition("/")
        if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
            raise ValueError("lacks the primary's name, as in redis+sentinel://HOST,HOST/NAME/0")
    if any(name not in known for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(f"has an option that is none of {', '.join(known)}")
    # redis-py would use database 0 instead of an invalid number.
    if parts.scheme != "unix" and not re.fullmatch(r"[0-9]{0,9}", database):
        raise ValueError("names a database that is no number")
    return text


def _dsn(text: str) -> str:
    parts = checked_address(text, ("http", "https"))
    if not parts.username or not re.fullmatch(r"(/[\w.-]+)*/[0-9]+", parts.path):
        raise ValueError("is no DSN, such as https://KEY@HOST/PROJECT")
    return text


def _layers(text: str) -> int | None:
    if text.lower() == "auto":
        return None
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(
            "is neither auto (as many as fit) nor a number: 0 means none, 999 means all"
        )
    return within(0, 2**31 - 1)(text)  # llama.cpp's int32


def _path(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", "there is no such home")
        raise ValueError(f"cannot be used: {reason}") from None
    return path


def _file_or_name(text: str) -> Path | str:
    """Return a file's path, or a name at the Hugging Face Hub as it is."""
    path = _path(text)
    if path.is_file():
        return path
    if _HUB_FILE.fullmatch(text):
        return text
    raise ValueError("is not a file, nor a name at Hugging Face such as owner/name:Q4_K_M")


def _folder(text: str) -> Path:
    path = _path(text)
    if path.exists() and not path.is_dir():
        raise ValueError("is not a folder")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the operator; each field is the variable of the same name in capitals.

    None, "" and () mean unset. `repr` shows no secret.
    """

    # The settings of each platform, by its name.
    platforms: Mapping[str, PlatformSettings] = field(default_factory=dict)
    tool_servers: tuple[McpServer, ...] = ()  # those of the file that MCP_SERVERS names
    persona_texts: tuple[tuple[str, str], ...] = ()  # names and texts of the folder PERSONAS
    hf_token: str = setting(
        "", word, "Hugging Face token: MODEL_ID then answers through Hugging Face", secret=True
    )
    model_id: str = setting(
        "mistralai/Mistral-7B-Instruct-v0.3",
        word,
        "the model's name at Hugging Face or at MODEL_URL; demo means the small embedded one",
    )
    model_fallbacks: tuple[str, ...] = setting(
        (), words, "models to ask when that one fails, in this order, with commas between"
    )
    models: tuple[tuple[str, str, str], ...] = setting(
        (),
        _models,
        "models of the same source that people may choose, such as Fast=NAME, Clever=NAME (for "
        "hard questions); the first answers if MODEL_ID is not set",
    )
    model_url: str = setting(
        "",
        url("http", "https"),
        "address of an OpenAI-compatible server (llama.cpp, TGI, vLLM) to use instead",
        secret=True,
    )
    model_api_key: str = setting(
        "", word, "key for MODEL_URL; HF_TOKEN never goes there", secret=True
    )
    local_model_path: Path | str | None = setting(
        None,
        _file_or_name,
        "a GGUF file for the embedded server, instead of the demo model, or its name at Hugging "
        "Face with the quantisation, such as owner/name:Q4_K_M",
    )
    local_mmproj_path: Path | None = setting(
        None,
        _path,
        "the mmproj file with which the GGUF file sees; empty: the one beside its name at Hugging "
        "Face",
    )
    transformers_model: str = setting(
        "", str, "a model to run here with transformers: its name at Hugging Face, or its folder"
    )
    gpu_layers: int | None = setting(
        None, _layers, "how many layers the embedded server puts on the GPU, or auto"
    )
    # At most llama.cpp's GGML_MAX_N_THREADS.
    local_threads: int | None = setting(
        None,
        within(1, 512),
        "threads on which the embedded server computes; empty: all cores but one",
    )
    system_prompt: str = setting(
        "You are Parley, a friendly assistant in a group chat. Answer in the language of the "
        "question, correctly and briefly, in Markdown where it helps. If you do not know "
        "something, say so.",
        _system_prompt,
        "what the model is told before every conversation; {date}, {time}, {name}, {place} and "
        "{platform} are filled in",
    )
    system_prompt_line: bool = setting(
        True, switch, "on: date, time, person and place are added if SYSTEM_PROMPT names none"
    )
    personas: Path = setting(
        Path("config/personas"),
        _folder,
        "a folder of texts NAME.md, each of which people may choose as a persona by its name",
    )
    max_tokens: int = setting(1024, _tokens, "the longest answer, in tokens")
    temperature: float | None = setting(
        None, within(0, 2, float), "how freely the model chooses its words; empty: its own default"
    )
    top_p: float | None = setting(
        None,
        within(0.0001, 1, float),
        "share of likely words to choose from; empty: its own default",
    )
    vision: bool | None = setting(
        None,
        switch_or_auto,
        "whether the model sees pictures: auto (as its server reports), on or off",
    )
    vision_model: str = setting(
        "", word, "a model of the same source that sees, for pictures that MODEL_ID does not see"
    )
    context_tokens: int = setting(
        8192, _tokens, "how much the model sees, question, history and answer together, in tokens"
    )
    # Discord returns a hundred messages at once.
    thread_context: int = setting(
        50, within(0, 100), "earlier messages that are read when called into a thread; 0: none"
    )
    file_max_mb: int = setting(10, within(0, 100), "the largest file that is read, in MB")
    files_per_question: int = setting(
        5, within(0, 20), "how many files are read for one question; 0: none"
    )
    tools: bool | None = setting(
        None,
        switch_or_auto,
        "whether the model may call tools: auto (if its server says that it can, or says nothing "
        "and MCP_SERVERS or a search is set), on or off",
    )
    mcp_servers: Path | None = setting(
        None,
        _path,
        "a TOML file of MCP servers, and which of their tools the model may call; "
        "docs/settings.md describes it",
    )
    search_url: str = setting(
        "",
        url("http", "https"),
        "address of a SearXNG with which the model searches the web",
        secret=True,
    )
    search_key: str = setting(
        "", word, "instead of SEARCH_URL, a key of SEARCH_PROVIDER", secret=True
    )
    search_provider: Literal["", "brave", "tavily"] = setting(
        "", one_of(("brave", "tavily")), "whose key SEARCH_KEY is: brave or tavily"
    )
    consent_seconds: float = setting(
        300.0,
        within(1, 3_600, float),
        "how long a person may take to allow a call of a tool, in seconds",
    )
    redis_url: str = setting(
        "",
        _redis_url,
        "Redis 7, Valkey 8 or newer; empty: the embedded one in DATA_DIR",
        secret=True,
    )
    redis_replicas: int = setting(
        0,
        within(0, 9),
        "how many replicas must have what people were told is stored; 0: none",
    )
    data_dir: Path = setting(
        Path("data"), _folder, "folder for the embedded Valkey and for downloaded models"
    )
    feedback: bool | None = setting(
        None, switch_or_auto, "buttons below answers to rate them: auto (in Slack only), on or off"
    )
    host: str = setting("127.0.0.1", host_name, "address for /livez, /readyz and Slack's requests")
    port: int = setting(8080, port_number, "port beside HOST; 0 means any")
    metrics_host: str = setting("127.0.0.1", host_name, "address for /metrics on METRICS_PORT")
    metrics_port: int | None = setting(
        None, port_number, "port beside METRICS_HOST; empty: on PORT, if HOST is a loopback address"
    )
    platforms_required: bool | None = setting(
        None,
        switch,
        "on: no platform that is configured may be missing; off: the others run without it; empty "
        "means on for platforms that are named as a ROLE",
    )
    follow_threads: Literal["auto", "all", "mention"] = setting(
        "auto",
        one_of(("auto", "all", "mention")),
        "which messages the bot answers in its threads: all, only a mention or a reply (mention), "
        "or all while only one person writes there (auto)",
    )
    allowed_servers: tuple[str, ...] = setting(
        (), Ids("server"), "ids of the only servers and workspaces in which people are answered"
    )
    leave_other_servers: bool = setting(
        False, switch, "on: a Discord server that is not in ALLOWED_SERVERS is left"
    )
    allowed_channels: tuple[str, ...] = setting(
        (), Ids("channel"), "ids of the only channels, with threads, in which people are answered"
    )
    allowed_people: tuple[str, ...] = setting(
        (), Ids("person"), "ids of the people who may use the bot, beside those of ALLOWED_ROLES"
    )
    allowed_roles: tuple[str, ...] = setting(
        (), Ids("role"), "ids of the Discord roles whose people may use the bot"
    )
    blocked_people: tuple[str, ...] = setting(
        (), Ids("person"), "ids of the people who may not use the bot, whatever else is set"
    )
    direct_messages: bool | None = setting(
        None,
        switch_or_auto,
        "answer direct messages: on, off, or auto (if no list of places is set)",
    )
    admins: tuple[str, ...] = setting(
        (), Ids("person"), "ids of the people who may change everything and have no quota"
    )
    questions_per_day: int | None = setting(
        None, _limit, "how many questions a person has in a day (UTC); empty means no limit"
    )
    tokens_per_day: int | None = setting(
        None, _limit, "how many tokens, read and written, a person has in a day"
    )
    server_tokens_per_day: int | None = setting(
        None, _limit, "how many tokens all people of a server have in a day together"
    )
    tool_calls_per_day: int | None = setting(
        None, _limit, "how many calls of tools a person has in a day"
    )
    prices: tuple[tuple[str, float, float], ...] = setting(
        (),
        _prices,
        "US dollars for a million tokens, read and written, by model, such as NAME=0.2/0.6, "
        "OTHER=1/3; empty: what Hugging Face tells",
    )
    money_per_month: float | None = setting(
        None, _money, "how many US dollars a person may cost in a month (UTC); needs a price"
    )
    server_money_per_month: float | None = setting(
        None, _money, "how many US dollars all people of a server may cost in a month together"
    )
    history_days: int = setting(
        30, within(0, 36_500), "days for which a conversation is remembered; 0: until its turn ends"
    )
    server_history_days: tuple[tuple[str, int], ...] = setting(
        (),
        NumbersById("server", 0, 36_500),
        "other days for servers and workspaces by their ids, such as T0123ABCD=7, T4567EFGH=0",
    )
    # A day at most: event loops refuse very long timers.
    reply_timeout: float = setting(
        600.0, within(0.1, 86_400, float), "how long a reply may take, in seconds"
    )
    capacity: int = setting(
        256, within(1, 10_000), "how many questions one process answers at once; further ones wait"
    )
    log_level: str = setting(
        "info", one_of(("debug", "info", "warning", "error")), "debug, info, warning or error"
    )
    log_format: Literal["text", "json"] = setting(
        "text", one_of(("text", "json")), "text, or json for an object on each line"
    )
    audit_file: Path | None = setting(
        None,
        _path,
        "a file to which the lines for auditors go, too, whatever LOG_LEVEL is",
    )
    sentry_dsn: str = setting(
        "", _dsn, "address of a project at Sentry, which gets errors without words", secret=True
    )
    strict_environment: bool = setting(
        False, switch, "on: an unknown name in the environment stops the bot, as one in .env does"
    )
    # With less, a worker does not renew its leases in time.
    lease_seconds: float = setting(
        3.0, within(0.1, 3600, float), "how long a dead worker keeps a turn, in seconds"
    )

    @classmethod
    def load(
        cls, environment: Mapping[str, str], env_file: Path, platforms: Sequence[DescribesSettings]
    ) -> Settings:
        """Read the variables; the environment has priority. SettingsError has every mistake.

        An empty value counts as none, and a missing file as an empty one. Instead of a secret NAME
        there may be the path of its file, NAME_FILE.
        """
        known = variables(platforms)
        written, mistakes = read(
            env_file, known, variables_in(environment.get("MCP_SERVERS", "").strip())
        )
        texts = written | {
            name: text.strip()
            for name, text in environment.items()
            if text.strip() and not _LINK.fullmatch(f"{name}={text.strip()}")
        }
        is_strict = texts.get("STRICT_ENVIRONMENT", "").lower() in ON
        of_tools = variables_in(texts.get("MCP_SERVERS", ""))
        files = secret_files(known, of_tools)
        names = {*known, *of_tools, *files}
        for name in environment:
            if mistake := misspelt(name, "the environment", names, is_strict=is_strict):
                mistakes.append(mistake)
        refused: list[str] = []
        places: dict[str, str] = {}  # what a mistake shows of a secret that a file has
        for file, name in files.items():
            if place := texts.get(file):
                places[name] = f"{file}={_cut(place)!r}"
                if name in texts:
                    mistakes.append(f"{name} and {file} are both set: keep one of them")
                try:
                    texts[name] = file_text(place)
                except ValueError as error:
                    # Path.exists raises if a name is too long.
                    is_there = os.path.exists(place)  # noqa: PTH110
                    is_path = is_there or place.startswith(("/", "~", "."))
                    no_path = f"{file} names no file (does it hold the secret itself?)"
                    refused.append(f"{places[name]} {error}" if is_path else no_path)
        values: dict[str, Any] = {}  # each parser returns the type of its field
        for name, variable in known.items():
            text = texts.get(name, "")
            try:
                values[name] = _parsed(variable, text, platforms) if text else variable.default
            except ValueError as error:
                refused.append(f"{places.get(name) or _shown(name, variable, text)} {error}")
        if values.get("MODELS") and "MODEL_ID" not in texts:
            values["MODEL_ID"] = values["MODELS"][0][0]
        kinds = [one.settings for one in platforms]
        found = {kind.name: kind(**_named(kind, values, kind.variable)) for kind in kinds}
        servers: tuple[McpServer, ...] = ()
        if path := values.get("MCP_SERVERS"):
            try:
                servers = read_servers(path, texts)
            except ValueError as error:
                refused += [f"MCP_SERVERS={str(path)!r}: {it}" for it in str(error).splitlines()]
        personas: tuple[tuple[str, str], ...] = ()
        if folder := values.get("PERSONAS"):
            try:
                personas = read_personas(folder)
            except ValueError as error:
                refused += [f"PERSONAS={str(folder)!r}: {it}" for it in str(error).splitlines()]
        settings = cls(
            platforms=found,
            tool_servers=servers,
            persona_texts=personas,
            **_named(cls, values, str.upper),
        )
        if not refused:
            mistakes += _contradictions(settings, texts)
        if mistakes or refused:
            # What is refused may be why names are unknown: those in the file of MCP servers.
            raise SettingsError("\n".join([*refused, *mistakes]))
        return settings

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that no log may show, passwords inside addresses as written and decoded."""
        # Two platforms may have a field of the same name.
        hidden = [
            (each.name, getattr(one, each.name))
            for one in (self, *self.platforms.values())
            for each in _fields_of(type(one))
            if not each.repr
        ]
        addresses = [
            urlsplit(each_server(text)[0]) for name, text in hidden if name.endswith("_url")
        ]
        passwords = [address.password or "" for address in addresses]
        options = [pair for address in addresses for pair in parse_qsl(address.query)]
        passwords += [value for name, value in options if name.endswith("password")]
        passwords += [it for one in addresses for it in re.findall("password=([^&]+)", one.query)]
        passwords += [secret for server in self.tool_servers for secret in server.secrets]
        lists = [value for _, value in hidden if isinstance(value, tuple)]
        single = [value for _, value in hidden if isinstance(value, str)]
        found = (*single, *chain.from_iterable(lists), *passwords, *map(unquote, passwords))
        return tuple(text for text in found if text)

    @property
    def names_model(self) -> bool:
        """Whether a model was chosen; else the demo model answers."""
        ways = (self.hf_token, self.model_url, self.local_model_path, self.transformers_model)
        return self.model_id == "demo" or any(ways)

    @property
    def names_tools(self) -> bool:
        """Whether the operator has chosen tools, so that a model is asked to try them."""
        named = self.tools or self.tool_servers or self.search_url or self.search_key
        return self.tools is not False and bool(named)

    @property
    def remembers(self) -> bool:
        """Whether conversations are remembered."""
        return self.history_days > 0

    @property
    def keep_seconds(self) -> float:
        """How long keys of the store are kept; at least a day, because questions may wait."""
        return max(self.history_days, 1) * 24 * 3600.0

    @property
    def keeping(self) -> dict[str, Any]:
        """How long conversations are remembered, as the queue and the history are told."""
        return {
            "keep_seconds": self.keep_seconds,
            "remembers": self.remembers,
            "server_days": dict(self.server_history_days),
        }

    def rates(self, *, usual: bool) -> bool:
        """Whether answers can be rated; `usual` is the platform's own choice."""
        # A rating is kept in the history.
        remembers = self.remembers or any(days for _, days in self.server_history_days)
        return remembers and (usual if self.feedback is None else self.feedback)


def variables(platforms: Sequence[DescribesSettings]) -> dict[str, Field[Any]]:
    """Return all variables, those of platforms behind those of the core."""
    known = {one.name.upper(): one for one in _fields_of(Settings)}
    for platform in platforms:
        for one in _fields_of(platform.settings):
            known[platform.settings.variable(one.name)] = one
    return known


def secret_files(known: Mapping[str, Field[Any]], of_tools: Collection[str] = ()) -> dict[str, str]:
    """Return each NAME_FILE, whose file may have the secret NAME, with that name.

    `of_tools` are the variables in the file of MCP_SERVERS.
    """
    secrets = [*(name for name, one in known.items() if not one.repr), *sorted(of_tools)]
    files = {f"{name}_FILE": name for name in secrets}
    taken = {*known, *of_tools}
    return {it: files[it] for it in files if it not in taken and not OF_OTHERS.fullmatch(it)}


def _fields_of(kind: type[Any]) -> list[Field[Any]]:
    return [one for one in fields(kind) if "parse" in one.metadata]


def _named(
    kind: type[Any], values: Mapping[str, Any], variable: Callable[[str], str]
) -> dict[str, Any]:
    """Return the values of the variables of one kind, by field."""
    names = {one.name: variable(one.name) for one in _fields_of(kind)}
    return {field_: values[name] for field_, name in names.items() if name in values}


def _parsed(variable: Field[Any], text: str, platforms: Sequence[DescribesSettings]) -> Any:
    parse = variable.metadata["parse"]
    if isinstance(parse, Ids | NumbersById):
        return parse(text, [one.ids[parse.kind] for one in platforms if parse.kind in one.ids])
    return parse(whole_text(text))


def hand_on(env_file: Path, environment: MutableMapping[str, str]) -> None:
    """Add what the file has for libraries, such as HTTPS_PROXY; the environment has priority."""
    for name, text in read(env_file, {})[0].items():
        if OF_OTHERS.fullmatch(name):
            environment.setdefault(name, text)


def read_lines(env_file: Path) -> list[Binding]:
    """Return the lines of a file; a missing one has none. Raises SettingsError."""
    try:
        # The encoding drops the byte order mark of some editors.
        with env_file.open(encoding="utf-8-sig", newline="") as stream:
            return list(parse_stream(stream))
    except (FileNotFoundError, IsADirectoryError):  # some people's virtual environment is .env
        return []
    except OSError as error:
        raise SettingsError(f"{env_file} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise SettingsError(f"{env_file} is not a text in UTF-8") from error


def values_of(lines: Sequence[Binding]) -> dict[str, str]:
    """Return the variables that the lines set; the last line of a variable wins."""
    # Variables inside a value are not replaced: a password may contain a dollar sign.
    return {line.key: (line.value or "").strip() for line in lines if line.key}


def read(
    env_file: Path, known: Mapping[str, Field[Any]], of_tools: Collection[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Return the variables that a file sets, and its mistakes; `known` are all of this bot."""
    try:
        lines = read_lines(env_file)
    except SettingsError as error:
        return {}, [str(error)]
    texts = {name: text for name, text in values_of(lines).items() if text}
    of_tools = {*of_tools, *variables_in(texts.get("MCP_SERVERS", ""))}
    names = {*known, *of_tools, *secret_files(known, of_tools)}
    return texts, list(_line_mistakes(lines, env_file.name, names))


def _line_mistakes(lines: list[Binding], file: str, known: Collection[str]) -> Iterator[str]:
    for line in lines:
        if line.error or (line.key and (line.value is None or not _NAME.fullmatch(line.key))):
            # The line is not shown: it may contain a token.
            yield f"{file} line {_line_number(line)} is not NAME=value"
        elif line.key and (sentence := misspelt(line.key, file, known)):
            yield sentence
        text = line.original.string.strip(" \t\r\n")
        if hidden := _HIDDEN_LINE.search(text):
            yield f"{hidden['name']} in {file} line {_line_number(line)} is part of another line"
        is_empty = line.key and line.value is not None and not line.value.strip()
        if is_empty and not _EMPTY.fullmatch(text.partition("=")[2]):
            yield f"{line.key} in {file} has no value, but a comment: put that on a line of its own"
    last = values_of(lines)
    for line in lines:
        if line.key and (line.value or "").strip() not in ("", last[line.key]):
            yield f"{line.key} stands in {file} twice, with different values: keep one of them"


def _line_number(line: Binding) -> int:
    # python-dotenv 1.2 counts from the empty lines before it.
    text = line.original.string
    return line.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _shown(name: str, variable: Field[Any], text: str) -> str:
    if name.endswith("_URL"):
        text = shown_url(text)
    elif not variable.repr:
        text = ""
    return f"{name}={_cut(text)!r}" if text else name


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def shown_url(url: str) -> str:
    """Return an address without its login and the values of its options; empty if unreadable."""
    try:
        _ = [urlsplit(one).port for one in each_server(url)]
    except ValueError:
        # The text at the position of the port may be a password.
        return ""
    return re.sub(r"=[^&]*", "=***", re.sub(r"//.*@", "//***@", url))


def _contradictions(settings: Settings, texts: Mapping[str, str]) -> Iterator[str]:
    if settings.max_tokens >= settings.context_tokens:
        yield (
            f"MAX_TOKENS={settings.max_tokens} leaves no room for a question "
            f"in CONTEXT_TOKENS={settings.context_tokens}"
        )
    models = ["MODEL_ID=demo"] if texts.get("MODEL_ID") == "demo" else []
    models += [it for it in ("LOCAL_MODEL_PATH", "TRANSFORMERS_MODEL", "MODEL_URL") if it in texts]
    yield from two_ways(models, "to a model")
    yield from two_ways([it for it in ("SEARCH_URL", "SEARCH_KEY") if it in texts], "to search")
    for name in ("ADMINS", "ALLOWED_PEOPLE"):
        if both := {*getattr(settings, name.lower())} & {*settings.blocked_people}:
            yield f"{name} and BLOCKED_PEOPLE both name {', '.join(sorted(both))}"
    for name, needed in (
        ("MODEL_API_KEY", "MODEL_URL"),
        ("LOCAL_MMPROJ_PATH", "LOCAL_MODEL_PATH"),
        ("SEARCH_KEY", "SEARCH_PROVIDER"),
        ("SEARCH_PROVIDER", "SEARCH_KEY"),
        ("REDIS_REPLICAS", "REDIS_URL"),
    ):
        if getattr(settings, name.lower()) and needed not in texts:
            yield f"{name} needs {needed} beside it"
    for name in ("MONEY_PER_MONTH", "SERVER_MONEY_PER_MONTH"):
        # Hugging Face tells its prices.
        if name in texts and not (settings.prices or settings.hf_token):
            yield f"{name} needs PRICES beside it"
    for own in settings.platforms.values():
        for name, needed in own.needs:
            if getattr(own, name) and not getattr(own, needed):
                yield f"{own.variable(name)} needs {own.variable(needed)} beside it"
        yield from own.mistakes(settings)


def two_ways(found: Sequence[str], what: str) -> Iterator[str]:
    """Yield a mistake if more than one of the variables that exclude each other is set."""
    if len(found) > 1:
        yield f"{found[0]} and {found[1]} are two ways {what}: set one of them"
