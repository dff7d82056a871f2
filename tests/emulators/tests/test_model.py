"""The model emulator is itself tested with another client than the bot's."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from bot.domain import Json
from tests.emulators.model import Flavour, How, ModelEmulator

ASK = "POST /v1/chat/completions"
QUESTION: Json = [{"role": "user", "content": "How are you?"}]
TIMEOUT = aiohttp.ClientTimeout(30)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    def events(self) -> list[Any]:
        """Return the stream's chunks."""
        lines = [line for line in self.text.split("\n\n") if line.startswith("data: ")]
        texts = [line.removeprefix("data: ") for line in lines]
        return [json.loads(text) for text in texts if text != "[DONE]"]

    def choices(self) -> list[Any]:
        return [event["choices"][0] for event in self.events() if event.get("choices")]

    def said(self) -> str:
        return "".join(choice["delta"].get("content") or "" for choice in self.choices())

    def finish_reason(self) -> Json:
        reason: Json = self.choices()[-1]["finish_reason"]
        return reason


async def call(
    emulator: ModelEmulator, what: str, body: Json = None, *, key: str | None = None
) -> Response:
    """Make a call such as "GET /health" and return its answer."""
    method, path = what.split()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(timeout=TIMEOUT) as session,
        session.request(method, emulator.root + path, json=body, headers=headers) as response,
    ):
        return Response(response.status, await response.text())


async def ask(emulator: ModelEmulator, *, key: str | None = None, **fields: Any) -> Response:
    """Ask for a stream."""
    body: Json = {"model": "emulated", "messages": QUESTION, "stream": True, **fields}
    return await call(emulator, ASK, body, key=key)


async def judged(emulator: ModelEmulator, **fields: Any) -> tuple[int, str, list[str]]:
    """Ask; return the status, what was answered, and which violations were noted."""
    answer = await ask(emulator, **fields)
    noted, emulator.violations[:] = list(emulator.violations), []
    return answer.status, answer.text, noted


# What is said


@pytest.mark.parametrize(
    ("flavour", "first"),
    [
        ("llama.cpp", {"role": "assistant", "content": None}),
        ("vllm", {"role": "assistant", "content": ""}),
        ("tgi", {"role": "assistant", "content": "You said"}),
    ],
)
async def test_an_answer_comes_in_the_flavours_deltas_and_ends_with_done(
    flavour: Flavour, first: Json
) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        response = await ask(emulator)

    deltas = [choice["delta"] for choice in response.choices()]
    opening = [] if flavour == "tgi" else [first["content"]]  # type: ignore[call-overload,index]
    assert deltas[0] == first
    assert [delta["content"] for delta in deltas[:-1]] == [
        *opening,
        *("You said", ": How ar", "e you?"),
    ]
    assert response.finish_reason() == "stop"
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("most", "said", "reason"),
    [
        (4, "One two, three", "length"),
        # The sign of the end would have been one token more.
        (5, "One two, three.", "length"),
        (6, "One two, three.", "stop"),
    ],
)
async def test_max_tokens_cuts_an_answer_and_tells_so(most: int, said: str, reason: str) -> None:
    async with ModelEmulator() as emulator:
        emulator.answer = "One two, three."
        response = await ask(emulator, max_tokens=most)

    assert (response.said(), response.finish_reason()) == (said, reason)


async def test_usage_is_counted_as_the_model_counts() -> None:
    async with ModelEmulator() as emulator:
        emulator.answer = "One two, three."
        unasked = await ask(emulator)
        last = (await ask(emulator, stream_options={"include_usage": True})).events()[-1]

    assert "usage" not in unasked.text
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert (last["choices"], last["usage"]) == ([], usage)


