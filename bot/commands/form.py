"""The forms in which people choose how the bot answers in a place, and who may use it there.

A question of a tool's server is a form, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bot.access.preferences import SCOPES, InvalidPreference, ModelChoice, Scope
from bot.domain import Json, Preferences
from bot.languages import later, say
from bot.tools.questions import MOST_ANSWER, Question, field_id
from config.persona_files import MOST_PERSONA

# A form has room for five fields on every platform.
Part = Literal["answers", "access"]
PARTS: tuple[Part, ...] = get_args(Part)

Filled = Mapping[str, str | Sequence[str]]

_SCOPES: Mapping[str, Scope] = {one: one for one in SCOPES}
_FORMS = {f"{scope}:{part}": (scope, part) for scope in SCOPES for part in PARTS}
# The scope of a name, and the scope and the part of a form's; None for another text.
scope_of, form_named = _SCOPES.get, _FORMS.get

_AS_BEFORE = later("Default")
_DIGEST = 4  # characters of a field in `Form.seen`
_MOST_PEOPLE = 25
_MOST_DISPLAYED = 200  # characters of a persona in an overview
_MOST_QUOTED = 50  # characters of an invalid number in an error


@dataclass(frozen=True, slots=True)
class Field:
    """One input of a form.

    A `choice` is one of `options`, each with its value and its label; `people` and `roles` are any
    number of ids, up to `most`; a text has up to `most` characters. `value` is what is chosen now,
    one text or several ids. If it `is_required`, it must not be left empty.
    """

    name: str
    label: str
    hint: str
    kind: Literal["line", "text", "choice", "people", "roles"] = "line"
    value: str | tuple[str, ...] = ""
    options: tuple[tuple[str, str], ...] = ()
    most: int = 12
    is_required: bool = False

    @property
    def more(self) -> str:
        """What stands behind the label where there are no forms; perhaps empty."""
        options = ", ".join(f"{number} {label}" for number, label in self.options)
        optional = "" if self.is_required else say("may be empty")
        return "; ".join(filter(None, (self.hint, options, optional)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form; `seen` is returned with it, so that only changed fields are stored."""

    title: str
    fields: tuple[Field, ...]
    seen: str


def form_of(
    found: Preferences, scope: Scope, part: Part, *, title: str, models: Sequence[ModelChoice]
) -> Form:
    """Return a form that shows what is chosen for a place."""
    fields = tuple(_fields(found, scope, part, models))
    return Form(title=title, fields=fields, seen="".join(_digest(one.value) for one in fields))


def answer_form(question: Question) -> Form:
    """Return the form of a question that a tool's server asks."""
    fields = tuple(
        Field(
            field_id(number),
            one.label,
            one.hint,
            "choice" if one.options else "text" if one.kind == "string" else "line",
            options=tuple((str(at), label) for at, (_, label) in enumerate(one.options, 1)),
            most=MOST_ANSWER if one.kind == "string" else 30,
            is_required=one.is_required,
        )
        for number, one in enumerate(question.fields)
    )
    return Form(title=question.message or say("Your answer"), fields=fields, seen="")


def changes_in(form: Form, filled: Filled, *, seen: str) -> dict[str, Json]:
    """Return what a person changed in a form, by the names of preferences; None clears one.

    Unchanged inputs are left out: another person may have changed them meanwhile. Raises
    InvalidPreference.
    """
    changes: dict[str, Json] = {}
    for number, field in enumerate(form.fields):
        if field.name not in filled:
            continue
        value = _given(field, filled[field.name])
        if _digest(value) != seen[number * _DIGEST :][:_DIGEST]:
            changes[field.name] = _parsed(field, value)
    return changes


def chosen_lines(
    found: Mapping[Scope, Preferences], scopes: Mapping[Scope, str], models: Sequence[ModelChoice]
) -> Iterator[str]:
    """Yield a line for each thing that is chosen, the nearest place first."""
    for scope, name in scopes.items():
        one = found.get(scope, Preferences())
        fields = [*_fields(one, scope, "answers", models), *_fields(one, scope, "access", models)]
        lines = [f"- {each.label}: {_displayed(each)}" for each in fields if each.value]
        # No form has room for them.
        lines += [say("- Tools: {choice}", choice=one.tools)] if one.tools else []
        if lines:
            yield from (say("For {place}:", place=name), *lines)


