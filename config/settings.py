"""Every variable that an operator can set: its name, type, default and meaning."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dotenv.parser import Binding, parse_stream

FOLLOW = ("auto", "all", "mention")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
ON = ("on", "true", "yes", "1")
OFF = ("off", "false", "no", "0")
# Filled in within SYSTEM_PROMPT; see `SystemPrompt` in bot/text/prompt.py.
PLACEHOLDERS = ("date", "time", "name", "place", "platform")
# Variables of similar bots, with the names that they have here.
OLDER: Mapping[str, str] = {
    "DO_SAMPLE": "set TEMPERATURE=0 for answers without chance",
    "MAX_NEW_TOKENS": "set MAX_TOKENS",
    "REPETITION_PENALTY": "there is no such setting; a lower TOP_P avoids odd words",
    "TOP_K": "set TOP_P, which every server knows",
    "WAIT_FOR_MODEL": "a model that loads is always waited for",
}
# The words of other bots' and guides' variables; the first that fits tells the name here.
_WORDS = (
    (r"SLACK\b(?!.*APP).*TOKEN", "SLACK_BOT_TOKEN"),
    (r"^(HF|HUGGING).*(TOKEN|KEY)", "HF_TOKEN"),
    (r"API ?KEY|GPT.*KEY|OPENAI.*TOKEN", "MODEL_API_KEY"),
    (r"REDIS|VALKEY", "REDIS_URL"),
    (r"\b(DISCORD|BOT|CLIENT)\b.*TOKEN|^TOKEN$", "DISCORD_TOKEN"),
    (r"SYSTEM|PROMPT|PERSONA|INSTRUCTION", "SYSTEM_PROMPT"),
    (r"\bBASE\b|ENDPOINT|(OPENAI|OLLAMA|LLM).*(URL|HOST)", "MODEL_URL"),
    (r"\bMODEL( NAME)?$", "MODEL_ID"),
    (r"LIMIT|DAILY|COOLDOWN|\bPER\b", "QUESTIONS_PER_DAY"),
    (r"ADMIN|OWNER|MODERATOR", "ADMINS"),
    (r"LEAVE", "LEAVE_OTHER_SERVERS"),
    (r"\bDMS?\b|DIRECT", "DIRECT_MESSAGES"),
    (r"MENTION", "FOLLOW_THREADS"),
    (r"CHANNEL", "ALLOWED_CHANNELS"),
    (r"ROLE", "ALLOWED_ROLES"),
    (r"BLOCK|BLACK|\bDEN[YI]|\bBAN|FORBID|IGNORE", "BLOCKED_PEOPLE"),
    (r"USER|MEMBER|PERSON|(WHITE|ALLOW) ?LIST$", "ALLOWED_PEOPLE"),
    (r"GUILD|SERVER|WORKSPACE|TEAM", "ALLOWED_SERVERS"),
)
# Names that others read, and that may stand in .env.
_OF_OTHERS = re.compile(
    r"""
      # No word of a setting that limits access: that is a mistake, whatever stands before it.
      (?! .*(ALLOW|BLOCK|ADMIN|DENY|DENIED) )
      (
      (COMPOSE|DOCKER|UV|PIP|OTEL)_\w+ | P?[UG]ID | UMASK | TERM | TMPDIR | NO_COLOR | PYTHON\w*
    | LC_\w+ | LANG | TZ
    | (HTTPS?|ALL|NO)_PROXY | SSL_CERT_(FILE|DIR) | (REQUESTS|CURL)_CA_BUNDLE
    | (CUDA|NVIDIA|HIP|GGML|OMP|TORCH|PYTORCH|TOKENIZERS)_\w+
    | HF_(HOME|ENDPOINT|DEBUG|(HUB|XET)_(?!TOKEN)\w+) | TRANSFORMERS_(CACHE|OFFLINE|VERBOSITY)
    # What an image and its runtime set.
    | PATH | HOME | HOSTNAME | PWD | OLDPWD | SHLVL | _ | GPG_KEY | container
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What makes a name in the environment, which has those of all programs, one that is meant for this
# bot; see `_is_ours`. Words stand without their S.
_LIMITING = {
    *("ALLOW", "ALLOWED", "ALLOWLIST", "PERMIT", "PERMITTED", "AUTHORIZED", "TRUSTED", "ONLY"),
    *("RESTRICT", "RESTRICTED", "WHITE", "WHITELIST", "WHITELISTED", "LEAVE", "PER"),
    *("BLACK", "BLACKLIST", "BLACKLISTED", "BLOCK", "BLOCKED", "BLOCKLIST"),
    *("DENY", "DENIED", "DENYLIST", "BAN", "BANNED", "IGNORE", "IGNORED", "AUTHORISED"),
}
_RULERS = {"ADMIN", "OWNER", "MODERATOR"}
_WHOM = _RULERS | {
    *("SERVER", "WORKSPACE", "TEAM", "CHANNEL", "PEOPLE", "PERSON", "USER", "USERID", "MEMBER"),
    *("ROLE", "DAY"),
}
_FILLING = {"LIST", "ALL", "TO", "ID", "BOT", "DISCORD", "SLACK"}
_ALONE = (
    *("SERVERS", "CHANNELS", "SERVER ID", "CHANNEL ID", "ROLE ID", "RATE LIMIT", "DAILY LIMIT"),
    *("USER LIMIT", "QUOTA", "QUESTIONS"),
)
# How an empty value is written; anything else behind the "=" is a comment, or cannot be seen.
_EMPTY = re.compile(r"""[ \t]*(['"]?)[ \t]*\1""")
# A limit behind what only some editors show as the end of a line, or in quotes that do not end.
_HIDDEN_LINE = re.compile(
    r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*(export\s+)?"
    r"(?P<name>ALLOWED_\w+|BLOCKED_\w+|ADMINS|DIRECT_MESSAGES|\w+_PER_DAY|WEB_PASSWORD)\s*="
)
# A port that Kubernetes sets for a service called "web".
_LINK = re.compile(r"\w+_PORT=tcp://.*")
# Variables that mean nothing without another one.
_NEEDS = (
    ("SLACK_APP_TOKEN", "SLACK_BOT_TOKEN"),
    ("SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN"),
    ("DISCORD_SHARDS", "DISCORD_TOKEN"),
    ("MODEL_API_KEY", "MODEL_URL"),
    ("WEB_OIDC_ISSUER", "WEB_OIDC_CLIENT_ID"),
    ("WEB_OIDC_ISSUER", "WEB_URL"),
    ("WEB_OIDC_CLIENT_ID", "WEB_OIDC_ISSUER"),
)

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
_LABEL_LENGTH = 60  # characters; menus have no room for more
# How alike a misspelt name and a known one are (difflib's ratio).
_NEAR, _VERY_NEAR = 0.8, 0.91
_SHOWN = 400  # characters of a refused value

# Also for other programs' names; python-dotenv accepts anything up to a blank or an equals sign.
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_HUB_FILE = re.compile(r"\w[\w.-]*/[\w.-]+:[\w.-]+")
_N = TypeVar("_N", int, float)


class SettingsError(Exception):
    """All mistakes in the settings, one per line, without secrets."""


def _setting(
    default: object, parse: Callable[[str], object], meaning: str, *, secret: bool = False
) -> Any:
    return field(default=default, repr=not secret, metadata={"meaning": meaning, "parse": parse})


def _like(pattern: str, problem: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise ValueError(problem)
        return text

    return parse


# Bytes of the environment that are not UTF-8 arrive as halves of surrogate pairs.
_whole_text = _like("[^\0\ud800-\udfff]*", "is no text: it has a NUL or a byte that is not UTF-8")
_word = _like("[!-~]*", "has a blank or a special character in it")
_password = _like(".{8,}", "is too easy to guess: take at least 8 characters")
_header = _like("[A-Za-z0-9-]{1,100}", "is not the name of a header")
_snowflake = _like("[0-9]{15,20}", "is not an id of Discord, which has 15 to 20 digits")


def _words(text: str) -> tuple[str, ...]:
    return tuple(_word(part.strip()) for part in text.split(",") if part.strip())


def _models(text: str) -> tuple[tuple[str, str], ...]:
    """Return names with their labels; the default label is the name."""
    found: list[tuple[str, str]] = []
    for part in filter(None, map(str.strip, text.split(","))):
        label, _, name = (each.strip() for each in part.rpartition("="))
        if not name or not label.isprintable() or len(label) > _LABEL_LENGTH:
            raise ValueError(f"has {part!r} in it, which is not like Label=name")
        found.append((_word(name), label or name))
    words = [word for one in found for word in {each.casefold() for each in one}]
    if len(words) > len(set(words)):
        raise ValueError("names a model, or uses a label, twice")
    return tuple(found)


def _token(wrong_prefix: str, problem: str) -> Callable[[str], str]:
    return lambda text: _like(f"(?!{wrong_prefix}).*", problem)(_word(text))


def _prompts(text: str) -> tuple[tuple[str, str], ...]:
    """Return titles and messages; Slack shows up to four."""
    pairs = [part.partition(":") for part in text.split("|") if part.strip()]
    prompts = tuple((title.strip(), message.strip()) for title, _, message in pairs)
    if len(prompts) > 4 or not all(title and message for title, message in prompts):
        raise ValueError("is not up to four of TITLE: MESSAGE, with | between them")
    return prompts


def _system_prompt(text: str) -> str:
    for word in re.findall(r"\{(\w+)\}", text):
        near = get_close_matches(word.lower(), PLACEHOLDERS, n=1, cutoff=_NEAR)
        if near and word != near[0]:
            raise ValueError(f"has {{{word}}} in it; did you mean {{{near[0]}}}?")
    return text


def _url(*schemes: str, beside_token: bool = False) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if _checked_address(text, schemes).username is not None and beside_token:
            raise ValueError("holds a user name, which cannot be sent beside the platform's token")
        return text

    return parse


def _redis_url(text: str) -> str:
    parts = _checked_address(text, ("redis", "rediss", "unix"))
    known = _REDIS_OPTIONS + (_TLS_OPTIONS if parts.scheme == "rediss" else ())
    if any(name not in known for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(f"has an option that is none of {', '.join(known)}")
    # redis-py would use database 0 instead of an invalid number.
    if parts.scheme != "unix" and not re.fullmatch(r"[0-9]{0,9}", parts.path.strip("/")):
        raise ValueError("names a database that is no number")
    return text


def _checked_address(text: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of an address. Raises ValueError, without the address in its text."""
    try:
        parts = urlsplit(_word(text))
        _ = parts.port
    except ValueError:
        raise ValueError("is not an address") from None
    if parts.scheme not in schemes:
        raise ValueError(f"does not begin with {' or '.join(f'{it}://' for it in schemes)}")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("names no server")
    if parts.scheme != "unix":
        _host(parts.hostname or "")
    return parts


def _host(text: str) -> str:
    # For a name that is not valid, the resolver raises UnicodeError, which is no OSError.
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", it) for it in labels):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError("is not a host name or an IP address") from None
    return text


def _within(least: float, most: float, kind: Callable[[str], _N] = int) -> Callable[[str], _N]:
    def parse(text: str) -> _N:
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"is not a {'whole ' if kind is int else ''}number") from None
        if not least <= number <= most:
            raise ValueError(f"is not from {least} to {most}")
        return number

    return parse


def _issuer(text: str) -> str:
    parts = _checked_address(text, ("http", "https"))
    is_here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not is_here:
        raise ValueError("does not begin with https://: anybody on the way could sign in")
    return text


def _addresses(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_address(one)) for one in _words(text))
    except ValueError:
        raise ValueError("is not an IP address, or several with commas between") from None


def _ids(kinds: str, *, such_as: str) -> Callable[[str], tuple[str, ...]]:
    """Parse ids with commas between; `kinds` are the letters with which Slack's begin."""
    # Discord's are snowflakes, and those of people at the web page are hashes.
    known = re.compile(rf"[0-9]{{5,20}}|[{kinds}][A-Z0-9]{{2,30}}|[0-9a-f]{{32}}")

    def parse(text: str) -> tuple[str, ...]:
        ids = tuple(part.strip() for part in text.split(",") if part.strip())
        if not ids:
            raise ValueError("has no id in it: leave it empty if nobody is to be named")
        if re.search(r"[\s;]", "".join(ids)):
            raise ValueError("needs commas, and nothing else, between its ids")
        if wrong := next((one for one in ids if not known.fullmatch(one)), ""):
            raise ValueError(f"has {wrong[:80]!r}, which is no id {such_as}")
        return ids

    return parse


_people = _ids("UW", such_as="of a person, such as 123456789012345678 or U0123ABCD")
_limit = _within(0, 10**12)
_port = _within(0, 65535)
_tokens = _within(1, 10_000_000)


def _shards(text: str) -> tuple[tuple[int, ...], int]:
    parts = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/([0-9]{1,5})", text)
    if not parts:
        raise ValueError("is not like 0-3/8 or 4/8: the first, the last, and how many there are")
    first, last, count = int(parts[1]), int(parts[2] or parts[1]), int(parts[3])
    if not count:
        raise ValueError("names no shards")
    if not first <= last < count:
        raise ValueError(f"names shards that are not from 0 to {count - 1}")
    return tuple(range(first, last + 1)), count


def _layers(text: str) -> int | None:
    if text.lower() == "auto":
        return None
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(
            "is neither auto (as many as fit) nor a number: 0 means none, 999 means all"
        )
    return _within(0, 2**31 - 1)(text)  # llama.cpp's int32


def _switch(text: str) -> bool:
    if text.lower() not in ON + OFF:
        raise ValueError("is neither on nor off")
    return text.lower() in ON


def _switch_or_auto(text: str) -> bool | None:
    if text.lower() not in ("auto", *ON, *OFF):
        raise ValueError("is none of auto, on and off")
    return None if text.lower() == "auto" else _switch(text)


def _one_of(choices: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return text.lower()

    return parse


def _path(fits: Callable[[Path], bool], *, otherwise: str) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        try:
            path = Path(text).expanduser()
            if fits(path):
                return path
        except OSError as error:
            raise ValueError(f"cannot be used: {error.strerror}") from None
        except RuntimeError:
            raise ValueError("cannot be used: there is no such home") from None
        raise ValueError(otherwise)

    return parse


_file = _path(
    Path.is_file, otherwise="is not a file, nor a name at Hugging Face such as owner/name:Q4_K_M"
)


def _file_or_name(text: str) -> Path | str:
    """Return a file's path, or a name at the Hugging Face Hub as it is."""
    try:
        return _file(text)
    except ValueError:
        if _HUB_FILE.fullmatch(text):
            return text
        raise


_folder = _path(lambda it: it.is_dir() or not it.exists(), otherwise="is not a folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the operator; each field is the variable of the same name in capitals.

    None, "" and () mean unset. `repr` shows no secret.
    """

    hf_token: str = _setting(
        "", _word, "Hugging Face token: MODEL_ID then answers through Hugging Face", secret=True
    )
    model_id: str = _setting(
        "mistralai/Mistral-7B-Instruct-v0.3",
        _word,
        "the model's name at Hugging Face or at MODEL_URL; demo means the small embedded one",
    )
    model_fallbacks: tuple[str, ...] = _setting(
        (), _words, "models to ask when that one fails, in this order, with commas between"
    )
    models: tuple[tuple[str, str], ...] = _setting(
        (),
        _models,
        "models of the same source that people may choose, such as Fast=NAME, Clever=NAME; the "
        "first answers if MODEL_ID is not set",
    )
    model_url: str = _setting(
        "",
        _url("http", "https"),
        "address of an OpenAI-compatible server (llama.cpp, TGI, vLLM) to use instead",
        secret=True,
    )
    model_api_key: str = _setting(
        "", _word, "key for MODEL_URL; HF_TOKEN never goes there", secret=True
    )
    local_model_path: Path | str | None = _setting(
        None,
        _file_or_name,
        "a GGUF file for the embedded server, instead of the demo model, or its name at Hugging "
        "Face with the quantisation, such as owner/name:Q4_K_M",
    )
    transformers_model: str = _setting(
        "", str, "a model to run here with transformers: its name at Hugging Face, or its folder"
    )
    gpu_layers: int | None = _setting(
        None, _layers, "how many layers the embedded server puts on the GPU, or auto"
    )
    # At most llama.cpp's GGML_MAX_N_THREADS.
    local_threads: int | None = _setting(
        None,
        _within(1, 512),
        "on how many threads the embedded server computes; empty means all cores but one",
    )
    system_prompt: str = _setting(
        "You are Parley, a friendly assistant in a group chat. Answer in the language of the "
        "question, correctly and briefly, in Markdown where it helps. If you do not know "
        "something, say so.",
        _system_prompt,
        "what the model is told before every conversation; {date}, {time}, {name}, {place} and "
        "{platform} are filled in",
    )
    system_prompt_line: bool = _setting(
        True, _switch, "on: date, time, person and place are added if SYSTEM_PROMPT names none"
    )
    max_tokens: int = _setting(1024, _tokens, "the longest answer, in tokens")
    temperature: float | None = _setting(
        None,
        _within(0, 2, float),
        "how freely the model chooses its words, from 0 to 2; empty: the model's own default",
    )
    top_p: float | None = _setting(
        None,
        _within(0.0001, 1, float),
        "the share of likely words to choose from, up to 1; empty: the model's own default",
    )
    context_tokens: int = _setting(
        8192, _tokens, "how much the model sees, question, history and answer together, in tokens"
    )
    # Discord returns a hundred messages at once.
    thread_context: int = _setting(
        50,
        _within(0, 100),
        "how many earlier messages the model reads when the bot is called into a thread; 0: none",
    )
    redis_url: str = _setting(
        "",
        _redis_url,
        "Redis 7 or Valkey 8 or newer; empty means the embedded Valkey in DATA_DIR",
        secret=True,
    )
    data_dir: Path = _setting(
        Path("data"), _folder, "folder for the embedded Valkey and for tokenizers"
    )
    feedback: bool | None = _setting(
        None,
        _switch_or_auto,
        "buttons below answers to rate them: auto (in Slack only), on or off",
    )
    discord_token: str = _setting("", _word, "Discord bot token", secret=True)
    discord_threads: bool = _setting(
        True, _switch, "on: a mention in a channel opens a thread; off: it is answered by a reply"
    )
    discord_shards: tuple[tuple[int, ...], int] | None = _setting(
        None,
        _shards,
        "which of the bot's shards this process serves, such as 0-3/8; empty means it has one",
    )
    discord_command_server: str = _setting(
        "",
        _snowflake,
        "id of one server in which the commands are registered, to try changes; empty: everywhere",
    )
    discord_api_url: str = _setting(
        "", _url("http", "https", beside_token=True), "another address of Discord's REST API"
    )
    discord_gateway_url: str = _setting(
        "", _url("ws", "wss", beside_token=True), "another address of Discord's gateway"
    )
    slack_bot_token: str = _setting(
        "",
        _token("xapp-", "is an app-level token: it belongs in SLACK_APP_TOKEN"),
        "Slack bot token (xoxb-...)",
        secret=True,
    )
    slack_app_token: str = _setting(
        "",
        _token("xoxb-", "is a bot token: it belongs in SLACK_BOT_TOKEN"),
        "Slack app-level token (xapp-...): events come over Socket Mode",
        secret=True,
    )
    slack_signing_secret: str = _setting(
        "",
        _word,
        "Slack signing secret: without an app-level token events come to /slack/events",
        secret=True,
    )
    slack_api_url: str = _setting(
        "", _url("http", "https", beside_token=True), "another address of Slack's Web API"
    )
    slack_suggested_prompts: tuple[tuple[str, str], ...] = _setting(
        (),
        _prompts,
        "up to four questions that Slack suggests in a DM, TITLE: MESSAGE with a vertical bar"
        " between them; empty means two examples",
    )
    slack_limits: float = _setting(
        1.0,
        _within(1, 10, float),
        "how many times Slack's documented limits of each workspace are tried, up to 10: Slack may"
        " allow more than it documents, and a 429 lowers it for ten minutes",
    )
    host: str = _setting("127.0.0.1", _host, "address for /livez, /readyz and /slack/events")
    port: int = _setting(8080, _port, "port beside HOST; 0 means any")
    metrics_host: str = _setting("127.0.0.1", _host, "address for /metrics on METRICS_PORT")
    metrics_port: int | None = _setting(
        None, _port, "port beside METRICS_HOST; empty means on PORT, if HOST is a loopback address"
    )
    platforms_required: bool | None = _setting(
        None,
        _switch,
        "on: no platform that is configured may be missing; off: the others run without it; empty "
        "means on for platforms that are named as a ROLE",
    )
    follow_threads: Literal["auto", "all", "mention"] = _setting(
        "auto",
        _one_of(FOLLOW),
        "which messages the bot answers in its threads: all, only a mention or a reply (mention), "
        "or all while only one person writes there (auto)",
    )
    allowed_servers: tuple[str, ...] = _setting(
        (),
        # For shared channels Slack may report only the organisation (E...).
        _ids("TE", such_as="of a Discord server or a Slack workspace (T...)"),
        "ids of the only servers (Discord) and workspaces (Slack) in which people are answered",
    )
    leave_other_servers: bool = _setting(
        False, _switch, "on: a Discord server that is not in ALLOWED_SERVERS is left"
    )
    allowed_channels: tuple[str, ...] = _setting(
        (),
        _ids("CG", such_as="of a channel, such as 123456789012345678 or C0123ABCD"),
        "ids of the only channels, their threads included, in which people are answered",
    )
    allowed_people: tuple[str, ...] = _setting(
        (), _people, "ids of the people who may use the bot, beside those of ALLOWED_ROLES"
    )
    allowed_roles: tuple[str, ...] = _setting(
        (),
        _ids("S", such_as="of a Discord role"),
        "ids of the Discord roles whose people may use the bot",
    )
    blocked_people: tuple[str, ...] = _setting(
        (), _people, "ids of the people who may not use the bot, whatever else is set"
    )
    direct_messages: bool | None = _setting(
        None,
        _switch_or_auto,
        "whether direct messages are answered: on, off, or auto (if no list of places forbids it)",
    )
    admins: tuple[str, ...] = _setting(
        (), _people, "ids of the people who may change everything and have no quota"
    )
    questions_per_day: int | None = _setting(
        None, _limit, "how many questions a person has in a day (UTC); empty means no limit"
    )
    tokens_per_day: int | None = _setting(
        None, _limit, "how many tokens, read and written, a person has in a day"
    )
    server_tokens_per_day: int | None = _setting(
        None, _limit, "how many tokens all people of a server have in a day together"
    )
    history_days: int = _setting(
        30,
        _within(0, 36_500),
        "how long an unused conversation is remembered, in days; 0: nothing is, beyond the running "
        "turn",
    )
    # A day at most: event loops refuse very long timers.
    reply_timeout: float = _setting(
        600.0,
        _within(0.1, 86_400, float),
        "how long a reply may take, in seconds",
    )
    capacity: int = _setting(
        256,
        _within(1, 10_000),
        "how many questions one process answers at once; further ones wait",
    )
    log_level: str = _setting("info", _one_of(LOG_LEVELS), "debug, info, warning or error")
    log_format: Literal["text", "json"] = _setting(
        "text", _one_of(LOG_FORMATS), "text, or json for an object on each line"
    )
    web_host: str = _setting(
        "127.0.0.1",
        _host,
        "address for the web page; another than this machine's own needs a way to sign in",
    )
    web_port: int = _setting(5006, _port, "port of the web page; 0 means any")
    web_url: str = _setting(
        "", _url("http", "https"), "address of the web page as people see it, if a proxy serves it"
    )
    web_password: str = _setting(
        "", _password, "a password for the web page, the same for all people", secret=True
    )
    web_oidc_issuer: str = _setting(
        "",
        _issuer,
        "OpenID Connect: the provider at which people of the web page sign in; needs WEB_URL",
    )
    web_oidc_client_id: str = _setting("", _word, "the page's name at that provider")
    web_oidc_client_secret: str = _setting(
        "", _word, "the page's secret at that provider, if it has one", secret=True
    )
    web_proxy_header: str = _setting(
        "", _header, "header in which a proxy before the web page names the person"
    )
    web_proxy_address: tuple[str, ...] = _setting(
        (),
        _addresses,
        "addresses of proxies before the web page, with commas between; empty: only this machine"
        " may name people",
    )
    strict_environment: bool = _setting(
        False,
        _switch,
        "on: an unknown name in the environment stops the bot, as one in .env does; for containers "
        "whose environment is made from .env",
    )
    # With less, a worker does not renew its leases in time.
    lease_seconds: float = _setting(
        3.0,
        _within(0.1, 3600, float),
        "how long a dead worker keeps a turn, in seconds",
    )

    @classmethod
    def load(cls, environment: Mapping[str, str], env_file: Path) -> Settings:
        """Read the variables; the environment has priority. SettingsError has every mistake.

        An empty value counts as none, and a missing file as an empty one.
        """
        written, mistakes = read(env_file)
        texts = written | {
            name: text.strip()
            for name, text in environment.items()
            if text.strip() and not _LINK.fullmatch(f"{name}={text.strip()}")
        }
        is_strict = texts.get("STRICT_ENVIRONMENT", "").lower() in ON
        found = (_misspelt(name, "the environment", is_strict=is_strict) for name in environment)
        mistakes += filter(None, found)
        values: dict[str, Any] = {}  # each parser returns the type of its field
        for variable in fields(cls):
            text = texts.get(variable.name.upper(), "")
            try:
                values[variable.name] = (
                    variable.metadata["parse"](_whole_text(text)) if text else variable.default
                )
            except ValueError as error:
                mistakes.append(f"{_shown(variable, text)} {error}")
        if values.get("models") and "MODEL_ID" not in texts:
            values["model_id"] = values["models"][0][0]
        mistakes += _contradictions(values, texts)
        if mistakes:
            raise SettingsError("\n".join(mistakes))
        return cls(**values)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that no log may show, passwords inside addresses as written and decoded."""
        hidden = {each.name: getattr(self, each.name) for each in fields(self) if not each.repr}
        addresses = [urlsplit(text) for name, text in hidden.items() if name.endswith("_url")]
        passwords = [address.password or "" for address in addresses]
        options = [pair for address in addresses for pair in parse_qsl(address.query)]
        passwords += [value for name, value in options if name.endswith("password")]
        found = (*hidden.values(), *passwords, *map(unquote, passwords))
        return tuple(text for text in found if text)

    @property
    def names_model(self) -> bool:
        """Whether a model was chosen; else the demo model answers."""
        ways = (self.hf_token, self.model_url, self.local_model_path, self.transformers_model)
        return self.model_id == "demo" or any(ways)

    @property
    def remembers(self) -> bool:
        """Whether conversations are remembered."""
        return self.history_days > 0

    @property
    def keep_seconds(self) -> float:
        """How long keys of the store are kept; at least a day, because questions may wait."""
        return max(self.history_days, 1) * 24 * 3600.0

    @property
    def signs_in(self) -> bool:
        """Whether people of the web page have a way to sign in."""
        return bool(self.web_password or self.web_proxy_header or self.web_oidc_issuer)

    @property
    def chat_platforms(self) -> tuple[str, ...]:
        """The platforms with credentials: "discord", "slack", both or none."""
        tokens = {"discord": self.discord_token, "slack": self.slack_bot_token}
        return tuple(platform for platform, token in tokens.items() if token)


def hand_on(env_file: Path, environment: MutableMapping[str, str]) -> None:
    """Add what the file has for libraries, such as HTTPS_PROXY; the environment has priority."""
    for name, text in read(env_file)[0].items():
        if _OF_OTHERS.fullmatch(name):
            environment.setdefault(name, text)


def read(env_file: Path) -> tuple[dict[str, str], list[str]]:
    """Return the variables that a file sets, and its mistakes."""
    try:
        # The encoding drops the byte order mark of some editors.
        with env_file.open(encoding="utf-8-sig") as stream:
            lines = list(parse_stream(stream))
    except (FileNotFoundError, IsADirectoryError):  # some people's virtual environment is .env
        return {}, []
    except OSError as error:
        return {}, [f"{env_file} cannot be read: {error.strerror}"]
    except UnicodeError:
        return {}, [f"{env_file} is not a text in UTF-8"]
    # Variables inside a value are not replaced: a password may contain a dollar sign.
    texts = {line.key: (line.value or "").strip() for line in lines if line.key}
    given = {name: text for name, text in texts.items() if text}
    return given, list(_line_mistakes(lines, env_file.name))


def _line_mistakes(lines: list[Binding], file: str) -> Iterator[str]:
    for line in lines:
        if line.error or (line.key and (line.value is None or not _NAME.fullmatch(line.key))):
            # The line is not shown: it may contain a token.
            yield f"{file} line {_line_number(line)} is not NAME=value"
        elif line.key and (sentence := _misspelt(line.key, file)):
            yield sentence
        text = line.original.string.strip(" \t\r\n")
        if hidden := _HIDDEN_LINE.search(text):
            yield f"{hidden['name']} in {file} line {_line_number(line)} is part of another line"
        is_empty = line.key and line.value is not None and not line.value.strip()
        if is_empty and not _EMPTY.fullmatch(text.partition("=")[2]):
            yield f"{line.key} in {file} has no value, but a comment: put that on a line of its own"
    last = {line.key: line.value for line in lines if line.key}
    for line in lines:
        given, kept = line.value or "", last.get(line.key or "") or ""
        is_repeated = given.strip() not in ("", kept.strip())
        if line.key and is_repeated:
            yield f"{line.key} stands in {file} twice, with different values: keep one of them"


def _line_number(line: Binding) -> int:
    # python-dotenv 1.2 counts from the empty lines before it.
    text = line.original.string
    return line.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _misspelt(name: str, where: str, *, is_strict: bool = True) -> str | None:
    """Return why a name is refused; unless `is_strict`, names of other programs are let through."""
    known = [variable.name.upper() for variable in fields(Settings)]
    if name in known or _OF_OTHERS.fullmatch(name):
        return None
    if advice := OLDER.get(name):
        return f"{name} in {where} is not used: {advice}"
    written = name.upper()
    words = " ".join(re.findall("ALLOWED|[A-Z]+", written))
    very_near = get_close_matches(written, known, n=1, cutoff=_VERY_NEAR)
    if not is_strict and not very_near and not _is_ours(words):
        return None
    meant = [right for word, right in _WORDS if re.search(word, words)]
    near = very_near or meant or get_close_matches(written, known, n=1, cutoff=_NEAR)
    cure = f"did you mean {near[0]}?" if near else "docs/settings.md has a table of all settings"
    return f"{name} in {where} is unknown; {cure}"


def _is_ours(name: str) -> bool:
    """Return whether a name, its words with blanks between, is most likely meant for this bot."""
    words = {word.removesuffix("S") for word in name.split()}
    if words & _LIMITING and (words & _WHOM or words <= _LIMITING | _FILLING):
        return True
    if words & {"WEBHOOK", "SERVICE", "PORT"}:  # of a notifier, or of a container beside this one
        return False
    if words & _RULERS and words <= _RULERS | {"BOT", "USER", "ROLE", "ID"}:
        return True
    if name.startswith(("WEB ", "MODEL")):
        known = (variable.name.upper() for variable in fields(Settings))
        return bool(get_close_matches(name.replace(" ", "_"), known, cutoff=_NEAR))
    is_of_platform = name.startswith(("DISCORD ", "SLACK ")) or words & {"GUILD", "DM"}
    return bool(is_of_platform) or "DIRECT MESSAGE" in name or name.replace("IDS", "ID") in _ALONE


def _shown(variable: Field[Any], text: str) -> str:
    name = variable.name.upper()
    if name.endswith("_URL"):
        text = shown_url(text)
    elif not variable.repr:
        text = ""
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"{name}={text!r}" if text else name


def shown_url(url: str) -> str:
    """Return an address without its login and the values of its options; empty if unreadable."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        # The text at the position of the port may be a password.
        return ""
    return re.sub(r"=[^&]*", "=***", re.sub(r"//.*@", "//***@", url))


def _contradictions(values: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    # A refused variable has no value, and its mistake is already reported.
    if values.get("max_tokens", 0) >= values.get("context_tokens", math.inf):
        yield (
            f"MAX_TOKENS={values['max_tokens']} leaves no room for a question "
            f"in CONTEXT_TOKENS={values['context_tokens']}"
        )
    models = ["MODEL_ID=demo"] if texts.get("MODEL_ID") == "demo" else []
    models += [it for it in ("LOCAL_MODEL_PATH", "TRANSFORMERS_MODEL", "MODEL_URL") if it in texts]
    ways = ("WEB_PASSWORD", "WEB_OIDC_ISSUER", "WEB_PROXY_HEADER")
    signs_in = [name for name in ways if name in texts]
    for found, what in ((models, "to a model"), (signs_in, "to sign in")):
        if len(found) > 1:
            yield f"{found[0]} and {found[1]} are two ways {what}: set one of them"
    for name in ("ADMINS", "ALLOWED_PEOPLE"):
        if both := {*values.get(name.lower(), ())} & {*values.get("blocked_people", ())}:
            yield f"{name} and BLOCKED_PEOPLE both name {', '.join(sorted(both))}"
    servers = values.get("allowed_servers", "0")
    if values.get("leave_other_servers") and not any(map(str.isdecimal, servers)):
        yield "LEAVE_OTHER_SERVERS=on needs a Discord server in ALLOWED_SERVERS"
    if values.get("web_proxy_address") and not signs_in:
        yield "WEB_PROXY_ADDRESS needs WEB_PROXY_HEADER, or another way to sign in, beside it"
    for name, needed in _NEEDS:
        if values.get(name.lower()) and needed not in texts:
            yield f"{name} needs {needed} beside it"
