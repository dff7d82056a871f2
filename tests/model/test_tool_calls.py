"""Pieces of calls become calls, in whatever way a server cuts them."""

from __future__ import annotations

import json

import pytest

from bot.domain import Json, ToolCall
from bot.model.tool_calls import CallReader

HOT = ('{"city": "Rome"}', '{"city": "Oslo"}')


def piece(name: str | None, arguments: Json, **more: Json) -> Json:
    function: dict[str, Json] = {"arguments": arguments}
    return {**more, "function": function if name is None else {**function, "name": name}}


def read(*events: Json) -> list[tuple[str, str]]:
    reader = CallReader()
    for event in events:
        reader.add(event)
    return [(one.name, one.arguments) for one in reader.calls()]


BOTH = [("weather", HOT[0]), ("weather", HOT[1])]
STREAMS: dict[str, list[Json]] = {
    "OpenAI": [
        [piece("weather", "", index=0, id="a")],
        [piece(None, '{"city": ', index=0)],
        [piece("weather", "", index=1, id="b")],
        [piece(None, '"Rome"}', index=0), piece(None, HOT[1], index=1)],
    ],
    "SGLang, which says null for what is missing": [
        [{"index": 0, "id": "a", "function": {"name": "weather", "arguments": None}}],
        [{"index": 0, "id": None, "function": {"name": None, "arguments": HOT[0]}}],
        [{"index": 1, "id": "b", "function": {"name": "weather", "arguments": ""}}],
        [{"index": 1, "id": None, "function": {"name": "", "arguments": HOT[1]}}],
    ],
    "a server that repeats id and name": [
        [piece("weather", it, index=index, id=f"{index}")]
        for index, arguments in enumerate(HOT)
        for it in (arguments[:5], arguments[5:])
    ],
    "Ollama, with one index": [
        [piece("weather", arguments, index=0, id=f"call_{place}")]
        for place, arguments in enumerate(HOT)
    ],
    "Ollama, without an index": [
        [piece("weather", HOT[0], id="a"), piece("weather", HOT[1], id="b")]
    ],
    "without index and id": [[piece("weather", arguments)] for arguments in HOT],
    "arguments that are no text": [
        piece("weather", json.loads(arguments), index=index, id=f"{index}")
        for index, arguments in enumerate(HOT)
    ],
    "a name in pieces": [
        [piece("wea", "", index=0, id="a")],
        [piece("ther", HOT[0], index=0)],
        [piece("weather", HOT[1], index=1, id="b")],
    ],
}


@pytest.mark.parametrize("kind", STREAMS)
def test_pieces_of_each_dialect_become_two_calls(kind: str) -> None:
    assert read(*STREAMS[kind]) == BOTH


@pytest.mark.parametrize(
    "event",
    [
        None,
        "call",
        7,
        [None, [], "x", {}],
        [{"index": 0, "id": "a", "function": "weather"}],
        [{"index": [0], "id": {}, "function": {}}],
        [piece(None, HOT[0], index=0)],
        [piece("", HOT[0], index=0, id="a")],
    ],
)
def test_what_is_no_call_is_none(event: Json) -> None:
    assert read(event, event) == []


def test_pieces_of_calls_that_are_too_many_belong_to_none() -> None:
    events: list[Json] = [[piece(f"t{number}", "{", index=number)] for number in range(20)]
    rest: list[Json] = [[piece(None, "}", index=number)] for number in range(20)]

    assert read(*events, *rest) == [(f"t{number}", "{}") for number in range(8)]


def test_a_call_without_arguments_has_none() -> None:
    reader = CallReader()
    reader.add([{"index": 0, "id": "a", "function": {"name": "now"}}])

    assert reader.calls() == [ToolCall("a", "now", "")]
