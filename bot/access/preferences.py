"""What people chose for a thread, a channel or a server, and who may choose it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from bot import audit
from bot.domain import Follow, Json, Preferences, ThreadKey
from bot.errors import Refused
from bot.languages import later, number, say
from bot.text.sanitize import strip_controls, whole_characters
from config.persona_files import MOST_PERSONA

if TYPE_CHECKING:  # `bot ask` has no store, and need not import Redis
    from bot.store import Store

log = logging.getLogger(__name__)

Scope = Literal["thread", "channel", "server"]
Changes = Mapping[str, Json]
Ability = Literal["pictures", "tools"]  # what a model sees, and uses

SCOPES: tuple[Scope, ...] = get_args(Scope)  # the nearest first
_MOST_IDS = 500  # of people or roles in one place
_ID_LENGTH = 100  # characters
_MOST = 10**9  # of a limit
_ALL = tuple(one.name for one in fields(Preferences))
_FIELDS: Mapping[Scope, tuple[str, ...]] = {
    "thread": ("model", "persona", "temperature", "max_tokens", "follow", "tools"),
    "channel": tuple(one for one in _ALL if one != "server_tokens_per_day"),
    "server": _ALL,
}
# Workspaces of thread keys that are no server: their people do not know each other.
_NO_SERVERS = ("", "dm", "local")
_BREAK = re.compile("\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")

# KEYS[1] begins the names of the hashes, and is that of the set of all of them. ARGV are places.
_READ = """
local found = {}
for at, place in ipairs(ARGV) do found[at] = redis.call('HGETALL', KEYS[1] .. ':' .. place) end
return found
"""
# ARGV[1] is [[place, {field: JSON, or '' to clear it}], …]; if ARGV[2] is '1', other known fields
# are cleared, too, and those of newer versions with them. Returns what each place had before.
_WRITE = """
local before = {}
for at, change in ipairs(cjson.decode(ARGV[1])) do
  local place = change[1]
  local name = KEYS[1] .. ':' .. place
  before[at] = redis.call('HGETALL', name)
  if ARGV[2] == '1' then redis.call('DEL', name) end
  for field, value in pairs(change[2]) do
    if value == '' then redis.call('HDEL', name, field)
    else redis.call('HSET', name, field, value) end
  end
  redis.call(redis.call('EXISTS', name) == 1 and 'SADD' or 'SREM', KEYS[1], place)
end
return before
"""


class InvalidPreference(Refused):
    """What a person chose cannot be stored; the apology says why.

    `field` is the name of the preference, if it is known.
    """

    def __init__(self, apology: str, *, field: str = "") -> None:
        super().__init__(apology)
        self.field = field


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that people may choose: its name, its label, and what it is for, if that is known."""

    name: str
    label: str
    purpose: str = ""


def resolved(found: Mapping[Scope, Preferences]) -> Preferences:
    """Return the preferences that apply in a place: each field from the nearest scope."""
    result = Preferences()
    for scope in reversed(SCOPES):
        if scope in found:
            result = replace(result, **chosen(found[scope]))
    return result


def place_of(thread: ThreadKey, scope: Scope) -> str:
    """Return the storage key of a scope of a thread. Raises InvalidPreference."""
    if scope == "thread":
        return str(thread)
    if scope == "channel":
        return str(replace(thread, thread=""))
    if thread.workspace in _NO_SERVERS:
        raise InvalidPreference("There is no server here.")
    return str(replace(thread, channel="", thread=""))


