"""What a bot asks for, the routes by which an answer is found, and how Discord says no."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.emulators.discord.objects import Payload


@dataclass(frozen=True, slots=True)
class Request:
    """What a bot asks for: the ids in the path, the query, the JSON body, and files by part."""

    ids: Mapping[str, str]
    query: Mapping[str, str]
    json: object
    files: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def body(self) -> Payload:
        """The body where it is an object, else an empty one."""
        return self.json if isinstance(self.json, dict) else {}


Answer = tuple[int, object]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of the API, as the document writes it.

    `bucket` names its limit in `Limits`, and `key` the id that has a window of its own; one without
    a bucket has only the global limit. `open` needs no token, and has not even that. `queries` are
    the parameters that are emulated.
    """

    method: str
    template: str
    answer: Callable[[Request], Answer]
    bucket: str = ""
    key: str = ""
    open: bool = False
    queries: tuple[str, ...] = ()
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.template)
        object.__setattr__(self, "pattern", re.compile(pattern))


class Refusal(Exception):
    """An error answer of Discord; `body` is its JSON."""

    def __init__(self, status: int, code: int, text: str, **more: object) -> None:
        super().__init__(text)
        self.status = status
        self.body: Payload = {"message": text, "code": code} | more


def bad_form(path: str, code: str, text: str) -> Refusal:
    """Return the refusal of one field of a form; dots in its path lead into objects and arrays."""
    errors: Payload = {"_errors": [{"code": code, "message": text}]}
    for key in reversed(path.split(".")):
        errors = {key: errors}
    return Refusal(400, 50035, "Invalid Form Body", errors=errors)


def bad_length(path: str, least: int, most: int) -> Refusal:
    """Return the refusal of a text or an array that is too short or too long."""
    if least == 0:
        return bad_form(path, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")
    text = f"Must be between {least} and {most} in length."
    return bad_form(path, "BASE_TYPE_BAD_LENGTH", text)
