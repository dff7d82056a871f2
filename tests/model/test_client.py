"""Answers over a real socket, and every way in which they fail."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, closing, suppress
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Self

import aiohttp
import huggingface_hub.constants
import pytest
from huggingface_hub import AsyncInferenceClient

from bench import figures
from bot.app.assistant import open_assistant
from bot.concurrency import cancelled
from bot.domain import Json, Message
from bot.errors import (
    AnswerCut,
    CannotStart,
    EmptyAnswer,
    ModelBusy,
    ModelDenied,
    ModelElsewhere,
    ModelError,
    ModelLoading,
    ModelSilent,
    ModelUnavailable,
    ModelUnknown,
    ModelUnpaid,
    PromptRefused,
    PromptTooLong,
)
from bot.model.reasoning import ReasoningFilter
from bot.model.transport import EventStream
from tests.emulators.model import FAILURES, How, ModelEmulator
from tests.support.model import OneAttempt, open_model
from tests.support.settings import settings_of
from tests.support.waiting import until

SEVERAL = ("one", "another")  # of a server with one model that one is asked, whatever its name
PROMPT = [Message("system", "Be brief."), Message("user", "What is a secret question?")]
TOKEN = "hf_thisMustNotLeave"  # made up
ASK = "POST /v1/chat/completions"
ANSWERS = 300


@asynccontextmanager
async def connected(
    url: str | None,
    *,
    key: str = "",
    idle: float = 30.0,
    total: float = 60.0,
    temperature: float | None = None,
) -> AsyncIterator[OneAttempt]:
    async with open_model(
        model="mistral",
        base_url=url,
        api_key=key,
        max_tokens=50,
        temperature=temperature,
        top_p=None,
        idle_timeout=idle,
        total_timeout=total,
    ) as model:
        yield model


async def answer(model: OneAttempt) -> str:
    return "".join([delta async for delta in model.stream(PROMPT)])


@asynccontextmanager
async def serve_body(body: str, *, at_once: int = 100_000) -> AsyncIterator[str]:
    """Answer every request with these bytes, so many at once; yields the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        said = body.encode()
        for start in range(0, len(said), at_once):
            writer.write(said[start : start + at_once])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield "http://{}:{}/v1".format(*server.sockets[0].getsockname())


async def failure(
    emulator: ModelEmulator, *, idle: float = 30.0, total: float = 60.0
) -> tuple[str, ModelError]:
    """Return what was said until the failure, and the failure."""
    said = ""
    async with connected(emulator.url, key="sk-key", idle=idle, total=total) as model:
        try:
            async for delta in model.stream(PROMPT):
                said += delta
        except ModelError as error:
            return said, error
    raise AssertionError(f"no failure after {said!r}")


