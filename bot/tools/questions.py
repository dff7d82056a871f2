"""What a tool's server asks a person before it goes on, and what they answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from urllib.parse import quote, urlsplit

from bot.domain import FORM, LINK, Json
from bot.errors import Refused
from bot.languages import number, say
from bot.text.sanitize import in_code, one_line, whole_characters

MOST_ANSWER = 1_000  # characters of what a person writes into a field
_MOST_FIELDS = 5  # Discord's forms have room for no more
_MOST_OPTIONS = 25  # of a menu of Discord
_MOST_MESSAGE, _MOST_LABEL = 300, 100  # characters
_MOST_ADDRESS = 500
_SECRET = re.compile(r"passw|passphrase|passcode|secret|credential|api.?key|token|\bpin\b", re.I)

Kind = Literal["string", "number", "integer", "boolean"]
_KINDS: Mapping[str, Kind] = {one: one for one in get_args(Kind)}
# A filled-in form, as the protocol has it.
Values = dict[str, str | int | float | bool | list[str] | None]
# What a person has written or chosen, by the ids of fields.
Filled = Mapping[str, str | Sequence[str]]


class QuestionRefused(Exception):
    """A question that is not passed on; `str` says why, for the model."""


class AnswerRefused(Refused):
    """What a person wrote does not fit the field of this id."""

    def __init__(self, apology: str, *, field: str) -> None:
        super().__init__(apology)
        self.field = field


@dataclass(frozen=True, slots=True)
class InputField:
    """One value that a server asks for, which it calls `name`.

    A field with `options` takes one of them; each has its value and its label.
    """

    name: str
    label: str
    hint: str
    kind: Kind
    is_required: bool
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What a server asks, by its own `key`: the fields of a form, or a visit to an `address`."""

    key: str
    message: str
    fields: tuple[InputField, ...] = ()
    address: str = ""

    def id(self, call_id: str, request: int, place: int) -> str:
        """Name the question with this place in what a request of a call was answered.

        Another text has another id, so a press on an old question answers no other one.
        """
        written = json.dumps([call_id, request, place, asdict(self)])
        digest = hashlib.sha256(written.encode(errors="surrogatepass")).hexdigest()
        return (LINK if self.address else FORM) + digest[:9]

    def line(self, server: str) -> str:
        """Return what a person reads, on one line; a stranger's words are in code."""
        server, said = in_code(server), in_code(self.message)
        if not self.address:
            asks = "{server} asks: {said} (Never answer with a password.)"
            return say(asks, server=server, said=said)
        asks = "{server} asks you to open a page of {host}: {said}"
        host = f"`{urlsplit(self.address).hostname}`"
        return f"{say(asks, server=server, host=host, said=said)} {self.address}"

    def answers(self, filled: Filled) -> str:
        """Return what was filled in, by the ids of the fields, as JSON. Raises AnswerRefused."""
        found: dict[str, Json] = {}
        for at, field in enumerate(self.fields):
            given = filled.get(id_ := field_id(at), "")
            text = given if isinstance(given, str) else "".join(given[:1])
            text = whole_characters(text).replace("\r\n", "\n").strip()
            value = _value(field, text, id_)
            if value is not None:
                found[field.name] = value
        return json.dumps(found, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Input:
    """What a server has answered instead of a result: its `state`, and its questions by id."""

    state: str | None
    questions: Mapping[str, Question]


class ToolAsks(Exception):
    """A call that is not finished: its server asks a person first, and gets its `state` back."""

    def __init__(self, state: str | None, questions: Sequence[Question]) -> None:
        super().__init__()
        self.state = state
        self.questions = questions


@dataclass(frozen=True, slots=True)
class Answered:
    """What a server gets with the next request of a call: its state, and the answers by key.

    A form's answer has its values; one without values is a page that the person has visited.
    """

    state: str | None
    answers: Mapping[str, Values | None]


def field_id(number: int) -> str:
    """Return how forms name a field: what its server calls it may be anything."""
    return f"field{number}"


def form_question(key: str, message: str, schema: Mapping[str, Json]) -> Question:
    """Read a form as the protocol describes one. Raises QuestionRefused."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not 0 < len(properties) <= _MOST_FIELDS:
        raise QuestionRefused(f"Its form must have one to {_MOST_FIELDS} fields.")
    needed = required if isinstance(required, list) else []
    fields = tuple(_field(name, it, name in needed) for name, it in properties.items())
    return Question(key, _line(message, _MOST_MESSAGE), fields)


def link_question(key: str, message: str, address: str) -> Question:
    """Return the question to visit an address. Raises QuestionRefused."""
    try:
        parts = urlsplit(address)
        is_fine = parts.scheme == "https" and parts.hostname and not parts.username
        is_fine = is_fine and address.isascii() and parts.port != 0
    except ValueError:
        is_fine = False
    # Nothing in it is markup, a mention, or a second address.
    plain = quote(address, safe="/:?&=#%+,;~-._")
    if not is_fine or len(plain) > _MOST_ADDRESS or re.search(r"[^\w.:-]", parts.netloc):
        raise QuestionRefused("Its address is none that can be shown: https, and not too long.")
    return Question(key, _line(message, _MOST_MESSAGE), address=plain)


def write_question(one: Question) -> str:
    """Return a question as JSON, on one line."""
    return json.dumps(asdict(one), ensure_ascii=True)


def read_question(written: str) -> Question:
    """Read what `write_question` returned."""
    return _question(json.loads(written))


def write_input(one: Input) -> str:
    """Return it as JSON."""
    return json.dumps(asdict(one), ensure_ascii=True)


def read_input(written: str) -> Input:
    """Read what `write_input` returned."""
    value = json.loads(written)
    return Input(value["state"], {name: _question(it) for name, it in value["questions"].items()})


def _question(value: dict[str, Any]) -> Question:
    fields = (
        InputField(**{**it, "options": tuple((one[0], one[1]) for one in it["options"])})
        for it in value.pop("fields")
    )
    return Question(**value, fields=tuple(fields))


def _field(name: str, schema: Json, is_required: bool) -> InputField:
    found = schema if isinstance(schema, dict) else {}
    title, hint = _text(found.get("title")) or name, _text(found.get("description"))
    if _SECRET.search(f"{name} {title} {hint}"):
        raise QuestionRefused("Its form asks for a secret, which nobody should write here.")
    kind = _KINDS.get(_text(found.get("type")))
    if kind is None:
        raise QuestionRefused("Its form has a field of a kind that is not known here.")
    options = _options(found) if kind == "string" else ()
    if len(options) > _MOST_OPTIONS:
        raise QuestionRefused("Its form offers too many options.")
    if kind == "boolean":
        options = (("true", say("Yes")), ("false", say("No")))
    label, hint = _line(title, _MOST_LABEL) or "?", _line(hint, _MOST_LABEL)
    return InputField(name, label, hint, kind, is_required, options)


def _options(schema: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    values, titled, names = schema.get("enum"), schema.get("oneOf"), schema.get("enumNames")
    if isinstance(titled, list):
        found = [(it.get("const"), it.get("title")) for it in titled if isinstance(it, dict)]
    else:
        listed = values if isinstance(values, list) else []
        labels = names if isinstance(names, list) and len(names) == len(listed) else listed
        found = list(zip(listed, labels, strict=True))
    return tuple((_text(one), _line(_text(label), _MOST_LABEL) or "?") for one, label in found)


def _value(field: InputField, text: str, id_: str) -> Json:
    """Return what a field holds; None if it was left empty. Raises AnswerRefused."""

    def refused(sentence: str) -> AnswerRefused:
        return AnswerRefused(f"{in_code(field.label)}: {sentence}", field=id_)

    if not text:
        if field.is_required:
            raise refused(say("please answer this."))
        return None
    if len(text) > MOST_ANSWER:
        raise refused(say("please use at most {most} characters.", most=number(MOST_ANSWER)))
    if field.options:
        # By their places, because a value may be anything; at a terminal, by their labels too.
        places = {str(at): value for at, (value, _) in enumerate(field.options, 1)}
        labels = {label.casefold(): value for value, label in field.options}
        chosen = places.get(text, labels.get(text.casefold()))
        if chosen is None:
            raise refused(say("please choose one of the options."))
        return chosen == "true" if field.kind == "boolean" else chosen
    try:
        if field.kind == "integer":
            return int(text)
        if field.kind == "number":
            # `nan` and `inf` are no JSON.
            return float(json.dumps(float(text.replace(",", ".")), allow_nan=False))
    except ValueError:
        is_any = field.kind == "number"
        asks = say("please enter a number.") if is_any else say("please enter a whole number.")
        raise refused(asks) from None
    return text


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _line(text: str, most: int) -> str:
    line = one_line(whole_characters(text))
    return line if len(line) <= most else f"{line[: most - 1]}…"
