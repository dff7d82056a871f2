"""The kinds of server that the emulator can be: how each words what it tells and refuses.

Sources: llama.cpp's server as xllamacpp 2026.10 runs it, which a test holds beside the emulated
one; vllm-project/vllm, entrypoints/serve, with the words of 0.16 and newer about a prompt that is
too long (harbor-framework/harbor pull request 996); huggingface/text-generation-inference,
docs/openapi.json and router/src, its issue 2749 and huggingface_hub issue 2514 for what a stream
says; ollama/ollama, docs/openapi.yaml, server/prompt.go and issues 14259 and 17889; for Hugging
Face's router huggingface.co/docs/inference-providers (Chat Completion; Hub API; Pricing and
Billing), huggingface_hub 2.4's `HfApi.whoami`, and its answers as others have met them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bot.domain import Json

Flavour = Literal["llama.cpp", "vllm", "tgi", "ollama", "router"]
Object = dict[str, Json]

COMPLETIONS = "POST /v1/chat/completions"
MODELS = "GET /v1/models"
MODEL = "GET /v1/models/{name}"
PROPS = "GET /props"
INFO = "GET /info"
PS = "GET /api/ps"
SHOW = "POST /api/show"
WHOAMI = "GET /api/whoami-v2"
ENDPOINTS = (COMPLETIONS, MODELS, MODEL, PROPS, INFO, PS, SHOW, WHOAMI)
# Who wants to know what kind of server this is may ask for these in vain.
PROBES = re.compile(
    "|".join(map(re.escape, (MODELS, PROPS, INFO, PS, SHOW))) + "|GET /api/v0/models/.+"
)


@dataclass(frozen=True, slots=True)
class Served:
    """What the server has: models by name, and its context in tokens."""

    models: Sequence[str]
    context: int | None
    providers: Mapping[str, str] = field(default_factory=dict)  # who runs them, and how that goes
    permissions: Sequence[str] | None = None  # of the caller's token; None: it is not fine-grained
    seeing: Collection[str] = ()  # those of the models that see pictures
    calling: Collection[str] = ()  # those that take tools
    # What providers take for a million tokens, read and written; not all tell it.
    pricing: Mapping[str, tuple[float, float]] = field(default_factory=dict)

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

    endpoints: frozenset[str] = frozenset({COMPLETIONS, MODELS})
    # What the first chunk of a stream says; None where there is no chunk without text.
    opening: ClassVar[Object | None] = {"role": "assistant", "content": ""}
    # What each chunk with text says beside it.
    chorus: ClassVar[Object] = {}
    open_calls: frozenset[str] = frozenset()  # those that need no key
    key_refused = "Invalid API Key"
    with_name = 0  # characters of a call's arguments that come with its name

    def error(self, status: int, message: str) -> Json:
        """Return the body of an error."""
        raise NotImplementedError

    def event(self, status: int, message: str) -> Json:
        """Return what stands in a stream when an answer fails on the way."""
        return self.error(status, message)

    def complaint(self, body: Object) -> str:
        """Return what this server refuses of a request that others take; empty: nothing."""
        return ""

    def find(self, name: str, served: Served) -> None:
        """Raise Refused when there is no such model; many answer with the one they have."""

    def too_long(self, need: Need, context: int) -> Refused | None:
        """Return the refusal of a prompt that leaves no room in the context; None: it fits."""
        raise NotImplementedError

    def blind(self, name: str) -> Refused | None:
        """Return the refusal of a picture by a model that does not see; None: it is ignored."""
        return None

    def toolless(self, name: str) -> Refused | None:
        """Return the refusal of tools by a model that takes none; None: they are ignored."""
        return None

    def calls(self, calls: Sequence[tuple[str, str]]) -> list[Object]:
        """Return the deltas of calls, as OpenAI and vLLM stream them: in small pieces."""
        deltas: list[Object] = []
        for index, (name, arguments) in enumerate(calls):
            first = _call(name, arguments[: self.with_name], index, f"call_{index}")
            deltas.append({"tool_calls": [first]})
            for start in range(self.with_name, len(arguments), 3):
                function: Json = {"arguments": arguments[start : start + 3]}
                deltas.append({"tool_calls": [{"index": index, "function": function}]})
        return deltas

    def unread(self, need: Need, context: int) -> int:
        """Return how many tokens of a prompt that was not refused the model does not see."""
        return 0

    def tell(self, endpoint: str, served: Served, name: str) -> Json:
        """Return what the server says of itself, or of a model: its models, in OpenAI's words."""
        return {"object": "list", "data": [self.card(each, served) for each in served.models]}

    def card(self, name: str, served: Served) -> Json:
        """Return what stands in the list of models."""
        return {"id": name, "object": "model", "created": 0, "owned_by": "emulator"}