@pytest.mark.parametrize(
    ("flavour", "status", "words"),
    [
        ("vllm", 400, "passed 10 input tokens and requested 11 output tokens"),
        ("vllm", 400, "context length is only 20 tokens"),
        ("vllm", 400, '"type": "BadRequestError", "param": "input_tokens", "code": 400'),
        # In the stream, which has begun.
        ("tgi", 200, '"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 20.'),
        ("tgi", 200, '`max_new_tokens`", "http_status_code": 422}}\n\ndata: [DONE]'),
        ("router", 400, '"code": "context_length_exceeded"'),
    ],
)
async def test_others_want_room_for_the_answer(flavour: Flavour, status: int, words: str) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        emulator.context = 20
        refused, fitting = await ask(emulator, max_tokens=11), await ask(emulator, max_tokens=10)

    assert (refused.status, fitting.said()) == (status, "You said: How are you?")
    assert words in refused.text


async def test_ollama_cuts_a_long_prompt_without_a_word() -> None:
    async with ModelEmulator(flavour="ollama") as emulator:
        emulator.context = 6
        ps = (await call(emulator, "GET /api/ps")).json()
        response = await ask(emulator, stream_options={"include_usage": True})

    assert ps == {"models": [{"name": "emulated", "model": "emulated", "context_length": 6}]}
    assert (response.status, emulator.requests[0].unread > 0) == (200, True)
    assert '"prompt_tokens": 3,' in response.text


# What is recorded


@pytest.mark.parametrize("how", ["drop", "reset", "eof", "garbage", "error_event", "status"])
async def test_a_stream_that_broke_is_not_finished(how: How) -> None:
    async with ModelEmulator() as emulator:
        emulator.fail(ASK, how, at_delta=1)
        with suppress(aiohttp.ClientError):
            await ask(emulator)

    asked = emulator.requests[0]
    assert (asked.status, asked.finished, len(asked.deltas)) == (200, False, 1)


# What goes wrong


# Who answers what


@pytest.mark.parametrize(
    ("flavour", "calls"),
    [
        ("llama.cpp", ["/v1/models", "/props"]),
        ("vllm", ["/v1/models"]),
        ("tgi", ["/v1/models", "/info"]),
        ("ollama", ["/v1/models", "/api/ps"]),
        ("router", ["/v1/models", "/v1/models/emulated", "/api/whoami-v2"]),
    ],
)
async def test_a_flavour_has_what_its_server_has(flavour: Flavour, calls: list[str]) -> None:
    paths = ["/v1/models", "/v1/models/emulated", "/props", "/info", "/api/ps", "/api/whoami-v2"]
    async with ModelEmulator(flavour=flavour) as emulator:
        statuses = {path: (await call(emulator, f"GET {path}")).status for path in paths}
        nowhere = await call(emulator, "POST /v1/nothing")
        strange, emulator.unknown[:] = list(emulator.unknown), []

    assert [path for path, status in statuses.items() if status == 200] == calls
    # What only another kind of server has fails a test, but for what tells the kinds apart.
    assert nowhere.status == 404
    assert "POST /v1/nothing" in strange
    assert {one.removeprefix("GET ") for one in strange}.isdisjoint(calls)


@pytest.mark.parametrize(
    ("flavour", "model", "status", "words"),
    [
        ("router", "org/model", 200, ""),
        ("router", "org/model:fastest", 200, ""),
        ("router", "org/other", 400, '"code": "model_not_found"'),
        ("vllm", "org/other", 404, '"message": "The model `org/other` does not exist."'),
        ("llama.cpp", "org/other", 200, '"model": "org/model"'),
        ("tgi", "org/other", 200, '"model": "org/model"'),
        ("vllm", None, 400, "model: Field required"),
        ("router", None, 400, "model: Field required"),
        ("llama.cpp", None, 200, ""),
        ("tgi", None, 200, ""),
    ],
)
async def test_some_answer_for_their_own_models_only(
    flavour: Flavour, model: str | None, status: int, words: str
) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        emulator.models = ["org/model"]
        found, text, noted = await judged(emulator, model=model)

    assert (found, len(noted)) == (status, int("required" in words))
    assert words in text