class PreferenceStore:
    """What is chosen, in Redis, without an expiry. Every method raises StoreUnavailable.

    `models` are those that people may choose; the first one answers if nothing is chosen.
    `max_tokens` is the longest answer of all.
    """

    def __init__(
        self, *, store: Store, models: Sequence[ModelChoice] = (), max_tokens: int = _MOST
    ) -> None:
        self.models = tuple(models)
        self.max_tokens = max_tokens
        self.store = store
        self._read = store.script(_READ)
        self._write = store.script(_WRITE)

    @property
    def offered(self) -> tuple[ModelChoice, ...]:
        """The models from which people choose; none if there is only one."""
        return self.models if len(self.models) > 1 else ()

    async def read(self, thread: ThreadKey) -> Mapping[Scope, Preferences]:
        """Return what is chosen for a thread, its channel and its server, in one round trip."""
        has_server = thread.workspace not in _NO_SERVERS
        places = {it: place_of(thread, it) for it in SCOPES if has_server or it != "server"}
        found = await self._read_places(list(places.values()))
        return dict(zip(places, found, strict=True))

    def label_of(self, model: str) -> str:
        """Return the label of a model, or of the one that answers if none is chosen."""
        labels = {one.name: one.label for one in self.models}
        return labels.get(model, model) or next(iter(labels.values()), "")

    async def answers(self, thread: ThreadKey) -> str:
        """Return the label of the model that is chosen for a thread; "" if that is the default."""
        name = resolved(await self.read(thread)).model
        return next((one.label for one in self.models if one.name == name), "")

    async def change(
        self, thread: ThreadKey, scope: Scope, changes: Changes, *, by: str
    ) -> Preferences:
        """Store what a person chose, field by field, and return what is chosen there now.

        None, or an empty text, clears a choice. A model may be named by its label. `by` is the
        person's id, for auditors. Raises InvalidPreference.
        """
        place = place_of(thread, scope)
        written = {name: self._checked(scope, name, value) for name, value in changes.items()}
        # A persona of a thread is forgotten with the person who wrote it.
        if scope == "thread" and "persona" in written:
            written["persona_by"] = by if written["persona"] else None
        return (await self._apply({place: written}, replaces=False, by=by))[place]

    async def note_abilities(self, found: Mapping[str, Sequence[Ability]]) -> None:
        """Note for an hour, for all processes, what models can do, by their names."""
        key, written = self.store.key("models"), [(it, " ".join(can)) for it, can in found.items()]
        noted = [text for one in written for text in one]
        await self.store.commands([("HSET", key, *noted), ("EXPIRE", key, 3600)])

    async def abilities(self) -> Mapping[str, Sequence[str]]:
        """Return what workers have noted of models, by their names."""
        found: dict[str, str] = await self.store.command("HGETALL", self.store.key("models"))
        return {name: words.split() for name, words in found.items()}

    async def forget(self, thread: ThreadKey) -> None:
        """Drop what is chosen for a thread."""
        await self._apply({str(thread): {}}, replaces=True, by="")

    async def read_all(self) -> Mapping[str, Preferences]:
        """Return all that is chosen, by the keys of the places, in their order."""
        places: list[str] = sorted(await self.store.command("SMEMBERS", self._name))
        found = await self._read_places(places)
        return {place: one for place, one in zip(places, found, strict=True) if chosen(one)}

    async def replace_all(self, places: Mapping[str, Preferences]) -> None:
        """Replace what is chosen for some places, in one step. Other places are unchanged."""
        changes = {place: chosen(one) for place, one in places.items()}
        await self._apply(changes, replaces=True, by=audit.OPERATOR)

    @property
    def _name(self) -> str:
        return self.store.key("preferences")

    async def _read_places(self, places: Sequence[str]) -> list[Preferences]:
        answers = await self._read(keys=[self._name], args=places) if places else []
        return [read_preferences(dict(zip(one[::2], one[1::2], strict=True))) for one in answers]

    async def _apply(
        self, changes: Mapping[str, Mapping[str, object]], *, replaces: bool, by: str
    ) -> dict[str, Preferences]:
        """Store changes, tell auditors, and return what is chosen in each place now."""
        written = {
            place: {name: _written(value) for name, value in each.items()}
            for place, each in changes.items()
        }
        text = json.dumps(list(written.items()), ensure_ascii=False)
        answers = await self._write(keys=[self._name], args=[text, "1" if replaces else ""])
        found = {}
        for (place, fields_), answer in zip(written.items(), answers, strict=True):
            before = dict(zip(answer[::2], answer[1::2], strict=True))
            after = fields_ if replaces else {**before, **fields_}
            found[place] = read_preferences({it: value for it, value in after.items() if value})
            _audit(place, by, read_preferences(before), found[place])
        return found

    def _checked(self, scope: Scope, name: str, value: Json) -> object:
        """Return a value as it is stored, None for no choice."""
        cleared = value in (None, "", [], ())
        found = None if cleared and name in _FIELDS[scope] else _checked(scope, name, value)
        if name == "model" and isinstance(found, str):
            return self.model_named(found)
        if name == "max_tokens" and isinstance(found, int) and found > self.max_tokens:
            most = "An answer may have {most} tokens at most. Please choose fewer."
            raise InvalidPreference(say(most, most=number(self.max_tokens)), field=name)
        return found

    def model_named(self, typed: str) -> str:
        """Return the name of a model that is typed by name or label. Raises InvalidPreference."""
        if not self.offered:
            raise InvalidPreference("There is only one model here.", field="model")
        for one in self.models:
            if typed.casefold() in (one.name.casefold(), one.label.casefold()):
                return one.name
        offered = ", ".join(one.label for one in self.models)
        unknown = say("There is no such model. You can choose {offered}.", offered=offered)
        raise InvalidPreference(unknown, field="model")


