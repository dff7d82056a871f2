"""The model emulator is itself tested with another client than the bot's."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import pytest

from bot.domain import Json
from tests.emulators.model import Flavour, How, ModelEmulator, Piece
from tests.emulators.model.speech import pieces
from tests.support.waiting import at_least, until

ASK = "POST /v1/chat/completions"
QUESTION: Json = [{"role": "user", "content": "How are you?"}]
TIMEOUT = aiohttp.ClientTimeout(30)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> dict[str, Json]:
        found: dict[str, Json] = json.loads(self.text)
        return found

    def events(self) -> list[dict[str, Json]]:
        """Return the stream's chunks."""
        lines = [line for line in self.text.split("\n\n") if line.startswith("data: ")]
        texts = [line.removeprefix("data: ") for line in lines]
        return [json.loads(text) for text in texts if text != "[DONE]"]

    def deltas(self) -> list[dict[str, Json]]:
        """Return what the chunks with a choice say."""
        return [_choice(event)["delta"] for event in self.events() if event.get("choices")]  # type: ignore[misc]

    def contents(self) -> list[Json]:
        return [delta["content"] for delta in self.deltas() if "content" in delta]

    def said(self) -> str:
        return "".join(str(content or "") for content in self.contents())

    def finish_reason(self) -> Json:
        return _choice([event for event in self.events() if event["choices"]][-1])["finish_reason"]


def _choice(event: dict[str, Json]) -> dict[str, Json]:
    choices = event["choices"]
    assert isinstance(choices, list)
    choice = choices[0]
    assert isinstance(choice, dict)
    return choice


async def call(
    emulator: ModelEmulator,
    what: str,
    body: Json = None,
    *,
    key: str | None = None,
    session: aiohttp.ClientSession | None = None,
) -> Response:
    """Make a call such as "GET /health" and return its answer."""
    method, path = what.split()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(timeout=TIMEOUT) as own:
        request = (session or own).request(method, emulator.root + path, json=body, headers=headers)
        async with request as response:
            return Response(response.status, response.headers.copy(), await response.text())


async def ask(
    emulator: ModelEmulator, *, session: aiohttp.ClientSession | None = None, **fields: Json
) -> Response:
    """Ask for a stream."""
    body: Json = {"model": "emulated", "messages": QUESTION, "stream": True, **fields}
    return await call(emulator, ASK, body, session=session)


