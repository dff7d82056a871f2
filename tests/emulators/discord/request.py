"""What a bot asks for, and the routes by which an answer is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.emulators.discord.objects import Payload


@dataclass(frozen=True, slots=True)
class Request:
    """What a bot asks for: the ids in the path, the query, and the JSON body."""

    ids: Mapping[str, str]
    query: Mapping[str, str]
    json: object

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
    the parameters that are emulated, and `odd` names what is asked for in a body and is not.
    """

    method: str
    template: str
    answer: Callable[[Request], Answer]
    bucket: str = ""
    key: str = ""
    open: bool = False
    queries: tuple[str, ...] = ()
    odd: Callable[[Request], str] = field(default=lambda _: "")
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.template)
        object.__setattr__(self, "pattern", re.compile(pattern))

    def not_emulated(self, request: Request) -> list[str]:
        """Return what a request asks for beyond what this route can do."""
        odd = self.odd(request)
        strange = [f"?{key}" for key in request.query if key not in self.queries]
        return strange + ([odd] if odd else [])
