"""How a model server words what all of them can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from bot.domain import Json
from tests.emulators.model.rules import Complaint

Object = dict[str, Json]

COMPLETIONS = "POST /v1/chat/completions"
TOKENIZE = "POST /tokenize"
TEMPLATE = "POST /apply-template"
MODELS = "GET /v1/models"
MODEL = "GET /v1/models/{name}"
PROPS = "GET /props"
INFO = "GET /info"
PS = "GET /api/ps"
WHOAMI = "GET /api/whoami-v2"
ENDPOINTS = (
    COMPLETIONS,
    TOKENIZE,
    TEMPLATE,
    MODELS,
    MODEL,
    PROPS,
    INFO,
    PS,
    WHOAMI,
)
# Who wants to know what kind of server this is may ask for these in vain.
PROBES = frozenset({MODELS, PROPS, INFO, PS, "POST /api/show"})


@dataclass(frozen=True, slots=True)
class Served:
    """What the server has: models by name, and its context in tokens."""

    models: Sequence[str]
    context: int | None
    providers: Mapping[str, str] = field(default_factory=dict)  # who runs them, and how that goes
    permissions: Sequence[str] | None = None  # of the caller's token; None: it is not fine-grained

    @property
    def name(self) -> str:
        return self.models[0]


@dataclass(frozen=True, slots=True)
class Need:
    """How many tokens a prompt has, and how many its answer may have."""

    prompt: int
    answer: int | None


@dataclass(slots=True, eq=False)
class Refused(Exception):
    """A request that is answered with an error; a body that is no string is sent as JSON."""

    status: int
    body: object
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect:
    """One kind of server; what stands here is what most kinds share."""

    endpoints: frozenset[str] = frozenset({COMPLETIONS})
    # What the first chunk of a stream says; None where there is no chunk without text.
    opening: ClassVar[Object | None] = {"role": "assistant", "content": ""}
    # What each chunk with text says beside it.
    chorus: ClassVar[Object] = {}

    def error(self, status: int, message: str) -> Json:
        """Return the body of an error; "" where the server sends none."""
        raise NotImplementedError

    def event(self, status: int, message: str) -> Json:
        """Return what stands in a stream when an answer fails on the way."""
        return self.error(status, message)

    def unauthorised(self) -> Refused:
        raise NotImplementedError

    def guards(self, call: str) -> bool:
        """Whether the call needs the API key."""
        return True

    def nowhere(self) -> Refused:
        """Refuse a path that the server does not have."""
        return Refused(404, self.error(404, "Not Found"))

    def invalid(self, complaint: Complaint) -> Refused:
        return Refused(400, self.error(400, str(complaint)))

    def misordered(self, message: str) -> Refused:
        """Refuse messages that the model's template does not take."""
        return Refused(400, self.error(400, message))

    def complaint(self, body: Object) -> Complaint | None:
        """Return what this server refuses of a request that others take."""
        return None

    def find(self, name: str, served: Served) -> None:
        """Raise Refused when there is no such model; many answer with the one they have."""

    def too_long(self, need: Need, context: int) -> Refused | None:
        """Return the refusal of a prompt that leaves no room in the context; None: it fits."""
        raise NotImplementedError

    def unread(self, need: Need, context: int) -> int:
        """Return how many tokens of a prompt that was not refused the model does not see."""
        return 0

    def tell(self, endpoint: str, served: Served) -> Json:
        """Return what the server says of itself; at least its models, in OpenAI's words."""
        return {"object": "list", "data": [self.card(each, served) for each in served.models]}

    def card(self, name: str, served: Served) -> Json:
        """Return what stands in the list of models."""
        return {"id": name, "object": "model", "created": 0, "owned_by": "emulator"}

    def tokenize(self, body: Object, served: Served) -> Json:
        raise NotImplementedError

    def describe(self, name: str, served: Served) -> Json:
        """Return what is told of a model before it is asked."""
        raise NotImplementedError

    def whoami(self, served: Served) -> Json:
        """Return what is told of the caller's token."""
        raise NotImplementedError