class TestAnswers:
    async def test_deltas_arrive_as_the_server_says_them(self) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.answer = "Paris is it."
            emulator.chunk = 6
            deltas = [delta async for delta in model.stream(PROMPT)]

        assert deltas == ["Paris ", "is it."]

    async def test_the_server_gets_what_the_operator_chose(self) -> None:
        async with (
            ModelEmulator() as emulator,
            connected(emulator.url, key="sk-key", temperature=0.0) as model,
        ):
            await answer(model)

        asked = emulator.requests[0]
        assert model.name == "mistral"
        assert asked.headers["Authorization"] == "Bearer sk-key"
        assert asked.body == {
            "model": "mistral",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is a secret question?"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 50,
            "temperature": 0.0,
        }

    @pytest.mark.parametrize("line", ["data:", "data: {}", 'data: {"usage": {"total_tokens": 3}}'])
    async def test_an_event_without_a_word_is_skipped(self, line: str) -> None:
        word = 'data: {"choices": [{"delta": {"content": "word "}}]}'
        body = "\n\n".join([word, line, word, "data: [DONE]", ""])

        async with serve_body(body) as url, connected(url) as model:
            assert await answer(model) == "word word "

    async def test_the_bytes_of_a_stream_may_come_one_by_one(self) -> None:
        word = 'data: {"choices": [{"delta": {"content": "wörd 🦜"}}]}'
        body = "\n\n".join([word, word, "data: [DONE]"])

        async with serve_body(body, at_once=1) as url, connected(url) as model:
            assert await answer(model) == "wörd 🦜wörd 🦜"

    @pytest.mark.parametrize(
        "last",
        [
            'data: {"choices": [{"delta": {"content": "."}, "finish_reason": "stop"}]}',
            'data: {"choices": [{"delta": {"content": "."}}]}\n\ndata: [DONE]',
        ],
    )
    async def test_the_last_line_needs_no_end(self, last: str) -> None:
        word = 'data: {"choices": [{"delta": {"content": "word"}}]}'

        async with serve_body(f"{word}\n\n{last}") as url, connected(url) as model:
            assert await answer(model) == "word."

    async def test_a_line_without_an_end_is_a_broken_answer(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer, emulator.chunk = "x" * 3_000_000, 3_000_000
            _, error = await failure(emulator)

        assert "without an end" in str(error)

    async def test_a_user_and_password_in_the_address_are_sent_as_such(self) -> None:
        async with ModelEmulator() as emulator:
            url = emulator.url.replace("//", "//user:password@")
            async with connected(url) as model:
                await answer(model)

        expected = "Basic " + base64.b64encode(b"user:password").decode()
        assert emulator.requests[0].headers["Authorization"] == expected

    async def test_line_ends_of_other_scripts_pass_unharmed(self) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.answer = "one\u2028two\u2029three\x85four\r\nfive 🦜"
            emulator.chunk = 3

            assert await answer(model) == emulator.answer

    @pytest.mark.parametrize(
        ("finish_reason", "done"),
        [
            ("stop", "data: [DONE]"),
            ("stop", ": no end"),
            (None, "data: [DONE]"),
            (None, "data:[DONE]"),
        ],
    )
    async def test_a_finish_reason_or_done_makes_an_answer_complete(
        self, finish_reason: str | None, done: str
    ) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.answer = "Yes."
            emulator.finish_reason = finish_reason
            emulator.done = done

            assert await answer(model) == "Yes."

    async def test_an_answer_that_is_too_long_is_reported_after_its_last_word(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.finish_reason = "length"
            said, error = await failure(emulator)

        assert said == "You said: What is a secret question?"
        assert type(error) is AnswerCut
        assert "MAX_TOKENS=50" in str(error)

    async def test_more_than_a_hundred_answers_run_at_once(self) -> None:
        # Both ends of each connection are here.
        figures.allow_files(1024)
        begun = 0
        all_begun = asyncio.Event()

        async def answered(model: OneAttempt) -> str:
            nonlocal begun
            said = ""
            async for delta in model.stream(PROMPT):
                if not said:
                    begun += 1
                    if begun == 150:
                        all_begun.set()
                    await all_begun.wait()
                said += delta
            return said

        async with ModelEmulator() as emulator, connected(emulator.url, idle=30, total=60) as model:
            # A connection whose answer has ended would serve another one.
            emulator.answer = [(0.0, "You said "), (all_begun, "this.")]
            answers = await asyncio.gather(*(answered(model) for _ in range(150)))

        assert emulator.connections == 150
        assert set(answers) == {"You said this."}

    async def test_closing_the_iterator_hangs_up(self) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.answer = "word " * 1000
            emulator.delay = 0.01
            async with aclosing(model.stream(PROMPT)) as stream:
                await anext(stream)

            await until(lambda: emulator.requests[0].hung_up_at)

    async def test_many_answers_leave_nothing_behind(self) -> None:
        async def asked(times: int) -> int:
            """Ask, and return how many objects there are."""
            for _ in range(times):
                await answer(model)
            emulator.requests.clear()
            gc.collect()
            return len(gc.get_objects())

        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            before = await asked(20)
            after = await asked(ANSWERS)
            kept = [
                it
                for it in gc.get_objects()
                if isinstance(it, aiohttp.ClientResponse | EventStream)
            ]

        assert emulator.connections == 1
        # Not one for each answer; caches and the test's own server have theirs.
        assert after - before < ANSWERS
        assert len(kept) < 5

    async def test_another_user_of_the_library_in_the_process_is_not_disturbed(self) -> None:
        async def ask_library(url: str) -> str:
            async with AsyncInferenceClient(base_url=url, api_key="theirs") as client:
                stream = await client.chat_completion(
                    [{"role": "user", "content": "Hi"}], model="emulated", stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async with ModelEmulator() as ours, ModelEmulator() as theirs, connected(ours.url) as model:
            ours.answer, theirs.answer = "ours", "theirs"
            both = await asyncio.gather(answer(model), ask_library(theirs.url))
            after = await ask_library(theirs.url)

        assert (*both, after) == ("ours", "theirs", "theirs")
        keys = {asked.headers["Authorization"] for asked in theirs.requests}
        assert (len(ours.requests), keys) == (1, {"Bearer theirs"})


class Stub:
    """A server whose answers are complete, and whose bodies end as `tail` says."""

    def __init__(self, tail: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.url = ""
        self.connections = 0
        self.left = asyncio.Event()
        self._tail = tail
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.url = "http://{}:{}/v1".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await cancelled(*self._talks)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._talks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(it for it in head.split(b"\r\n") if b"content-length" in it.lower())
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n"
                )
                chunk(writer, b'data: {"choices": [{"delta": {"content": "Yes."}}]}\n\n')
                chunk(writer, b"data: [DONE]\n\n")
                await self._tail(writer)
        self.left.set()


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class TestTails:
    async def test_a_body_that_ends_a_little_late_leaves_its_connection_to_the_next(self) -> None:
        async def late(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.05)
            chunk(writer, b": so long\n\n")
            chunk(writer, b"")

        async with Stub(late) as server, connected(server.url) as model:
            said = [await answer(model), await answer(model)]

        assert (said, server.connections) == (["Yes.", "Yes."], 1)

    async def test_a_body_without_an_end_does_not_hold_the_answer_up(self) -> None:
        async def never(_: asyncio.StreamWriter) -> None:
            await asyncio.sleep(60)

        async with Stub(never) as server, connected(server.url) as model:
            async with asyncio.timeout(30):
                said = [await answer(model), await answer(model)]

        assert (said, server.connections) == (["Yes.", "Yes."], 2)

    async def test_a_server_that_never_stops_talking_is_hung_up_on(self) -> None:
        async def flood(writer: asyncio.StreamWriter) -> None:
            while True:
                chunk(writer, b": and another thing\n\n" * 1000)
                await writer.drain()

        async with Stub(flood) as server, connected(server.url) as model:
            async with asyncio.timeout(30):
                assert await answer(model) == "Yes."
            await asyncio.wait_for(server.left.wait(), 60)


def deltas(*sent: object) -> str:
    """Return a stream of such deltas, ended as an answer."""
    chunks = [{"choices": [{"delta": delta}]} for delta in sent]
    return "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + "data: [DONE]\n\n"


class TestReasoning:
    """What a model thinks is no part of its answer, however the server sends it."""

    @pytest.mark.parametrize(
        ("said", "text"),
        [
            ("<think>Well, 6 * 7.</think>42", "42"),
            ("\n<think>\nWell.\n</think>\n\n 42 and\n\n43", "42 and\n\n43"),
            ("<think></think>42", "42"),
            ("<think></think>\n \n42", "42"),
            (" \n  42", None),
            ("[THINK]Well.[/THINK]42", "42"),
            ("<think>1</think>42 <think>2</think>", "42 <think>2</think>"),
            ("Use `<think>` so:\n```\n<think>\n</think>\n```", None),
            ("<thing>42</thing>", None),
            ("<", None),
            ("a < b </think> c", None),
        ],
    )
    @pytest.mark.parametrize("length", [1, 3, 1000])
    async def test_it_is_dropped_from_the_beginning_of_the_text_alone(
        self, said: str, text: str | None, length: int
    ) -> None:
        pieces = [said[at : at + length] for at in range(0, len(said), length)]

        body = deltas(*({"content": piece} for piece in pieces))
        async with serve_body(body) as url, connected(url) as model:
            assert await answer(model) == (text or said)

    async def test_fields_and_parts_of_it_are_no_text(self) -> None:
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Well."}]}
        body = deltas(
            {"reasoning": "Well,", "content": ""},
            {"reasoning_content": "Well,", "content": None},
            {"content": [thought]},
            {"content": [thought, {"type": "text", "text": "4"}]},
            {"content": [{"type": "text", "text": "2"}, {"type": "reference", "ids": [1]}]},
            {"content": " it is"},
        )

        async with serve_body(body) as url, connected(url) as model:
            assert await answer(model) == "42 it is"

    async def test_an_answer_that_never_leaves_it_is_empty(self) -> None:
        body = deltas({"content": "<think>Well, "}, {"content": "or so."})

        async with serve_body(body) as url, connected(url) as model:
            with pytest.raises(EmptyAnswer):
                await answer(model)

    @pytest.mark.parametrize("begun", ["", "<think>", "<think></think>"])
    def test_little_is_kept_of_what_is_no_text(self, begun: str) -> None:
        kept = ReasoningFilter()
        said = [kept.add(begun), *(kept.add(" " * 10) for _ in range(1000))]

        assert not any(said)
        assert len(kept._held) < 1000

    async def test_a_model_that_thinks_is_not_silent(self) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url, idle=0.4) as model:
            emulator.answer, emulator.delay = f"<think>{'hm ' * 30}</think>42", 0.02
            emulator.chunk = 3

            assert await answer(model) == "42"


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "kind", "cure"),
        [
            (400, PromptRefused, "MODEL_ID"),
            (401, ModelDenied, "MODEL_API_KEY"),
            (402, ModelUnpaid, "credit"),
            (403, ModelDenied, "MODEL_API_KEY"),
            (404, ModelUnknown, "MODEL_ID and MODEL_URL"),
            (405, ModelElsewhere, "MODEL_URL"),
            (408, ModelUnavailable, "log"),
            (425, ModelUnavailable, "log"),
            (600, ModelUnavailable, "log"),
            (413, PromptTooLong, "CONTEXT_TOKENS"),
            (422, PromptRefused, "MAX_TOKENS"),
            (429, ModelBusy, "limit"),
            (500, ModelUnavailable, "log"),
            (502, ModelUnavailable, "log"),
            (503, ModelLoading, "not ready"),
        ],
    )
    async def test_a_status_becomes_an_error_with_its_cure(
        self, status: int, kind: type[ModelError], cure: str
    ) -> None:
        async with ModelEmulator() as emulator:
            emulator.models = SEVERAL
            emulator.fail(ASK, status=status)
            said, error = await failure(emulator)

        assert said == ""
        assert type(error) is kind
        assert error.status == status
        assert f"HTTP {status} (" in str(error)
        assert cure in str(error)
        assert len(emulator.requests) == 1

    @pytest.mark.parametrize(
        ("status", "said", "kind"),
        [
            (400, {"error": {"type": "exceed_context_size_error", "code": 400}}, PromptTooLong),
            (400, {"error": {"code": "context_length_exceeded"}}, PromptTooLong),
            (
                400,
                {"object": "error", "message": "This model's maximum context length is 9."},
                PromptTooLong,
            ),
            (
                422,
                {
                    "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <",
                    "error_type": "validation",
                },
                PromptTooLong,
            ),
            (400, {"error": {"code": "model_not_supported"}}, ModelUnknown),
            (
                400,
                {"error": "The model 'x' is not supported by any provider you have enabled."},
                ModelUnknown,
            ),
        ],
    )
    async def test_dialects_are_understood(
        self, status: int, said: Mapping[str, Json], kind: type[ModelError]
    ) -> None:
        async with ModelEmulator() as emulator:
            emulator.models = SEVERAL
            emulator.fail(ASK, status=status, body=said)
            _, error = await failure(emulator)

        assert type(error) is kind

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "<html>",
            "[1]",
            '"no"',
            "null",
            '{"error": 5}',
            '{"error": [{}]}',
            "\xff",
            "[" * 65_000,
        ],
    )
    async def test_no_body_is_too_strange(self, body: str) -> None:
        async with ModelEmulator() as emulator:
            chunked = {"Transfer-Encoding": "chunked"}
            emulator.fail(ASK, status=422, body=body, headers=chunked, times=2)
            _, error = await failure(emulator)

        assert type(error) is PromptRefused

    async def test_an_error_repeats_neither_key_nor_prompt(self) -> None:
        echo: Json = [{"msg": "bad", "input": PROMPT[1].text}]
        async with ModelEmulator() as emulator:
            emulator.url = emulator.url.replace("//", "//user:password@")
            emulator.fail(
                ASK,
                status=422,
                body={"error": {"message": PROMPT[1].text, "code": "sk-key?"}, "detail": echo},
                times=2,
            )
            _, error = await failure(emulator)

        for secret in ("secret", "sk-key", "password", "user"):
            assert secret not in str(error)

    @pytest.mark.parametrize(
        ("header", "body", "seconds"),
        [
            ("7", "", 7.0),
            ("1.5", "", 1.5),
            ("nan", "", None),
            (formatdate(0, usegmt=True), "", 0.0),
            ("soon", "", None),
            (None, {"error": "Model is loading", "estimated_time": 20.5}, 20.5),
            (None, {"error": "Model is loading", "estimated_time": -1}, 0.0),
            (None, '{"estimated_time": NaN}', None),
            (None, '{"estimated_time": true}', None),
            (None, {"estimated_time": 10**400}, None),
            (None, "", None),
        ],
    )
    async def test_the_server_may_say_when_to_come_back(
        self, header: str | None, body: Mapping[str, Json] | str, seconds: float | None
    ) -> None:
        async with ModelEmulator() as emulator:
            headers = {"Retry-After": header} if header else {}
            emulator.fail(ASK, status=503, headers=headers, body=body)
            _, error = await failure(emulator)

        assert error.retry_after == seconds

    async def test_the_server_may_name_the_hour_to_come_back(self) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(
                ASK, status=429, headers={"Retry-After": formatdate(time() + 30, usegmt=True)}
            )
            _, error = await failure(emulator)

        assert error.retry_after == pytest.approx(30, abs=3)

    @pytest.mark.parametrize(
        ("how", "words"),
        [
            ("drop", "cut"),
            ("reset", "cut"),
            ("eof", "broke the answer off"),
            ("garbage", "cannot be read"),
            ("error_event", "(server_error)"),
        ],
    )
    @pytest.mark.parametrize("at_delta", [0, 2, 99])
    async def test_a_broken_answer_is_unavailable_after_what_was_said(
        self, how: How, words: str, at_delta: int
    ) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, how, at_delta=at_delta)
            said, error = await failure(emulator)

        assert type(error) is ModelUnavailable
        assert words in str(error)
        assert "You said: What is a secret question?".startswith(said)
        assert len(said) == min(8 * at_delta, 36)

    @pytest.mark.parametrize("line", ['"text"', "[1, 2]", "null", '{"choices": [1]}', "{}}"])
    async def test_no_line_is_too_strange(self, line: str) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "garbage", at_delta=1, body=line)
            _, error = await failure(emulator)

        assert type(error) is ModelUnavailable

    async def test_a_context_that_fills_up_within_an_answer_is_too_small(self) -> None:
        body: Json = {"code": 400, "type": "exceed_context_size_error", "message": "full"}
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "error_event", at_delta=1, body={"error": body})
            _, error = await failure(emulator)

        assert type(error) is PromptTooLong

    @pytest.mark.parametrize("at_delta", [None, 0, 1])
    async def test_silence_ends_after_the_idle_time(self, at_delta: int | None) -> None:
        async with ModelEmulator() as emulator:
            emulator.fail(ASK, "hang", at_delta=at_delta)
            async with asyncio.timeout(30):
                _, error = await failure(emulator, idle=0.2, total=60)
            await until(lambda: emulator.requests[0].hung_up_at)

        assert type(error) is ModelSilent
        assert "said nothing for 0.2 s" in str(error)

    # A [DONE] without its space is none: the bot reads it as it is meant.
    @pytest.mark.parametrize("name", [name for name in FAILURES if name != "done without space"])
    async def test_every_well_known_failure_becomes_a_model_error(self, name: str) -> None:
        async with ModelEmulator() as emulator:
            # Twice, for a dropped connection is tried once more.
            emulator.fail_as(name, times=2)
            _, error = await failure(emulator, idle=1.0)

        assert type(error) is not ModelError
        assert "127.0.0.1" in str(error)

    @pytest.mark.parametrize("text", ["", " \n ", "\u200b", "\ufeff\u2060 \t\x85", "\x00"])
    async def test_an_answer_without_a_word_is_an_error(self, text: str) -> None:
        async with ModelEmulator() as emulator:
            emulator.answer, emulator.chunk = text, 1
            said, error = await failure(emulator)

        assert (said, type(error)) == ("", EmptyAnswer)

    @pytest.mark.parametrize("text", [" \n Yes.", "\u200b\u200eYes", " 🦜", "\U0001fae8"])
    async def test_an_answer_begins_with_what_can_be_seen(self, text: str) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.answer, emulator.chunk = text, 1
            deltas = [delta async for delta in model.stream(PROMPT)]

        assert "".join(deltas) == text
        assert not deltas[0].isspace()

    async def test_a_sign_in_two_halves_can_be_seen(self) -> None:
        halves = [
            f'data: {{"choices": [{{"delta": {{"content": "{half}"}}}}]}}'
            for half in ("\\ud83e", "\\udd9c")
        ]

        async with (
            serve_body("\n\n".join([*halves, "data: [DONE]"])) as url,
            connected(url) as model,
        ):
            assert await answer(model) == "\ud83e\udd9c"

    async def test_half_a_sign_alone_is_an_empty_answer(self) -> None:
        half = 'data: {"choices": [{"delta": {"content": " \\ud83e"}}]}'

        async with serve_body(f"{half}\n\ndata: [DONE]") as url, connected(url) as model:
            with pytest.raises(EmptyAnswer):
                await answer(model)

    async def test_a_dropped_connection_is_tried_once_more(self) -> None:
        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            emulator.fail(ASK, "drop")
            said = await answer(model)

            emulator.fail(ASK, "drop", times=2)
            with pytest.raises(ModelUnavailable, match="closes the connection"):
                await answer(model)

        assert said
        assert len(emulator.requests) == 4

    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            ({"error": {"code": 429, "message": "Slow down"}}, ModelBusy),
            ({"error": {"code": "402", "message": "No more"}}, ModelUnpaid),
            ({"code": 401, "message": "No auth credentials found"}, ModelDenied),
            ({"error": {"code": 502, "message": "Provider returned error"}}, ModelUnavailable),
            ({"error": {"code": 400, "message": "temperature"}}, PromptRefused),
            ({"error": {"code": 400, "type": "exceed_context_size_error"}}, PromptTooLong),
            ({"error": {"message": "maximum context length is 9 tokens"}}, PromptTooLong),
            ({"error": {"type": "rate_limit_exceeded", "message": ""}}, ModelBusy),
            ({"error": {"message": "You exceeded your current quota"}}, ModelBusy),
            ({"error": "Model is overloaded", "error_type": "overloaded"}, ModelBusy),
            ({"error": "Model x is currently loading", "estimated_time": 7}, ModelLoading),
            ({"error": {"code": "invalid_api_key", "message": "Wrong"}}, ModelDenied),
            ({"error": {"code": "model_not_found", "message": "No"}}, ModelUnknown),
            ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, ModelElsewhere),
            ({"error": {"code": 200}}, ModelElsewhere),
            ([], ModelElsewhere),
        ],
    )
    async def test_an_error_in_place_of_a_stream_is_what_it_says(
        self, said: Json, kind: type[ModelError]
    ) -> None:
        async with ModelEmulator() as emulator:
            emulator.models = SEVERAL
            emulator.fail(ASK, status=200, body=said, times=2)
            _, error = await failure(emulator)
            emulator.heal()

        assert type(error) is kind
        assert error.retry_after == (7.0 if kind is ModelLoading else None)

    @pytest.mark.parametrize("at_delta", [None, 2])
    @pytest.mark.parametrize(
        ("code", "kind"),
        [(429, ModelBusy), (402, ModelUnpaid), (503, ModelLoading), (400, ModelUnavailable)],
    )
    async def test_an_error_within_a_stream_is_what_its_code_says(
        self, code: int, kind: type[ModelError], at_delta: int | None
    ) -> None:
        async with ModelEmulator() as emulator:
            body: Json = {"error": {"code": code, "message": "no"}}
            emulator.fail(ASK, "error_event", at_delta=at_delta, body=body)
            said, error = await failure(emulator)

        assert (bool(said), type(error)) == (at_delta is not None, kind)

    async def test_neither_prompt_nor_key_follows_a_redirect(self) -> None:
        async with ModelEmulator() as emulator, ModelEmulator() as elsewhere:
            target = f"{elsewhere.url}/chat/completions"
            emulator.fail(ASK, status=307, headers={"Location": target})
            _, error = await failure(emulator)

        assert type(error) is ModelElsewhere
        assert "MODEL_URL" in str(error)
        assert not elsewhere.requests