class TestStreams:
    async def test_an_answer_comes_in_deltas_and_ends_with_done(self) -> None:
        async with ModelEmulator() as emulator:
            response = await ask(emulator)

        assert response.contents() == [None, "You said", ": How ar", "e you?"]
        assert response.finish_reason() == "stop"
        assert response.text.endswith("data: [DONE]\n\n")

    async def test_the_answer_may_be_a_function_of_the_messages(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = lambda messages: f"{len(messages)} message"

            assert (await ask(emulator)).said() == "1 message"

    async def test_a_script_has_its_own_pieces_and_pauses(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.first_delay = emulator.delay = 60
            emulator.answer = [(0, "One"), (0.05, " and then"), (0.2, " two.")]
            response = await ask(emulator)

        first, second, third = emulator.requests[0].deltas
        assert response.contents() == [None, "One", " and then", " two."]
        assert second.at - first.at >= at_least(0.05)
        assert third.at - second.at >= at_least(0.2)

    async def test_a_function_may_return_a_script(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = lambda messages: [(0, messages[0]["content"]), (0, "!")]

            assert (await ask(emulator)).contents() == [None, "How are you?", "!"]

    async def test_a_script_may_have_chunks_that_say_nothing(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = [Piece(0, what="empty"), Piece(0, what="null"), (0, "Yes.")]
            response = await ask(emulator)

        assert response.events()[1]["choices"] == []
        assert response.contents() == [None, None, "Yes."]
        assert [delta.text for delta in emulator.requests[0].deltas] == ["Yes."]

    async def test_a_script_may_have_comments(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = [Piece(0, "wait", "comment"), (0, "Yes.")]
            response = await ask(emulator, max_tokens=3)

        assert "\n\n: wait\n\ndata: " in response.text
        assert [delta.text for delta in emulator.requests[0].deltas] == ["Yes."]

    async def test_what_a_model_thinks_is_no_part_of_its_answer(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = [Piece(0, "Hm, let me see.", "reasoning"), (0, "Yes.")]
            streamed = await ask(emulator)
            whole = await call(emulator, ASK, {"messages": QUESTION})

        assert {"reasoning_content": "Hm, let me see."} in streamed.deltas()
        assert streamed.said() == "Yes."
        message = _choice(whole.json())["message"]
        assert message == {
            "role": "assistant",
            "content": "Yes.",
            "reasoning_content": "Hm, let me see.",
        }

    async def test_speed_is_deltas_per_second(self) -> None:
        async with ModelEmulator() as emulator:
            assert emulator.speed == math.inf
            emulator.speed = 50
            emulator.chunk = 3
            emulator.answer = "one two three"
            await ask(emulator)

        deltas = emulator.requests[0].deltas
        assert [delta.text for delta in deltas] == ["one", " tw", "o t", "hre", "e"]
        assert deltas[-1].at - deltas[0].at >= at_least(4 / 50)

    async def test_the_first_token_may_be_slow(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.first_delay = 0.1
            await ask(emulator)

        asked = emulator.requests[0]
        assert asked.first_delta_at is not None
        assert asked.first_delta_at - asked.at >= at_least(0.1)
        assert asked.last_delta_at == asked.deltas[-1].at

    def test_a_slow_first_token_slows_no_other(self) -> None:
        found = pieces("one two", chunk=3, first_delay=9, delay=1)

        assert [piece.pause for piece in found] == [9, 1, 1]

    @pytest.mark.parametrize(
        ("flavour", "first"),
        [
            ("llama.cpp", {"role": "assistant", "content": None}),
            ("vllm", {"role": "assistant", "content": ""}),
            ("tgi", {"role": "assistant", "content": "You said"}),
        ],
    )
    async def test_the_first_chunk_is_that_of_the_flavour(
        self, flavour: Flavour, first: Json
    ) -> None:
        async with ModelEmulator(flavour=flavour) as emulator:
            assert (await ask(emulator)).deltas()[0] == first

    async def test_an_answer_that_is_not_streamed_comes_whole(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.delay = 0.02
            response = await call(emulator, ASK, {"messages": QUESTION})

        choice = _choice(response.json())
        asked = emulator.requests[0]
        assert choice["message"] == {"role": "assistant", "content": "You said: How are you?"}
        assert choice["finish_reason"] == "stop"
        assert [delta.text for delta in asked.deltas] == ["You said: How are you?"]
        assert asked.deltas[0].at - asked.at >= at_least(2 * 0.02)
        assert asked.finished

    async def test_the_end_of_a_stream_can_be_chosen(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.finish_reason, emulator.done = "error", "data:[DONE]"
            response = await ask(emulator)

        assert '"finish_reason": "error"' in response.text
        assert response.text.endswith("\n\ndata:[DONE]\n\n")


class TestLimits:
    async def test_max_tokens_cuts_an_answer_and_tells_so(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = "One two, three four five."
            response = await ask(emulator, max_tokens=4)

        assert response.said() == "One two, three"
        assert response.finish_reason() == "length"

    async def test_an_answer_that_just_reaches_max_tokens_counts_as_cut(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = "One two, three."
            response = await ask(emulator, max_tokens=5)

        assert response.said() == "One two, three."
        assert response.finish_reason() == "length"

    async def test_an_answer_within_max_tokens_is_whole(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = "One two, three."
            response = await ask(emulator, max_completion_tokens=6)

        assert response.said() == "One two, three."
        assert response.finish_reason() == "stop"

    @pytest.mark.parametrize("stop", [" three", ["four", " three"]])
    async def test_an_answer_ends_before_a_stop_string(self, stop: Json) -> None:
        async with ModelEmulator() as emulator:
            emulator.chunk = 5
            emulator.answer = "One two three four"
            response = await ask(emulator, stop=stop)

        assert response.contents() == [None, "One t", "wo"]
        assert response.finish_reason() == "stop"

    async def test_limits_cut_a_script_too(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = [Piece(0, "Hm.", "reasoning"), (0, "One"), (0, " two"), (0, " three")]
            response = await ask(emulator, max_tokens=4)

        assert response.said() == "One two"
        assert response.finish_reason() == "length"

    async def test_usage_is_counted_as_the_tokenizer_counts(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = "One two, three."
            options: Json = {"include_usage": True}
            last = (await ask(emulator, stream_options=options)).events()[-1]
            prompt = await call(emulator, "POST /apply-template", {"messages": QUESTION})
            counted = await call(emulator, "POST /tokenize", {"content": prompt.json()["prompt"]})

        tokens = counted.json()["tokens"]
        assert isinstance(tokens, list)
        assert last["choices"] == []
        assert last["usage"] == {
            "prompt_tokens": len(tokens),
            "completion_tokens": 5,
            "total_tokens": len(tokens) + 5,
        }

    async def test_usage_comes_unasked_only_when_it_is_to(self) -> None:
        async with ModelEmulator() as emulator:
            unasked = await ask(emulator)
            emulator.usage = True
            usage = (await ask(emulator)).events()[-1]

        assert "usage" not in unasked.text
        assert usage["choices"] == []

    async def test_llama_cpp_says_how_much_too_long_a_prompt_is(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.context = 10
            response = await ask(emulator)

        assert response.status == 400
        assert response.json()["error"] == {
            "code": 400,
            "message": "request (10 tokens) exceeds the available context size (10 tokens),"
            " try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 10,
            "n_ctx": 10,
        }

    async def test_llama_cpp_fills_the_context_and_stops_there(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.context = 12
            response = await ask(emulator, max_tokens=50)

        assert response.said() == "You said"
        assert response.finish_reason() == "length"

    async def test_vllm_wants_room_for_the_answer(self) -> None:
        async with ModelEmulator(flavour="vllm") as emulator:
            emulator.context = 20
            response = await ask(emulator, max_tokens=11)
            fitting = await ask(emulator, max_tokens=10)
            emulator.context = 10
            unlimited = await ask(emulator)

        error = response.json()["error"]
        assert isinstance(error, dict)
        assert (response.status, fitting.status, unlimited.status) == (400, 200, 400)
        assert (error["type"], error["param"], error["code"]) == (
            "BadRequestError",
            "input_tokens",
            400,
        )
        assert "passed 10 input tokens and requested 11 output tokens" in str(error["message"])
        assert "context length is only 20 tokens" in str(error["message"])

    async def test_tgi_refuses_in_the_stream_what_it_refuses_with_a_status_otherwise(self) -> None:
        words = (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 20."
            " Given: 10 `inputs` tokens and 11 `max_new_tokens`"
        )
        async with ModelEmulator(flavour="tgi") as emulator:
            emulator.context = 20
            streamed = await ask(emulator, max_tokens=11)
            whole = await call(emulator, ASK, {"messages": QUESTION, "max_tokens": 11})

        assert streamed.status == 200
        assert streamed.events() == [{"error": {"message": words, "http_status_code": 422}}]
        assert whole.status == 422
        assert whole.json() == {"error": words, "error_type": "validation"}

    async def test_the_router_names_the_limit_with_a_code(self) -> None:
        async with ModelEmulator(flavour="router") as emulator:
            emulator.context = 20
            response = await ask(emulator, max_tokens=11)

        assert response.status == 400
        assert '"code": "context_length_exceeded"' in response.text


class TestRecords:
    async def test_a_request_is_kept_with_what_became_of_it(self) -> None:
        before = time.monotonic()
        async with ModelEmulator() as emulator:
            await call(emulator, ASK, {"messages": QUESTION, "stream": True}, key="k")
            after = time.monotonic()

        asked = emulator.requests[0]
        assert asked.call == ASK
        assert asked.messages == QUESTION
        assert asked.headers["Authorization"] == "Bearer k"
        assert (asked.status, asked.finished, asked.hung_up_at) == (200, True, None)
        assert [delta.text for delta in asked.deltas] == ["You said", ": How ar", "e you?"]
        times = [before, asked.at, *(delta.at for delta in asked.deltas), after]
        assert times == sorted(times)

    async def test_counting_tokens_is_no_completion(self) -> None:
        async with ModelEmulator() as emulator:
            await call(emulator, "POST /tokenize", {"content": "Hello"})

        assert emulator.requests == []
        assert (emulator.most_running, emulator.connections) == (0, 0)

    async def test_a_request_is_dated_when_it_arrives(self) -> None:
        body = json.dumps({"messages": QUESTION}).encode()
        async with ModelEmulator() as emulator:
            emulator.latency = 0.2
            reader, writer = await asyncio.open_connection(*emulator.root[7:].split(":"))
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            await reader.readuntil(b"100 Continue\r\n\r\n")
            # From here on it waits for the body.
            sent = time.monotonic()
            await asyncio.sleep(0.01)
            writer.write(body)
            answer = await reader.read()
            writer.close()

        assert b"You said: How are you?" in answer
        assert emulator.requests[0].at <= sent

    @pytest.mark.parametrize("how", ["drop", "reset", "eof", "garbage", "error_event", "status"])
    async def test_a_stream_that_broke_is_not_finished(self, how: How) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, how, at_delta=1)
            with suppress(aiohttp.ClientError):
                await ask(emulator)

        asked = emulator.requests[0]
        assert (asked.status, asked.finished, len(asked.deltas)) == (200, False, 1)

    async def test_a_limited_request_is_told_apart(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, status=429)
            await ask(emulator)
            await ask(emulator)

        assert [asked.limited for asked in emulator.requests] == [True, False]

    async def test_a_client_that_leaves_is_noticed_when_it_does(self) -> None:
        async with ModelEmulator() as emulator, aiohttp.ClientSession() as session:
            emulator.answer = [(0, "One"), (300, " two")]
            asking = asyncio.create_task(ask(emulator, session=session))
            await until(lambda: emulator.requests and emulator.requests[0].deltas)
            left = time.monotonic()
            asking.cancel()
            await until(lambda: emulator.running == 0)

        asked = emulator.requests[0]
        assert asked.hung_up_at is not None
        assert left <= asked.hung_up_at <= time.monotonic()
        assert not asked.finished
        assert emulator.most_running == 1

    async def test_a_client_that_leaves_at_any_write_is_no_failure_of_the_emulator(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = json.dumps({"messages": QUESTION, "stream": True})
        async with ModelEmulator() as emulator:
            address = urlsplit(emulator.url)
            head = f"POST {address.path}/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            for turns in range(30):
                _, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write((head + body).encode())
                for _ in range(turns):
                    await asyncio.sleep(0)
                writer.transport.abort()
            await until(lambda: emulator.running == 0)
            hung_up = [asked for asked in emulator.requests if asked.hung_up_at]

        assert hung_up
        assert caplog.text == ""

    async def test_a_client_that_is_cut_off_did_not_leave(self) -> None:
        async with aiohttp.ClientSession() as session:
            async with ModelEmulator() as emulator:
                emulator.answer = [(0, "One"), (300, " two")]
                asking = asyncio.create_task(ask(emulator, session=session))
                await until(lambda: emulator.requests and emulator.requests[0].deltas)
            with pytest.raises(aiohttp.ClientPayloadError):
                await asking

        assert emulator.requests[0].hung_up_at is None
        assert not emulator.requests[0].finished

    async def test_connections_are_counted_by_socket(self) -> None:
        async with ModelEmulator() as emulator:
            async with aiohttp.ClientSession() as session:
                await ask(emulator, session=session)
                await ask(emulator, session=session)
            await ask(emulator)

        assert emulator.connections == 2


class TestFaults:
    async def test_a_status_is_answered_as_often_as_asked(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, status=429, retry_after=6.2, times=2, after=1)
            answers = [await ask(emulator) for _ in range(4)]

        assert [answer.status for answer in answers] == [200, 429, 429, 200]
        assert [answer.headers.get("Retry-After") for answer in answers] == [None, "7", "7", None]

    @pytest.mark.parametrize(
        ("headers", "found"), [({"X-Served-By": "test"}, "7"), ({"retry-after": "9"}, "9")]
    )
    async def test_given_headers_stand_beside_retry_after_or_for_it(
        self, headers: dict[str, str], found: str
    ) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, status=429, retry_after=7, headers=headers)
            answer = await ask(emulator)

        (name,) = headers
        assert answer.headers[name] == headers[name]
        assert [value for key, value in answer.headers.items() if key.lower() == "retry-after"] == [
            found
        ]

    @pytest.mark.parametrize(
        ("body", "text"), [("<html>", "<html>"), ({"error": "no"}, '{"error": "no"}'), ("", "")]
    )
    async def test_a_body_is_sent_as_it_is_or_as_json(self, body: object, text: str) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, status=502, body=body, headers={"X-Served-By": "test"})
            answer = await ask(emulator)

        assert (answer.status, answer.text) == (502, text)
        assert answer.headers["X-Served-By"] == "test"

    async def test_a_refusal_may_be_chunked(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, status=422, headers={"Transfer-Encoding": "chunked"})
            answer = await ask(emulator)

        assert "Content-Length" not in answer.headers
        assert answer.json()["error"]

    @pytest.mark.parametrize(
        ("flavour", "error"),
        [
            ("llama.cpp", {"code": 500, "message": "emulated failure 500", "type": "server_error"}),
            (
                "vllm",
                {
                    "code": 500,
                    "message": "emulated failure 500",
                    "type": "InternalServerError",
                    "param": None,
                },
            ),
            ("tgi", "emulated failure 500"),
            ("router", "emulated failure 500"),
        ],
    )
    async def test_without_a_body_the_error_is_the_flavours(
        self, flavour: Flavour, error: Json
    ) -> None:
        async with ModelEmulator(flavour=flavour) as emulator:
            emulator.fail(ASK)

            assert (await ask(emulator)).json()["error"] == error

    @pytest.mark.parametrize("how", ["drop", "reset"])
    async def test_a_connection_ends_before_headers(self, how: How) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, how)

            with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
                await ask(emulator)
            assert emulator.requests[0].status is None

    @pytest.mark.parametrize("how", ["drop", "reset"])
    async def test_a_connection_ends_within_a_stream(self, how: How) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, how, at_delta=1)

            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
                await ask(emulator)
            assert [delta.text for delta in emulator.requests[0].deltas] == ["You said"]

    async def test_a_stream_may_end_early_in_good_order(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "eof", at_delta=1)
            answer = await ask(emulator)

        assert answer.said() == "You said"
        assert "[DONE]" not in answer.text

    @pytest.mark.parametrize("how", ["error_event", "status"])
    async def test_a_failure_beyond_the_last_delta_still_happens(self, how: How) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, how, status=503, at_delta=99)
            answer = await ask(emulator)

        assert answer.events()[-1]["error"]
        assert '"code": 503' in answer.text
        assert "[DONE]" not in answer.text

    @pytest.mark.parametrize(
        ("body", "line"),
        [
            (None, 'data: {"choices": ['),
            ("}", "data: }"),
            ("data:[DONE]", "data:[DONE]"),
            ([1], "data: [1]"),
        ],
    )
    async def test_a_line_of_a_stream_may_be_garbage(self, body: object, line: str) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "garbage", body=body)
            answer = await ask(emulator)

        assert answer.text == f"{line}\n\n"

    @pytest.mark.parametrize("at_delta", [None, 0, 1])
    async def test_a_hanging_request_lasts_until_its_client_leaves(
        self, at_delta: int | None
    ) -> None:
        async with ModelEmulator() as emulator, aiohttp.ClientSession() as session:
            emulator.fail(ASK, "hang", at_delta=at_delta)
            asking = asyncio.create_task(ask(emulator, session=session))
            await until(lambda: emulator.running == 1)
            if at_delta:
                await until(lambda: emulator.requests[0].deltas)
            asking.cancel()
            await until(lambda: emulator.running == 0)

        assert emulator.requests[0].hung_up_at
        assert len(emulator.requests[0].deltas) == (at_delta or 0)

    async def test_a_hanging_request_does_not_keep_the_emulator(self) -> None:
        # aiohttp would wait for a minute.
        async with asyncio.timeout(30), ModelEmulator() as emulator:
            emulator.fail(ASK, "hang")
            asking = asyncio.create_task(ask(emulator))
            await until(lambda: emulator.running == 1)

        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await asking

    @pytest.mark.parametrize("at_delta", [None, 2])
    async def test_an_answer_may_be_late_and_right(self, at_delta: int | None) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "late", seconds=0.1, at_delta=at_delta)
            answer = await ask(emulator)

        asked = emulator.requests[0]
        times = [asked.at, *(delta.at for delta in asked.deltas)]
        late = times[(at_delta or 0) + 1] - times[at_delta or 0]
        assert answer.said() == "You said: How are you?"
        assert asked.finished
        assert late >= at_least(0.1)

    async def test_latency_lies_around_the_work_of_every_call(self) -> None:
        worked_at: list[float] = []

        def answer(_: list[dict[str, str]]) -> str:
            worked_at.append(time.monotonic())
            return "Yes."

        async with ModelEmulator() as emulator:
            emulator.answer, emulator.latency = answer, 0.2
            await ask(emulator)
            began = time.monotonic()
            await call(emulator, "POST /tokenize", {"content": "Hello"})
            counted = time.monotonic()
            emulator.fail(ASK)
            await ask(emulator)
            failed = time.monotonic()

        asked = emulator.requests[0]
        assert worked_at[0] - asked.at >= at_least(0.1)
        assert asked.deltas[0].at - worked_at[0] >= at_least(0.1)
        assert counted - began >= at_least(0.2)
        assert failed - counted >= at_least(0.2)

    async def test_an_applied_failure_still_asks_for_the_answer(self) -> None:
        questions: list[str] = []

        def answer(messages: list[dict[str, str]]) -> str:
            questions.append(messages[-1]["content"])
            return "Yes."

        async with ModelEmulator() as emulator:
            emulator.answer = answer
            emulator.fail(ASK, status=500)
            emulator.fail(ASK, status=500, applied=True)
            await ask(emulator)
            assert questions == []
            await ask(emulator)

        assert questions == ["How are you?"]

    async def test_a_fault_finds_its_call(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail("POST /tokenize", status=503)

            assert (await ask(emulator)).status == 200
            assert (await call(emulator, "POST /tokenize")).status == 503

    async def test_healing_ends_all_faults(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, times=9)
            emulator.fail(ASK, "eof", times=9)
            await ask(emulator)
            emulator.heal()
            healed = await ask(emulator)
            emulator.fail(ASK, status=503)
            broken = await ask(emulator)

        assert healed.said() == "You said: How are you?"
        assert broken.status == 503

    @pytest.mark.parametrize(
        ("how", "text"), [("garbage", '{"choices": ['), ("error_event", '{"error": ')]
    )
    async def test_an_answer_that_is_not_streamed_is_spoilt_as_well(
        self, how: How, text: str
    ) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, how, at_delta=3)
            answer = await call(emulator, ASK, {"messages": QUESTION})

        assert answer.text.startswith(text)
        assert not emulator.requests[0].finished

    async def test_what_is_not_streamed_has_no_deltas_to_wait_for(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, status=503, at_delta=1)

            assert (await call(emulator, ASK, {"messages": QUESTION})).status == 503

    async def test_an_answer_that_is_not_streamed_may_end_early(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "eof")
            answer = await call(emulator, ASK, {"messages": QUESTION})

        with pytest.raises(json.JSONDecodeError):
            answer.json()

    async def test_a_port_can_be_closed_and_opened_again(self) -> None:
        async with ModelEmulator() as emulator, aiohttp.ClientSession() as session:
            await ask(emulator, session=session)
            await emulator.refuse_connections()
            # Neither a new connection nor the one that is kept.
            for each in (session, None):
                with pytest.raises(aiohttp.ClientConnectionError):
                    await ask(emulator, session=each)
            await emulator.accept_connections()

            assert (await ask(emulator)).status == 200
        assert len(emulator.requests) == 2

    async def test_an_answer_under_way_ends_whole_though_the_port_is_closed(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer = [(0, "One"), (0.1, " two.")]
            asking = asyncio.create_task(ask(emulator))
            await until(lambda: emulator.requests and emulator.requests[0].deltas)
            await emulator.refuse_connections()
            await emulator.refuse_connections()

            assert (await asking).said() == "One two."


class TestEndpoints:
    @pytest.mark.parametrize(
        ("flavour", "calls"),
        [
            ("llama.cpp", ["POST /tokenize", "POST /apply-template"]),
            ("vllm", ["POST /tokenize"]),
            ("tgi", ["POST /tokenize"]),
            ("ollama", []),
            ("router", []),
        ],
    )
    async def test_a_flavour_has_what_its_server_has(
        self, flavour: Flavour, calls: list[str]
    ) -> None:
        bodies: dict[str, Json] = {
            "POST /tokenize": {"content": "Hi", "prompt": "Hi", "inputs": "Hi"},
            "POST /apply-template": {"messages": QUESTION},
        }
        async with ModelEmulator(flavour=flavour) as emulator:
            statuses = {what: (await call(emulator, what, bodies[what])).status for what in bodies}
            strange, emulator.unknown[:] = list(emulator.unknown), []

        assert [what for what, status in statuses.items() if status == 200] == calls
        # What only another kind of server has fails a test, too.
        assert strange == [what for what, status in statuses.items() if status == 404]
        assert {*calls, *strange} == {*bodies}

    @pytest.mark.parametrize(
        ("model", "code"),
        [
            ("org/model", None),
            ("org/model:fastest", None),
            ("org/other", "model_not_found"),
        ],
    )
    async def test_the_router_knows_its_models_by_name(self, model: str, code: str | None) -> None:
        async with ModelEmulator(flavour="router") as emulator:
            emulator.models = ["org/model"]
            answer = await ask(emulator, model=model)

        if code is None:
            assert answer.said()
        else:
            assert answer.status == 400
            assert f'"code": "{code}"' in answer.text

    async def test_vllm_answers_for_its_own_models_only(self) -> None:
        async with ModelEmulator(flavour="vllm") as emulator:
            found, missing = await ask(emulator, model="emulated"), await ask(emulator, model="x")

        assert (found.status, missing.status) == (200, 404)
        assert '"message": "The model `x` does not exist."' in missing.text

    async def test_ollama_cuts_a_long_prompt_without_a_word(self) -> None:
        async with ModelEmulator(flavour="ollama") as emulator:
            emulator.context = 6
            ps = (await call(emulator, "GET /api/ps")).json()
            response = await ask(emulator, stream_options={"include_usage": True})

        assert ps == {"models": [{"name": "emulated", "model": "emulated", "context_length": 6}]}
        assert (response.status, emulator.requests[0].unread > 0) == (200, True)
        assert '"prompt_tokens": 3,' in response.text

    @pytest.mark.parametrize("flavour", ["llama.cpp", "tgi"])
    async def test_others_answer_with_what_they_have(self, flavour: Flavour) -> None:
        async with ModelEmulator(flavour=flavour) as emulator:
            answer = await ask(emulator, model="anything")

        assert answer.events()[0]["model"] == "emulated"

    async def test_llama_cpp_tokenizes_content(self) -> None:
        async with ModelEmulator() as emulator:
            body: Json = {"content": "Hello, big world", "with_pieces": True}
            pieces = (await call(emulator, "POST /tokenize", body)).json()["tokens"]
            ids = (await call(emulator, "POST /tokenize", {"content": "Hello, big world"})).json()

        assert isinstance(pieces, list)
        each = [piece for piece in pieces if isinstance(piece, dict)]
        assert [piece["piece"] for piece in each] == ["Hello", ",", " big", " world"]
        assert ids == {"tokens": [piece["id"] for piece in each]}

    async def test_vllm_tokenizes_prompts_and_messages(self) -> None:
        async with ModelEmulator(flavour="vllm") as emulator:
            emulator.context = 512
            prompt: Json = {"prompt": "Hello, world", "return_token_strs": True}
            text = (await call(emulator, "POST /tokenize", prompt)).json()
            chat = (await call(emulator, "POST /tokenize", {"messages": QUESTION})).json()
            nothing = await call(emulator, "POST /tokenize", {"content": "Hello"})

        assert (text["count"], text["max_model_len"]) == (3, 512)
        assert text["token_strs"] == ["Hello", ",", " world"]
        assert (chat["count"], chat["token_strs"]) == (10, None)
        assert nothing.status == 400

    async def test_tgi_tokenizes_inputs_and_says_where_they_stand(self) -> None:
        async with ModelEmulator(flavour="tgi") as emulator:
            answer = await call(emulator, "POST /tokenize", {"inputs": "Hi, you"})
            nothing = await call(emulator, "POST /tokenize", {"content": "Hi"})

        spans = [(each["text"], each["start"], each["stop"]) for each in json.loads(answer.text)]
        assert spans == [("Hi", 0, 2), (",", 2, 3), (" you", 3, 7)]
        assert nothing.status == 422

    @pytest.mark.parametrize(
        ("flavour", "refusal", "counts"),
        [
            ("llama.cpp", "Invalid API Key", 401),
            ("vllm", '{"error": "Unauthorized"}', 200),
            ("tgi", "", 401),
            ("router", "Invalid username or password.", 401),
        ],
    )
    async def test_a_key_is_asked_for_where_the_server_does(
        self, flavour: Flavour, refusal: str, counts: int
    ) -> None:
        asked: Json = {"model": "emulated", "messages": QUESTION}
        text: Json = {"content": "Hi", "prompt": "Hi", "inputs": "Hi"}
        async with ModelEmulator(flavour=flavour) as emulator:
            emulator.api_key = "right"
            counted = await call(emulator, "POST /tokenize", text)
            wrong = await call(emulator, ASK, asked, key="wrong")
            right = await call(emulator, ASK, asked, key="right")
            emulator.unknown.clear()  # the router counts no tokens

        assert (counted.status, wrong.status, right.status) == (counts, 401, 200)
        assert refusal in wrong.text


class TestRules:
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
            {"max_completion_tokens": 0},
            {"temperature": -0.1},
            {"temperature": 2.1},
            {"temperature": "hot"},
            {"top_p": 0},
            {"top_p": 1.1},
            {"frequency_penalty": 3},
            {"presence_penalty": -3},
            {"stop": 5},
            {"stop": ["a", "b", "c", "d", "e"]},
            {"n": 2},
            {"stream_options": {"include_usage": True}},
            {"stream_options": [], "stream": True},
            {"stream_options": {"include_usage": "yes"}, "stream": True},
            {"seed": "lucky"},
            {"seed": 1.5},
            {"logit_bias": [5]},
            {"logit_bias": {"word": 1}},
            {"logit_bias": {"5": 101}},
            {"response_format": "json"},
            {"response_format": {"type": "xml"}},
        ],
        ids=str,
    )
    @pytest.mark.parametrize(("flavour", "status"), [("llama.cpp", 400), ("tgi", 422)])
    async def test_a_request_against_the_rules_is_refused_and_noted(
        self, flavour: Flavour, status: int, broken: dict[str, Json]
    ) -> None:
        async with ModelEmulator(flavour=flavour) as emulator:
            answer = await call(emulator, ASK, {"messages": QUESTION, **broken})
            noted, emulator.violations[:] = list(emulator.violations), []

        assert answer.status == status
        assert answer.json()["error"]
        assert len(noted) == 1
        assert noted[0].startswith(f"{ASK}: {next(iter(broken))}: ")

    @pytest.mark.parametrize(
        ("flavour", "status"), [("llama.cpp", 200), ("tgi", 200), ("vllm", 400), ("router", 400)]
    )
    async def test_a_server_of_several_models_wants_one_to_be_named(
        self, flavour: Flavour, status: int
    ) -> None:
        async with ModelEmulator(flavour=flavour) as emulator:
            answer = await call(emulator, ASK, {"messages": QUESTION})
            noted, emulator.violations[:] = list(emulator.violations), []

        assert answer.status == status
        assert noted == ([] if status == 200 else [f"{ASK}: model: Field required"])

    async def test_what_the_rules_allow_is_taken(self) -> None:
        async with ModelEmulator() as emulator:
            answer = await ask(
                emulator,
                stream_options={"include_usage": True},
                seed=-1,
                logit_bias={"5": -100},
                response_format={"type": "text"},
            )

        assert answer.said()

    @pytest.mark.parametrize("body", [[1], "text", 5])
    async def test_a_body_that_is_no_object_is_refused(self, body: Json) -> None:
        async with ModelEmulator() as emulator:
            answer = await call(emulator, ASK, body)
            noted = emulator.violations.pop()

        assert answer.status == 400
        assert noted == f"{ASK}: body: must be a JSON object"

    async def test_tgi_takes_no_top_p_of_one(self) -> None:
        async with ModelEmulator(flavour="tgi") as emulator, ModelEmulator() as other:
            refused, taken = await ask(emulator, top_p=1.0), await ask(other, top_p=1.0)
            noted = emulator.violations.pop()

        assert (refused.status, taken.status) == (422, 200)
        assert "must be > 0.0 and < 1.0" in noted

    async def test_what_is_null_is_as_good_as_absent(self) -> None:
        async with ModelEmulator() as emulator:
            answer = await ask(emulator, temperature=None, top_p=None, stop=None, max_tokens=None)

        assert answer.said()

    async def test_unknown_fields_are_refused_unless_it_is_lax(self) -> None:
        async with ModelEmulator() as emulator:
            known = await ask(emulator, temperature=0.5, seed=1)
            unknown = await ask(emulator, top_k=5)
            noted = emulator.violations.pop()
            emulator.strict = False
            lax = await ask(emulator, top_k=5)

        assert (known.status, unknown.status, lax.status) == (200, 422, 200)
        assert "top_k" in noted

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
        ],
    )
    async def test_a_template_wants_user_and_assistant_by_turns(
        self, roles: str, words: str
    ) -> None:
        messages: Json = [{"role": role, "content": "Hello"} for role in roles.split()]
        async with ModelEmulator() as emulator:
            answer = await call(emulator, ASK, {"messages": messages})
            template = await call(emulator, "POST /apply-template", {"messages": messages})
            noted, emulator.violations[:] = list(emulator.violations), []
            emulator.alternate = False
            lax = await call(emulator, ASK, {"messages": messages})

        status = 400 if words else 200
        assert (answer.status, template.status, lax.status) == (status, status, 200)
        assert words in answer.text
        assert len(noted) == (2 if words else 0)

    @pytest.mark.parametrize("content", ["", " ", None])
    async def test_a_template_wants_no_empty_answer(self, content: Json) -> None:
        said: list[tuple[str, Json]] = [("user", "Hi"), ("assistant", content), ("user", "And?")]
        messages: Json = [{"role": role, "content": content} for role, content in said]
        async with ModelEmulator() as emulator:
            answer = await call(emulator, ASK, {"messages": messages})
            emulator.violations.clear()

        assert answer.status == 400
        assert "must have either content or tool_calls" in answer.text

    async def test_tgi_tells_of_its_template_with_a_type(self) -> None:
        messages: Json = [{"role": "assistant", "content": "Hello"}]
        async with ModelEmulator(flavour="tgi") as emulator:
            answer = await call(emulator, ASK, {"messages": messages})
            emulator.violations.clear()

        assert answer.status == 422
        assert answer.json()["error_type"] == "template_error"

    @pytest.mark.parametrize(
        "what", ["GET /v1/chat/completions", "POST /v1/nothing", "PUT /tokenize"]
    )
    async def test_a_path_that_is_none_is_not_found_and_noted(self, what: str) -> None:
        async with ModelEmulator() as emulator:
            answer = await call(emulator, what)
            noted = emulator.unknown.pop()

        assert answer.status == 404
        assert noted == what

    @pytest.mark.parametrize("kind", ["unknown", "violations"])
    async def test_leaving_tells_of_every_breach(self, kind: str) -> None:
        with pytest.raises(AssertionError, match="something"):
            async with ModelEmulator() as emulator:
                getattr(emulator, kind).append("something")

    async def test_a_failure_of_the_emulator_itself_fails_the_test(self) -> None:
        def answer(_: list[dict[str, str]]) -> str:
            raise KeyError("no such answer")

        async with ModelEmulator() as emulator:
            emulator.answer = answer
            status = (await ask(emulator)).status
            noted = emulator.violations.pop()

        assert status == 500
        assert noted == "the emulator failed: KeyError('no such answer')"

    async def test_a_fault_that_never_struck_fails_the_test(self) -> None:
        emulator = ModelEmulator()
        await emulator.__aenter__()
        emulator.fail("nothing", "reset")

        with pytest.raises(AssertionError, match=r"faults that no call met: \['nothing'\]"):
            await emulator.__aexit__(None, None, None)

    async def test_leaving_after_an_error_tells_of_the_error(self) -> None:
        async def err() -> None:
            async with ModelEmulator() as emulator:
                emulator.violations.append("something")
                raise KeyError

        with pytest.raises(KeyError):
            await err()
