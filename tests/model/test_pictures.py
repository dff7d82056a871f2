"""Pictures in prompts: who sees them, what is sent, and what is told of those that are not seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from bot.domain import Delta, FilesRead, FileText, Message, Picture, Start
from bot.errors import ModelDenied, ModelUnknown, PromptRefused
from bot.files.pictures import read_picture
from bot.files.problem import Problem
from bot.model.client import ModelClient
from bot.model.context_window import ContextWindowModel
from bot.model.retrying import RetryingModel
from bot.model.server import ModelServer
from bot.model.server_info import fetch_abilities
from bot.model.transport import connect
from bot.tokens.counters import TokenEstimator, picture_tokens
from config.settings import Settings
from tests.emulators.model import Flavour, ModelEmulator
from tests.support.model import QUICK
from tests.support.pictures import png

CALL = "POST /v1/chat/completions"
SYSTEM = Message("system", "Be brief.")


def picture(name: str = "cat.png", width: int = 640, height: int = 480) -> FileText:
    found = read_picture(name, png(width, height))
    assert found
    return found


def data_of(*pictures: FileText) -> list[tuple[str, bytes]]:
    return [(one.picture.media_type, one.picture.data) for one in pictures if one.picture]


def question(*pictures: FileText) -> list[Message]:
    return [SYSTEM, Message("user", "What is it?", files=pictures)]


@asynccontextmanager
async def opened(
    emulator: ModelEmulator,
    *,
    own: bool = True,
    name: str = "emulated",
    seeing: str = "",
    prompt_tokens: int = 5000,
    vision: bool | None = None,
    max_tokens: int = 50,
) -> AsyncIterator[RetryingModel]:
    settings = Settings(max_tokens=max_tokens, vision=vision)
    async with AsyncExitStack() as stack:

        async def open_one(name: str, settings: Settings) -> ContextWindowModel:
            server = ModelServer(url=emulator.url, key="-", model=name, own=own)
            connection = await stack.enter_async_context(connect(server))
            return ContextWindowModel(
                model=ModelClient(connection, settings, idle_timeout=5.0, strict=True),
                counter=TokenEstimator(),
                watch=None,
                prompt_tokens=prompt_tokens,
                answer_tokens=50,
            )

        second = await open_one(seeing, replace(settings, vision=True))
        yield RetryingModel(
            models=[await open_one(name, settings)],
            policy=QUICK,
            total_timeout=20.0,
            stopping=asyncio.Event(),
            offered={seeing: second} if seeing else {},
            seeing=seeing,
        )


async def deltas_of(model: RetryingModel, prompt: Sequence[Message]) -> list[Delta]:
    return [delta async for delta in model.stream(prompt)]


def unseen(deltas: Sequence[Delta]) -> dict[str, str]:
    """Return the problems of files that a person reads, by name."""
    read = (file for delta in deltas if isinstance(delta, FilesRead) for file in delta.files)
    return {file.name: file.problem for file in read if not file.picture}


async def test_a_picture_is_sent_as_it_is_after_its_name_and_before_the_question() -> None:
    cat, dog = picture(), picture("dog.png", 3, 5)
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        async with opened(emulator) as model:
            deltas = await deltas_of(model, question(cat, dog))
    (asked,) = emulator.requests

    assert asked.pictures == data_of(cat, dog)
    assert asked.sent[-1]["content"] == ('[Picture "cat.png"]\n[Picture "dog.png"]\nWhat is it?')
    assert unseen(deltas) == {}


async def test_large_pictures_arrive_whole_and_a_text_that_looks_like_one_stays() -> None:
    fake = '{"url": "data:image/png;base64,'
    large = read_picture("large.png", png(640, 480) + bytes(3_900_000))
    assert large
    prompt = [SYSTEM, Message("user", fake, files=(large, picture()))]
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        async with opened(emulator) as model:
            await deltas_of(model, prompt)
    (asked,) = emulator.requests

    assert asked.pictures == data_of(large, picture())
    assert asked.sent[-1]["content"].endswith(fake)


@pytest.mark.parametrize("flavour", ["llama.cpp", "vllm", "ollama", "tgi"])
async def test_a_blind_model_is_asked_without_and_the_person_told(flavour: Flavour) -> None:
    async with ModelEmulator(flavour=flavour) as emulator, opened(emulator) as model:
        deltas = await deltas_of(model, question(picture()))
    asked = emulator.requests[-1]

    assert asked.pictures == []
    assert asked.sent[-1]["content"] == (
        '[File "cat.png": its text is not shown here]\nWhat is it?'
    )
    assert list(unseen(deltas)) == ["cat.png"]
    # vLLM alone does not say it before it is asked.
    assert len(emulator.requests) == (2 if flavour == "vllm" else 1)


@pytest.mark.parametrize("flavour", ["llama.cpp", "vllm", "ollama"])
async def test_a_server_reports_that_its_model_sees(flavour: Flavour) -> None:
    async with ModelEmulator(flavour=flavour) as emulator:
        emulator.seeing = emulator.models
        async with opened(emulator) as model:
            await deltas_of(model, question(picture()))

    assert len(emulator.requests[-1].pictures) == 1


@pytest.mark.parametrize("seeing", [True, False])
async def test_the_router_reports_whether_a_model_sees(seeing: bool) -> None:
    async with ModelEmulator(flavour="router") as emulator:
        emulator.models = ("maker/one", "maker/two")
        emulator.seeing = ("maker/two",) if seeing else ("maker/one",)
        async with opened(emulator, own=False, name="maker/two:fastest") as model:
            await deltas_of(model, question(picture()))

    assert len(emulator.requests[-1].pictures) == seeing


REPORTS: list[tuple[str, object, bool]] = [
    ("GET /v1/models", {"data": [{"id": "emulated", "capabilities": {"vision": True}}]}, True),
    (
        "GET /v1/models",
        {"data": [{"id": "emulated", "architecture": {"input_modalities": ["text", "image"]}}]},
        True,
    ),
    ("GET /v1/models", {"data": [{"id": "other", "capabilities": {"vision": True}}]}, True),
    ("GET /v1/models", {"data": [{"id": it, "owned_by": "vllm"} for it in "ab"]}, False),
    (
        "GET /v1/models",
        {"data": [{"id": "emulated:latest", "capabilities": {"vision": True}}, {"id": "other"}]},
        True,
    ),
    ("GET /api/v0/models/emulated", {"object": "model", "type": "vlm"}, True),
    ("GET /api/v0/models/emulated", {"object": "model", "type": "llm"}, False),
    ("POST /api/show", {"capabilities": ["completion", {"vision": 1}]}, False),
    ("GET /v1/models", {"data": [{"id": "emulated", "architecture": "image"}]}, False),
    ("GET /v1/models", ["image"], False),
    ("GET /props", {"modalities": {"vision": "yes"}}, False),
]


@pytest.mark.parametrize(("call", "body", "expected"), REPORTS)
async def test_other_servers_report_it_in_their_own_fields(
    call: str, body: object, expected: bool
) -> None:
    async with ModelEmulator(flavour="tgi") as emulator:
        emulator.seeing = emulator.models
        emulator.fail(call, status=200, body=body)
        async with opened(emulator) as model:
            await deltas_of(model, question(picture()))

    assert len(emulator.requests[-1].pictures) == expected


async def test_a_server_is_asked_once_for_several_questions() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        async with opened(emulator) as model:
            await deltas_of(model, question(picture()))
            later = emulator.fail("GET /v1/models", status=500, times=9)
            await deltas_of(model, question(picture()))

            assert later.times == 9
            emulator.heal()

    assert [len(one.pictures) for one in emulator.requests] == [1, 1]


async def test_a_server_that_did_not_answer_is_asked_again() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.fail("GET /v1/models", status=500)
        emulator.fail("GET /props", status=500)
        async with opened(emulator) as model:
            await deltas_of(model, question(picture()))
            await deltas_of(model, question(picture()))

    assert [len(one.pictures) for one in emulator.requests] == [0, 1]


@pytest.mark.parametrize("vision", [True, False])
async def test_a_setting_decides_whatever_the_server_reports(vision: bool) -> None:
    async with ModelEmulator(flavour="tgi") as emulator:
        emulator.seeing = () if vision else emulator.models
        async with opened(emulator, vision=vision) as model:
            await deltas_of(model, question(picture()))

    assert len(emulator.requests[-1].pictures) == vision


async def test_a_server_that_does_not_say_it_in_time_counts_as_blind() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.fail("GET /v1/models", "hang")
        server = ModelServer(url=emulator.url, key="-", model="emulated", own=True)
        async with connect(server) as connection:
            assert await fetch_abilities(connection, seconds=0.1) is None


REFUSALS = [
    (400, {"error": {"message": "Failed to load image or audio file"}}),
    (400, {"object": "error", "message": "At most 0 image(s) may be provided in one prompt."}),
    (404, {"error": {"message": "No endpoints found that support image input", "code": 404}}),
    (422, {"detail": "multimodal content is not allowed"}),
    (413, "Request Entity Too Large"),
    (500, '{"error": {"message": "Unsupported content part type: \\"image_url\\"; ' + "x" * 90_000),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
async def test_a_refused_picture_is_left_out_once_and_the_person_told(
    status: int, body: object
) -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.fail(CALL, status=status, body=body)
        async with opened(emulator) as model:
            deltas = await deltas_of(model, question(picture()))

    assert [len(asked.pictures) for asked in emulator.requests] == [1, 0]
    assert unseen(deltas) == {"cat.png": Problem.NOT_TAKEN}


async def test_a_refusal_without_a_picture_is_final_whatever_its_words() -> None:
    async with ModelEmulator() as emulator, opened(emulator) as model:
        emulator.fail(CALL, status=400, body={"error": {"message": "no image"}})
        with pytest.raises(PromptRefused):
            await deltas_of(model, question())

    assert len(emulator.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_failure_that_passes_is_not_taken_for_a_refusal_of_pictures(status: int) -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.fail(CALL, status=status, body={"error": {"message": "for image"}})
        async with opened(emulator) as model:
            await deltas_of(model, question(picture()))

    assert [len(asked.pictures) for asked in emulator.requests] == [1, 1]


async def test_a_wrong_key_is_not_taken_for_a_refusal_of_pictures() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.fail(CALL, status=401, body={"error": {"message": "for image"}})
        async with opened(emulator) as model:
            with pytest.raises(ModelDenied):
                await deltas_of(model, question(picture()))

    assert len(emulator.requests) == 1


async def test_an_unknown_revision_is_not_taken_for_a_refusal_of_pictures() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.fail(CALL, status=404, body={"error": {"message": "unknown revision"}})
        async with opened(emulator) as model:
            with pytest.raises(ModelUnknown):
                await deltas_of(model, question(picture()))

    assert len(emulator.requests) == 1


async def test_a_picture_that_is_refused_in_a_prompt_that_is_too_long_is_left_out_too() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.context, emulator.answer = emulator.models, 1500, "A cat."
        emulator.fail(CALL, status=400, body={"error": {"message": "bad image"}}, after=1)
        async with opened(emulator) as model:
            prompt = [Message("user", "word " * 2000, files=(picture(width=9, height=9),))]
            deltas = await deltas_of(model, prompt)

    assert emulator.requests[-1].status == 200
    assert unseen(deltas) == {"cat.png": Problem.NOT_TAKEN}


async def test_a_second_model_answers_questions_with_pictures_and_is_named() -> None:
    async with ModelEmulator() as emulator:
        emulator.models, emulator.seeing = ("blind", "seeing"), ("seeing",)
        emulator.fail("GET /props", status=404, times=2)
        async with opened(emulator, name="blind", seeing="seeing") as model:
            deltas = await deltas_of(model, question(picture()))
            plain = await deltas_of(model, question())

    assert [asked.body["model"] for asked in emulator.requests] == ["seeing", "blind"]
    assert Start("seeing") in deltas
    assert not any(isinstance(delta, Start | FilesRead) for delta in plain)


async def test_a_second_model_that_fails_leaves_the_answer_to_the_first() -> None:
    async with ModelEmulator() as emulator:
        emulator.models, emulator.seeing = ("blind", "seeing"), ("seeing",)
        emulator.fail(CALL, status=401)
        async with opened(emulator, name="blind", seeing="seeing") as model:
            deltas = await deltas_of(model, question(picture()))

    assert Start("blind") in deltas
    assert unseen(deltas) == {"cat.png": Problem.PICTURE}


async def test_the_first_model_answers_if_it_sees() -> None:
    async with ModelEmulator(flavour="ollama") as emulator:
        emulator.models = emulator.seeing = ("first", "second")
        async with opened(emulator, name="first", seeing="second") as model:
            await deltas_of(model, question(picture()))

    assert [asked.body["model"] for asked in emulator.requests] == ["first"]


async def test_pictures_without_room_are_told_and_the_first_ones_stay() -> None:
    names = [f"{number}.png" for number in range(4)]
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        async with opened(emulator, prompt_tokens=5000) as model:
            deltas = await deltas_of(model, question(*map(picture, names)))

    # 3,750 of 5,000 tokens are filled by our count, 2,250 of them by pictures of 670.
    assert len(emulator.requests[-1].pictures) == 3
    assert unseen(deltas) == {"3.png": ""}


async def test_a_question_has_less_room_beside_a_picture() -> None:
    text = "word " * 3000
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "A cat."
        async with opened(emulator, prompt_tokens=3000) as model:
            for pictures in ((), (picture(),)):
                await deltas_of(model, [Message("user", text, files=pictures)])

    alone, beside = (len(asked.sent[-1]["content"]) for asked in emulator.requests)
    # 670 tokens are that many words here.
    assert alone - beside > 3000


async def test_a_prompt_that_is_too_long_keeps_its_picture_whatever_the_refusal_speaks_of() -> None:
    message = "The prompt is longer than the maximum model length of 4000; images have many tokens."
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "A cat."
        emulator.fail(CALL, status=400, body={"error": {"message": message}})
        async with opened(emulator) as model:
            prompt = [Message("user", "word " * 2500, files=(picture(),))]
            deltas = await deltas_of(model, prompt)

    assert [len(asked.pictures) for asked in emulator.requests] == [1, 1]
    assert unseen(deltas) == {}


async def test_the_tokens_of_a_picture_are_not_taken_for_those_of_its_text() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "A cat."
        emulator.says_each_picture = 9000
        async with opened(emulator, prompt_tokens=4000) as model:
            text = "one two three " * 600
            await deltas_of(model, [Message("user", text, files=(picture(),))])
            await deltas_of(model, [Message("user", text)])

    assert emulator.requests[-1].sent[-1]["content"] == text


async def test_a_picture_comes_with_the_system_prompt_that_a_template_lacks() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        refusal = {"error": {"message": "System role not supported"}}
        emulator.fail(CALL, status=400, body=refusal)
        async with opened(emulator) as model:
            await deltas_of(model, question(picture()))

    assert emulator.requests[-1].pictures == data_of(picture())
    assert "Be brief." in emulator.requests[-1].sent[0]["content"]


@pytest.mark.parametrize(
    ("width", "height", "least", "most"),
    [
        (1, 1, 256, 300),
        (1540, 1540, 3025, 3080),
        (1000, 1000, 1296, 1600),
        (5000, 5000, 3025, 3080),
    ],
)
def test_a_picture_counts_as_many_tokens_as_a_model_may_read_of_it(
    width: int, height: int, least: int, most: int
) -> None:
    assert least <= picture_tokens(Picture("image/png", width, height, b"")) <= most