class LlamaCpp(Dialect):
    """It answers for whatever model it is asked."""

    endpoints = frozenset({COMPLETIONS, MODELS, PROPS})
    opening: ClassVar[Object | None] = {"role": "assistant", "content": None}
    with_name = 1
    _TYPES: ClassVar = {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        503: "unavailable_error",
    }

    def error(self, status: int, message: str) -> Json:
        kind = self._TYPES.get(status, "server_error")
        return {"error": {"code": status, "message": message, "type": kind}}

    def too_long(self, need: Need, context: int) -> Refused | None:
        if need.prompt < context:
            return None
        error: Json = {
            "code": 400,
            "message": f"request ({need.prompt} tokens) exceeds the available context size"
            f" ({context} tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": need.prompt,
            "n_ctx": context,
        }
        return Refused(400, {"error": error})

    def blind(self, name: str) -> Refused | None:
        message = (
            "image input is not supported - hint: if this is unexpected, you may need to provide"
            " the mmproj"
        )
        return Refused(500, self.error(500, message))

    def tell(self, endpoint: str, served: Served, name: str) -> Json:
        if endpoint == PROPS:
            # A template without tools drops them silently (its issue 27129).
            return {
                "default_generation_settings": {"n_ctx": served.context or 32768},
                "modalities": {"vision": served.name in served.seeing, "audio": False},
                "chat_template_caps": {"supports_tools": served.name in served.calling},
            }
        return super().tell(endpoint, served, name)


class Vllm(Dialect):
    """It knows its models by name, and refuses an answer that may outgrow the context."""

    def error(self, status: int, message: str, param: str | None = None) -> Json:
        kinds = {400: "BadRequestError", 404: "NotFoundError"}
        kind = kinds.get(status, "InternalServerError")
        return {"error": {"message": message, "type": kind, "param": param, "code": status}}

    def complaint(self, body: Object) -> str:
        return _nameless(body)

    def find(self, name: str, served: Served) -> None:
        if name not in served.models:
            message = f"The model `{name}` does not exist."
            raise Refused(404, self.error(404, message, "model"))

    def too_long(self, need: Need, context: int) -> Refused | None:
        room = context - (need.answer or 0)
        if need.prompt <= room and need.prompt < context:
            return None
        message = (
            f"You passed {need.prompt} input tokens and requested {need.answer or 0} output"
            f" tokens. However, the model's context length is only {context} tokens, resulting in a"
            f" maximum input length of {room} tokens. Please reduce the length of the input prompt."
            f" (parameter=input_tokens, value={need.prompt})"
        )
        return Refused(400, self.error(400, message, "input_tokens"))

    def blind(self, name: str) -> Refused | None:
        return Refused(400, self.error(400, f"{name} is not a multimodal model"))

    def toolless(self, name: str) -> Refused | None:
        message = (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        )
        return Refused(400, self.error(400, message))

    def card(self, name: str, served: Served) -> Json:
        context = served.context or 32768
        return {"id": name, "object": "model", "owned_by": "vllm", "max_model_len": context}


class Tgi(Dialect):
    """It has one model, whatever it is asked for, and speaks without a first chunk."""

    endpoints = frozenset({COMPLETIONS, MODELS, INFO})
    opening = None
    chorus: ClassVar[Object] = {"role": "assistant"}

    def error(self, status: int, message: str) -> Json:
        kinds = {422: "validation", 429: "overloaded", 500: "incomplete_generation"}
        return {"error": message, "error_type": kinds.get(status, "generation")}

    def event(self, status: int, message: str) -> Json:
        return {"error": {"message": message, "http_status_code": status}}

    def complaint(self, body: Object) -> str:
        return "top_p: `top_p` must be > 0.0 and < 1.0" if body.get("top_p") == 1 else ""

    def calls(self, calls: Sequence[tuple[str, str]]) -> list[Object]:
        # Its older versions: an object in place of a list, and arguments that are no text.
        return [
            {"tool_calls": _call(name, json.loads(arguments), index, str(index))}
            for index, (name, arguments) in enumerate(calls)
        ]

    def too_long(self, need: Need, context: int) -> Refused | None:
        if need.prompt + (need.answer or 1) <= context:
            return None
        message = (
            f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {context}."
            f" Given: {need.prompt} `inputs` tokens and {need.answer or 0} `max_new_tokens`"
        )
        # The stream has begun before the prompt is counted, so it is too late for a status.
        event = json.dumps(self.event(422, message))
        kind = {"Content-Type": "text/event-stream"}
        return Refused(200, f"data: {event}\n\ndata: [DONE]\n\n", kind)

    def tell(self, endpoint: str, served: Served, name: str) -> Json:
        if endpoint == INFO:
            context = served.context or 32768
            return {
                "model_id": served.name,
                "max_input_tokens": context - 1,
                "max_total_tokens": context,
            }
        return super().tell(endpoint, served, name)


