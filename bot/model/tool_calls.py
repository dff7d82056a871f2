"""A model's calls of tools: joined from the pieces of a stream, and written into a request."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import ChatCompletionInputFunctionDefinition, ChatCompletionInputTool

from bot.domain import Json, Tool, ToolCall
from bot.model.server import parsed_object
from bot.model.server_info import objects
from bot.text.sanitize import without_marks

MOST_CALLS = 8  # of an answer; further ones are not read
MOST_ARGUMENTS = 20_000  # characters; of longer ones, one more is read
_MOST_OF_NAME = 64  # characters, also of an id
_NOT_OF_NAME = re.compile(r"[^A-Za-z0-9_-]+")
# What a server without a parser for them passes on as text: Mistral's calls, those of Qwen and
# Hermes, and those of Llama.
_SPELLED = ("[TOOL_CALLS]", "<tool_call>", "<|python_tag|>")


@dataclass(slots=True)
class _Pieces:
    id: str
    name: str = ""
    arguments: str = ""


class CallReader:
    """Joins the pieces of calls as servers stream them.

    An `index` tells whose piece it is, and only the first one has an id and a name (OpenAI). Ollama
    sends whole calls, all with the same index or without one (ollama issues 7881 and 15457), older
    text-generation-inference an object in place of a list, and others arguments that are no text.
    """

    def __init__(self) -> None:
        self._calls: list[_Pieces] = []
        self._by_index: dict[int | None, _Pieces] = {}

    def __bool__(self) -> bool:
        return any(one.name for one in self._calls)

    def add(self, pieces: Json) -> int:
        """Add the pieces in one event, and return how many characters they have."""
        characters = 0
        for piece in objects(pieces if isinstance(pieces, list) else [pieces]):
            function = piece.get("function")
            if not isinstance(function, dict):
                continue
            index, identity = piece.get("index"), _text(piece.get("id"))
            name, arguments = _text(function.get("name")), _text(function.get("arguments"))
            characters += len(name) + len(arguments)
            if call := self._call(index if isinstance(index, int) else None, identity, name):
                if name != call.name:
                    call.name = (call.name + name)[:_MOST_OF_NAME]
                call.arguments += arguments[: MOST_ARGUMENTS + 1 - len(call.arguments)]
        return characters

    def calls(self) -> list[ToolCall]:
        """Return the calls that have a name."""
        return [
            ToolCall(
                one.id[:_MOST_OF_NAME],
                _NOT_OF_NAME.sub("_", one.name.strip()),
                without_marks(one.arguments, last=""),
            )
            for one in self._calls
            if one.name
        ]

    def _call(self, index: int | None, identity: str, name: str) -> _Pieces | None:
        """Return the call to which a piece belongs; None if it is one too many."""
        call = self._by_index.get(index)
        if call and not (name and (index is None or (identity and identity != call.id))):
            return call
        if len(self._calls) == MOST_CALLS:
            return None
        call = self._by_index[index] = _Pieces(identity)
        self._calls.append(call)
        return call


def may_be_spelled(text: str) -> bool:
    """Whether a text begins as a call that was meant for the server does."""
    begun = text.lstrip()
    return any(begun.startswith(mark) or mark.startswith(begun) for mark in _SPELLED)


def is_spelled(text: str) -> bool:
    """Whether a text is a call that was meant for the server."""
    return text.lstrip().startswith(_SPELLED)


def written_tools(tools: Sequence[Tool]) -> list[ChatCompletionInputTool]:
    """Return tools as a request has them."""
    return [
        ChatCompletionInputTool(
            type="function",
            function=ChatCompletionInputFunctionDefinition(
                name=one.name, description=one.description, parameters=dict(one.schema)
            ),
        )
        for one in tools
    ]


def written_call(call: ToolCall) -> dict[str, Json]:
    """Return a call as an answer in a prompt has it.

    Templates and servers read its arguments, so those that are no JSON object are left out.
    """
    arguments = call.arguments if parsed_object(call.arguments) else "{}"
    function: Json = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