def checked(scope: Scope, written: Changes) -> Preferences:
    """Return preferences of which all fields are given. Raises InvalidPreference."""
    found: dict[str, Any] = {it: _checked(scope, it, value) for it, value in written.items()}
    return Preferences(**found)


def _checked(scope: Scope, name: str, value: Json) -> object:
    if name not in _FIELDS[scope]:
        refused = say("You cannot choose a {name} for a {scope}.", name=name, scope=scope)
        raise InvalidPreference(refused, field=name)
    try:
        return _CHECKS[name](value)
    except ValueError as error:
        raise InvalidPreference(str(error), field=name) from error


def read_preferences(written: Mapping[str, object]) -> Preferences:
    """Read JSON texts by the names of what was chosen; unreadable ones count as not chosen."""
    found: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        try:
            text = written.get(name)
            if isinstance(text, str):
                found[name] = check(json.loads(text))
        except (ValueError, RecursionError):
            log.warning("Ignoring a stored %s that cannot be read", name)
    return Preferences(**found)


def chosen(one: Preferences) -> dict[str, Any]:
    """Return the fields in which something is chosen, by their names."""
    values = {each.name: getattr(one, each.name) for each in fields(Preferences)}
    return {name: value for name, value in values.items() if value not in (None, "", ())}


def _audit(place: str, by: str, before: Preferences, after: Preferences) -> None:
    """Write a line for each field that differs; a persona is somebody's words."""
    for name in (it for it in _ALL if getattr(before, it) != getattr(after, it)):
        values = (chosen(one).get(name, "") for one in (before, after))
        old, new = (
            audit.digest(it) if name == "persona" else ",".join(it) if type(it) is tuple else it
            for it in values
        )
        audit.note("changed", place=place, by=by, field=name, before=old, after=new)


def _written(value: object) -> str:
    return "" if value is None else whole_characters(json.dumps(value, ensure_ascii=False))


def cleaned(text: str) -> str:
    """Return a text that people wrote, without control characters but line breaks."""
    lines = _BREAK.split(whole_characters(text))
    return "\n".join(" ".join(strip_controls(line).split()) for line in lines).strip()


def checked_text(written: str) -> str:
    """Return what people wrote for the model, `cleaned`. Raises ValueError if it is too long."""
    text = cleaned(written)
    if len(text) > MOST_PERSONA:
        long = "A text can have at most {most} characters; yours has {has}."
        raise ValueError(say(long, most=number(MOST_PERSONA), has=number(len(text))))
    return text


def _persona(value: Json) -> str:
    text = checked_text(value) if isinstance(value, str) else ""
    if not text:
        raise ValueError(say("A persona is a text. Please write how I should answer."))
    return text


def _ids(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_IDS:
        raise ValueError(say("Please choose {most} at most.", most=_MOST_IDS))
    ids = [one for one in value if isinstance(one, str) and 0 < len(one) <= _ID_LENGTH]
    if len(ids) < len(value):
        raise ValueError(say("I do not know one of the people you chose. Please choose again."))
    return tuple(dict.fromkeys(map(whole_characters, ids)))


def _only(fits: Callable[[Any], object], problem: str) -> Callable[[Json], object]:
    """Return a check that takes only what fits."""

    def check(value: Json) -> object:
        if not fits(value):
            raise ValueError(say(problem, most=number(_MOST)))
        return value

    return check


_TOKENS = later("The number of tokens a day must be a whole number from 1 to {most}.")


def _limit(of: str) -> Callable[[Json], object]:
    return _only(lambda value: type(value) is int and 1 <= value <= _MOST, of)


_CHECKS: Mapping[str, Callable[[Json], object]] = {
    "model": _only(
        lambda value: isinstance(value, str) and value and value.isprintable(),
        later("There is no such model."),
    ),
    "persona": _persona,
    "temperature": _only(
        lambda value: type(value) in (int, float) and 0 <= value <= 2,
        later("The temperature must be a number from 0 to 2."),
    ),
    "max_tokens": _limit(later("The longest answer must be a whole number from 1 to {most}.")),
    "follow": _only(get_args(Follow).__contains__, later("Choose one of these options.")),
    "tools": _only(lambda value: value == "off", later("Tools can be switched off, or left on.")),
    "people": _ids,
    "roles": _ids,
    "questions_per_day": _limit(
        later("The number of questions a day must be a whole number from 1 to {most}.")
    ),
    "tokens_per_day": _limit(_TOKENS),
    "server_tokens_per_day": _limit(_TOKENS),
    "raised": _only(
        lambda value: value is True, later("Please choose whether limits may be raised.")
    ),
}