def _fields(
    found: Preferences, scope: Scope, part: Part, models: Sequence[ModelChoice]
) -> Iterator[Field]:
    for field in _FIELDS[part]:
        value, options = getattr(found, field.name), field.options
        if field.name == "model":
            names = {"": say(_AS_BEFORE)} | {one.name: one.label for one in models}
            names.setdefault(value, say("{model} (is not there any more)", model=value))
            options = tuple(names.items())
        if scope == "server" or field.name != "server_tokens_per_day":
            shown = value if isinstance(value, str | tuple) else _written(value)
            if field.name != "model":
                options = tuple((one, say(label)) for one, label in options)
            label, hint = say(field.label), say(field.hint)
            yield replace(field, label=label, hint=hint, value=shown, options=options)


_PIRATE = later("For example: answer briefly, and like a pirate")
_WORDS = later("How freely the model chooses its words, from 0 to 2")
_THREADS = later("In threads where I have answered")
_TOKENS = later("In tokens; a token is about four letters")
_EVERYBODY = later("Leave it empty for everybody")
_LIMIT = later("Leave it empty for the default limit")
_FOLLOW_OPTIONS = (
    ("", _AS_BEFORE),
    ("auto", later("Everything, while only one person writes there")),
    ("all", later("Everything")),
    ("mention", later("Only mentions and replies")),
)
# Each is named as its preference.
_FIELDS: Mapping[Part, Sequence[Field]] = {
    "answers": (
        Field("model", later("Model"), later("Which model answers"), "choice"),
        Field("persona", later("Persona"), _PIRATE, "text", most=MOST_PERSONA),
        Field("temperature", later("Temperature"), _WORDS),
        Field("max_tokens", later("Longest answer"), _TOKENS),
        Field(
            "follow",
            later("What I answer in threads"),
            _THREADS,
            "choice",
            options=_FOLLOW_OPTIONS,
        ),
    ),
    "access": (
        Field("people", later("People who may use me"), _EVERYBODY, "people", most=_MOST_PEOPLE),
        Field("roles", later("Roles that may use me"), _EVERYBODY, "roles", most=_MOST_PEOPLE),
        Field("questions_per_day", later("Questions per person and day"), _LIMIT),
        Field("tokens_per_day", later("Tokens per person and day"), _LIMIT),
        Field("server_tokens_per_day", later("Tokens of everybody per day"), _LIMIT),
    ),
}


def _displayed(one: Field) -> str:
    if isinstance(one.value, tuple):
        return say("{many} chosen", many=len(one.value))
    shown = one.value if len(one.value) <= _MOST_DISPLAYED else f"{one.value[:_MOST_DISPLAYED]}…"
    return dict(one.options).get(one.value, " ".join(shown.split()))


def _given(one: Field, filled: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return what was filled in, as a field has its value."""
    if one.kind in ("people", "roles"):
        return (filled,) if isinstance(filled, str) else tuple(filled)
    text = filled if isinstance(filled, str) else "".join(filled[:1])
    return text.replace("\r\n", "\n").strip()


def _parsed(one: Field, value: str | tuple[str, ...]) -> Json:
    """Return the value of a preference; None clears it. Raises InvalidPreference."""
    if isinstance(value, tuple):
        return list(value) or None
    if not value or one.kind != "line":
        return value or None
    try:
        return float(value.replace(",", ".")) if one.name == "temperature" else int(value)
    except ValueError:
        asks = "{label}: please enter a whole number, not {value}."
        if one.name == "temperature":
            asks = "{label}: please enter a number, not {value}."
        wrong = say(asks, label=one.label, value=repr(value[:_MOST_QUOTED]))
        raise InvalidPreference(wrong, field=one.name) from None


def _digest(value: str | tuple[str, ...]) -> str:
    text = value if isinstance(value, str) else " ".join(sorted(value))
    written = text.strip().encode(errors="surrogatepass")
    return hashlib.blake2b(written, digest_size=_DIGEST // 2).hexdigest()


def _written(number: float | None) -> str:
    return "" if number is None else f"{number:g}" if isinstance(number, float) else str(number)