class Ollama(Dialect):
    """It cuts a prompt that is too long, and says nothing."""

    endpoints = frozenset({COMPLETIONS, MODELS, PS, SHOW})

    def error(self, status: int, message: str) -> Json:
        return {"error": {"message": message, "type": "api_error", "param": None, "code": None}}

    def too_long(self, need: Need, context: int) -> Refused | None:
        return None

    def blind(self, name: str) -> Refused | None:
        message = "this model is missing data required for image input"
        return Refused(400, self.error(400, message))

    def toolless(self, name: str) -> Refused | None:
        message = f"registry.ollama.ai/library/{name} does not support tools"
        return Refused(400, self.error(400, message))

    def calls(self, calls: Sequence[tuple[str, str]]) -> list[Object]:
        # All with the same index (its issue 15457).
        return [
            {"tool_calls": [_call(name, arguments, 0, f"call_{place}")]}
            for place, (name, arguments) in enumerate(calls)
        ]

    def unread(self, need: Need, context: int) -> int:
        # What is left of it is half of the context, so that an answer has room.
        return need.prompt - context // 2 if need.prompt > context else 0

    def tell(self, endpoint: str, served: Served, name: str) -> Json:
        if endpoint == SHOW:
            abilities = {"vision": served.seeing, "tools": served.calling}
            able: list[Json] = [one for one, models in abilities.items() if name in models]
            return {"capabilities": ["completion", *able]}
        if endpoint != PS:
            return super().tell(endpoint, served, name)
        context = served.context or 4096
        running: list[Json] = [
            {"name": each, "model": each, "context_length": context} for each in served.models
        ]
        return {"models": running}


class Router(Dialect):
    """Hugging Face's: it passes a request on to a provider of the model, and counts no tokens.

    The "not supported" of a model is an object with a code, what concerns the account a plain
    string, and a fine-grained token's permissions stand in "global" and "scoped".
    """

    endpoints = frozenset({COMPLETIONS, MODELS, MODEL, WHOAMI})
    open_calls = frozenset({MODELS, MODEL})
    key_refused = "Invalid username or password."

    def error(self, status: int, message: str) -> Json:
        return {"error": message} if status != 400 else _of_router(message)

    def complaint(self, body: Object) -> str:
        return _nameless(body)

    def find(self, name: str, served: Served) -> None:
        # A provider, or a policy such as "fastest", may stand behind a colon.
        self._find(name.partition(":")[0], served, status=400)

    def tell(self, endpoint: str, served: Served, name: str) -> Json:
        if endpoint == WHOAMI:
            return self._whoami(served)
        if endpoint == MODELS:
            return super().tell(endpoint, served, name)
        self._find(name, served, status=404)
        return _card(name, served)

    def card(self, name: str, served: Served) -> Json:
        return _card(name, served)

    def blind(self, name: str) -> Refused | None:
        return Refused(400, _of_router("This model does not support image input.", "messages"))

    def toolless(self, name: str) -> Refused | None:
        # A provider's words (huggingface/smolagents issue 1808).
        message = "The following parameters are not supported for this model: tools, tool_choice"
        return Refused(422, self.error(422, message))

    def too_long(self, need: Need, context: int) -> Refused | None:
        if need.prompt + (need.answer or 1) <= context:
            return None
        message = f"This model's maximum context length is {context} tokens."
        return Refused(400, _of_router(message, "messages", "context_length_exceeded"))

    def _find(self, name: str, served: Served, *, status: int) -> None:
        if name not in served.models:
            message = f"The requested model '{name}' does not exist"
            raise Refused(status, _of_router(message, "model", "model_not_found"))

    def _whoami(self, served: Served) -> Json:
        token: Object = {"displayName": "emulated", "role": "read"}
        if served.permissions is not None:
            scope: Json = {
                "entity": {"type": "user", "name": "emulated"},
                "permissions": list(served.permissions),
            }
            token |= {"role": "fineGrained", "fineGrained": {"global": [], "scoped": [scope]}}
        return {"type": "user", "name": "emulated", "auth": {"accessToken": token}}


def _pricing(served: Served, who: str) -> Object:
    if not (prices := served.pricing.get(who)):
        return {}
    return {"pricing": {"input": prices[0], "output": prices[1]}}


def _card(name: str, served: Served) -> Object:
    kinds: list[Json] = ["text", "image"] if name in served.seeing else ["text"]
    architecture: Object = {"input_modalities": kinds, "output_modalities": ["text"]}
    providers: list[Json] = [
        {
            "provider": who,
            "status": status,
            "supports_tools": name in served.calling,
            "is_model_author": False,
            **_pricing(served, who),
        }
        for who, status in served.providers.items()
    ]
    card: Object = {"id": name, "object": "model", "created": 0}
    return card | {"architecture": architecture, "providers": providers}


def _call(name: str, arguments: Json, index: int, identity: str) -> Object:
    function: Json = {"name": name, "arguments": arguments}
    return {"index": index, "id": identity, "type": "function", "function": function}


def unsupported(name: str) -> Refused:
    """Refuse a model that exists, and that nobody runs for this account."""
    message = f"The requested model '{name}' is not supported by any provider you have enabled."
    return Refused(400, _of_router(message, "model", "model_not_supported"))


def _of_router(message: str, param: str | None = None, code: str | None = None) -> Json:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _nameless(body: Object) -> str:
    """Return what a server that has several models says to a request that names none."""
    return "" if body.get("model") else "model: Field required"


DIALECTS: Mapping[Flavour, Dialect] = {
    "llama.cpp": LlamaCpp(),
    "vllm": Vllm(),
    "tgi": Tgi(),
    "ollama": Ollama(),
    "router": Router(),
}