class TestAddresses:
    @pytest.mark.parametrize(
        "url", ["localhost:8080/v1", "mistralai/Mistral-7B", "ftp://host/v1", "http://[", "http://"]
    )
    async def test_an_address_that_is_none_names_the_variable(self, url: str) -> None:
        with pytest.raises(CannotStart, match="MODEL_URL"):
            async with connected(url):
                pass

    async def test_no_proxy_stands_before_a_server_on_this_machine(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)

        async with ModelEmulator() as emulator, connected(emulator.url) as model:
            assert await answer(model)

    async def test_without_an_address_the_router_is_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[bytes] = []

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readline())
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)

        async with proxy, connected(None, key=TOKEN) as model:
            with pytest.raises(ModelUnavailable, match=r"router\.huggingface\.co"):
                await answer(model)

        assert asked == [b"CONNECT router.huggingface.co:443 HTTP/1.1\r\n"]

    @pytest.mark.parametrize("is_saved", [True, False])
    async def test_no_token_of_this_machine_reaches_a_server_of_ones_own(
        self, is_saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        # A server of one's own is asked in offline mode, too.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        if is_saved:
            (tmp_path / "token").write_text(TOKEN)
        else:
            monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert huggingface_hub.get_token() == TOKEN
        async with ModelEmulator() as emulator:
            settings = settings_of(model_url=emulator.url, data_dir=tmp_path)
            async with open_assistant(settings, asyncio.Event()) as opened:
                assert [delta async for delta in opened.model.stream(PROMPT)]

        for asked in emulator.requests:
            assert asked.headers["Authorization"] == "Bearer -"
            assert TOKEN not in json.dumps([dict(asked.headers), asked.body])