@pytest.mark.parametrize("flavour", ["llama.cpp", "vllm", "tgi", "router"])
async def test_a_key_is_asked_for_once_there_is_one(flavour: Flavour) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        emulator.api_key = "right"
        wrong, right = await ask(emulator, key="wrong"), await ask(emulator, key="right")

    assert (wrong.status, right.status) == (401, 200)


# What is against the rules


@pytest.mark.parametrize(
    "broken",
    [
        {"messages": None},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": ["Hello"]},
        {"messages": [{"content": "Hello"}]},
        {"messages": [{"role": "wizard", "content": "Hello"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"model": 5},
        {"stream": "yes"},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_p": 1.1},
        {"stream": False},
        {"stream_options": []},
        {"stream_options": {"include_usage": "yes"}},
    ],
    ids=str,
)
async def test_a_request_against_the_rules_is_refused_and_noted(broken: dict[str, Json]) -> None:
    async with ModelEmulator() as emulator:
        found, text, noted = await judged(emulator, **broken)

    assert found == 400
    assert json.loads(text)["error"]
    assert len(noted) == 1
    assert noted[0].startswith(f"{ASK}: {next(iter(broken))}")


async def test_a_server_has_its_own_limits_and_takes_no_strange_fields() -> None:
    async with ModelEmulator(flavour="tgi") as tgi, ModelEmulator() as other:
        low, _, told = await judged(tgi, top_p=1.0)
        fine = await ask(other, top_p=1.0, temperature=None, max_tokens=None)
        strange, _, noted = await judged(other, top_k=5)
        whole = await call(other, ASK, [1])

        assert other.violations.pop().startswith(f"{ASK}: body: ")
    assert (low, fine.status, strange, whole.status) == (400, 200, 400, 400)
    assert "must be > 0.0 and < 1.0" in told[0]
    assert "top_k" in noted[0]


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ("user", ""),
        ("system user assistant user", ""),
        ("user user", "must alternate user/assistant"),
        ("system assistant user", "must alternate user/assistant"),
        ("user system assistant", "must alternate user/assistant"),
        ("system system user", "must alternate user/assistant"),
        ("system", "Expected last role User or Tool"),
        ("user assistant", "Expected last role User or Tool"),
        ("user silence user", "must have either content or tool_calls"),
    ],
)
async def test_a_template_wants_user_and_assistant_by_turns(roles: str, words: str) -> None:
    named = [role.replace("silence", "assistant") for role in roles.split()]
    silent = [role == "silence" for role in roles.split()]
    messages: Json = [
        {"role": role, "content": " " if mute else "Hi"}
        for role, mute in zip(named, silent, strict=True)
    ]
    async with ModelEmulator() as emulator:
        found, text, noted = await judged(emulator, messages=messages)

    assert (found, len(noted)) == ((400, 1) if words else (200, 0))
    assert words in text


async def test_leaving_tells_of_every_breach_and_hides_no_other_error() -> None:
    async def leave(kind: str, *, errs: bool = False) -> None:
        async with ModelEmulator() as emulator:
            if kind == "fault":
                emulator.fail("something", "reset")
            else:
                getattr(emulator, kind).append("something")
            if errs:
                raise KeyError

    for kind in ("unknown", "violations", "fault"):
        with pytest.raises(AssertionError, match="something"):
            await leave(kind)
    with pytest.raises(KeyError):
        await leave("violations", errs=True)


async def test_a_failure_of_the_emulator_itself_fails_the_test() -> None:
    def answer(_: list[dict[str, str]]) -> str:
        raise KeyError("no such answer")

    async with ModelEmulator() as emulator:
        emulator.answer = answer
        status, _, noted = await judged(emulator)

    assert status == 500
    assert noted == ["the emulator failed: KeyError('no such answer')"]
