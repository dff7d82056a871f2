"""The real transformers with tiny random models, and how its process ends."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.domain import Message
from bot.errors import (
    AnswerCut,
    CannotStart,
    ModelDenied,
    ModelError,
    ModelUnavailable,
    PromptTooLong,
)
from bot.local.child_process import LocalServer
from bot.local.transformers_model import serve
from bot.text.sanitize import as_words
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.support import process
from tests.support.model import OneAttempt, open_model
from tests.support.process import (
    DiscordDm,
    SlackMention,
    Way,
    bot,
    discord_variables,
    slack_variables,
)
from tests.support.waiting import until

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
    pytest.skip(
        "for these tests install requirements-transformers.txt as docs/models.md says",
        allow_module_level=True,
    )
if TYPE_CHECKING:
    from bot.local.transformers_generation import Plan
import torch
from safetensors.torch import load_file

from tests.support.tiny_models import MARKS, NO_SYSTEM, tiny_blenderbot, tiny_llama

children = partial(process.children, "bot.local.transformers_process")
PROMPT = [Message("system", "Be brief."), Message("user", "Hello")]
LONG = 1_000_000  # tokens: an answer that takes for ever


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny models by name, made where they are needed first."""
    root = tmp_path_factory.mktemp("models")
    makers: dict[str, Callable[[Path], Path]] = {
        "llama": lambda path: tiny_llama(path),
        "bytes": lambda path: tiny_llama(path, readable=False),
        "ending": lambda path: tiny_llama(path, endings="aeiou"),
        "endless": lambda path: tiny_llama(path, positions=2 * LONG),
        "gemma": lambda path: tiny_llama(path, template=NO_SYSTEM),
        "base": lambda path: tiny_llama(path, template=None),
        "blenderbot": lambda path: tiny_blenderbot(path),
    }

    def folder(name: str) -> Path:
        path = root / name
        return path if path.exists() else makers[name](path)

    return folder


@pytest.fixture(scope="module")
async def llama(folders: Callable[[str], Path]) -> AsyncIterator[LocalServer]:
    async with serving(folders("llama")) as server:
        yield server


def serving(
    path: Path | str, *, token: str = "", context: int = 400, max_tokens: int = 60
) -> AbstractAsyncContextManager[LocalServer]:
    chosen = Settings(
        transformers_model=str(path),
        hf_token=token,
        context_tokens=context,
        max_tokens=max_tokens,
    )
    return serve(chosen)


def connected(
    server: LocalServer,
    *,
    key: str = "",
    max_tokens: int | None = None,
    temperature: float | None = 0.0,
    total: float = 60.0,
) -> AbstractAsyncContextManager[OneAttempt]:
    return open_model(
        model="tiny",
        base_url=server.url,
        api_key=key or server.api_key,
        max_tokens=max_tokens or server.max_tokens or 60,
        temperature=temperature,
        top_p=None,
        idle_timeout=60,
        total_timeout=total,
    )


async def deltas_of(model: OneAttempt, prompt: list[Message] = PROMPT) -> tuple[list[str], bool]:
    """Return what a model says, and whether it was cut."""
    said = []
    try:
        async for delta in model.stream(prompt):
            said.append(delta)
    except AnswerCut:
        return said, True
    return said, False


class TestAnswers:
    async def test_it_streams_an_answer_until_it_may_say_no_more(self, llama: LocalServer) -> None:
        async with connected(llama) as model:
            deltas, cut = await deltas_of(model)

        assert cut
        assert len(deltas) > 20
        assert set("".join(deltas)) <= set("abcdefghijklmnopqrstuvwxyz ")

    async def test_an_answer_that_the_model_ends_is_complete(
        self, folders: Callable[[str], Path]
    ) -> None:
        async with serving(folders("ending")) as server, connected(server, temperature=1.5) as it:
            answers = [await deltas_of(it) for _ in range(5)]

        assert not all(cut for _, cut in answers)

    async def test_eight_conversations_at_once_do_not_disturb_each_other(
        self, llama: LocalServer
    ) -> None:
        prompts = [[Message("user", f"Question {number}")] for number in range(8)]
        async with connected(llama) as model:
            alone = [await deltas_of(model, prompt) for prompt in prompts]

            together = await asyncio.gather(*(deltas_of(model, prompt) for prompt in prompts))

        assert ["".join(deltas) for deltas, _ in together] == ["".join(each) for each, _ in alone]
        assert len({"".join(deltas) for deltas, _ in together}) > 1

    async def test_nobody_else_on_this_machine_may_ask(self, llama: LocalServer) -> None:
        async with connected(llama, key="guessed") as model:
            with pytest.raises(ModelDenied):
                await deltas_of(model)

        assert llama.api_key not in repr(llama)

    async def test_it_reports_that_it_takes_no_tools(self, llama: LocalServer) -> None:
        async with connected(llama) as model:
            assert not await model.endpoint.takes_tools()

    async def test_a_prompt_that_does_not_fit_is_reported(self, llama: LocalServer) -> None:
        async with connected(llama) as model:
            with pytest.raises(PromptTooLong):
                await deltas_of(model, [Message("user", "word " * 100)])

        assert (llama.context_tokens, llama.max_tokens) == (400, 60)

    async def test_the_models_own_context_goes_before_ours(
        self, folders: Callable[[str], Path]
    ) -> None:
        async with serving(folders("llama"), context=8192, max_tokens=100) as server:
            pass

        assert (server.context_tokens, server.max_tokens) == (512, 100)


class TestLeaving:
    async def test_an_answer_that_nobody_wants_any_more_makes_room(
        self, folders: Callable[[str], Path]
    ) -> None:
        slots = min(4, len(os.sched_getaffinity(0)))
        async with (
            serving(folders("endless"), context=LONG + 1000, max_tokens=LONG) as server,
            connected(server) as model,
            AsyncExitStack() as stack,
        ):
            streams = [
                await stack.enter_async_context(aclosing(model.stream(PROMPT)))
                for _ in range(slots)
            ]
            for stream in streams:
                await anext(stream)
            async with aclosing(model.stream(PROMPT)) as waiting:
                first = asyncio.create_task(anext(waiting))
                done, _ = await asyncio.wait([first], timeout=1)
                assert not done

                await streams[0].aclose()

                assert await asyncio.wait_for(first, 60)
                assert await anext(streams[-1])

    async def test_it_ends_in_the_middle_of_an_answer(self, folders: Callable[[str], Path]) -> None:
        before = children()
        async with AsyncExitStack() as longer:
            async with serving(folders("endless"), context=LONG + 9, max_tokens=LONG) as server:
                model = await longer.enter_async_context(connected(server))
                stream = model.stream([Message("user", "?")])
                await anext(stream)

            assert children() == before
            with pytest.raises(ModelUnavailable):
                async for _ in stream:
                    pass

    async def test_a_process_that_dies_comes_back_at_its_address(
        self, folders: Callable[[str], Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        others = children()
        async with serving(folders("llama")) as server, connected(server) as model:
            before, _ = await deltas_of(model)
            (child,) = set(children()) - set(others)
            os.kill(child, signal.SIGKILL)

            after = await deltas_soon(model)

        assert after == before
        errors = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert len(errors) == 1


async def deltas_soon(model: OneAttempt) -> list[str]:
    for _ in range(600):
        try:
            return (await deltas_of(model))[0]
        except ModelError:
            await asyncio.sleep(0.05)
    raise AssertionError("no answer")


class TestPrompts:
    def plan(self, path: Path) -> Plan:
        from bot.local.transformers_generation import make_plan

        return make_plan(name=str(path), token=None, context_tokens=400, max_tokens=60)

    def prompt(self, path: Path, *messages: Message) -> str:
        plan = self.plan(path)
        text: str = plan.tokenizer.decode(plan.encode(messages))
        return text

    def test_the_tokenizers_template_makes_the_prompt(self, folders: Callable[[str], Path]) -> None:
        text = self.prompt(folders("llama"), *PROMPT)

        assert text == "<|system|>Be brief.<|user|>Hello<|assistant|>"

    @pytest.mark.parametrize("name", ["llama", "gemma", "blenderbot"])
    def test_no_control_token_comes_out_of_peoples_words(
        self, folders: Callable[[str], Path], name: str
    ) -> None:
        plan = self.plan(folders(name))
        special = set(plan.tokenizer.all_special_ids)

        def controls(words: str) -> list[int]:
            said = [Message("user", words), Message("assistant", words[:9]), Message("user", "x")]
            return [token for token in plan.encode(as_words(said)) if token in special]

        assert len(special) == len(MARKS)
        assert controls("".join(MARKS)) == controls("Hello")

    def test_a_template_without_a_system_prompt_finds_it_in_the_question(
        self, folders: Callable[[str], Path]
    ) -> None:
        text = self.prompt(folders("gemma"), *PROMPT)

        assert text == "<|user|>Be brief.\n\nHello<|assistant|>"

    def test_blenderbot_reads_a_conversation_in_its_own_way(
        self, folders: Callable[[str], Path]
    ) -> None:
        said = [Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Well?")]

        assert self.prompt(folders("blenderbot"), *said) == " Hi  Hello.   Well?"

    def test_text_is_passed_on_when_its_characters_are_whole(
        self, folders: Callable[[str], Path]
    ) -> None:
        from bot.local.transformers_generation import AnswerStreamer

        said: list[str] = []
        plan = self.plan(folders("bytes"))
        answer = AnswerStreamer(plan, limit=100, on_text=said.append)

        answer.put(torch.tensor([[1]]))
        for token in plan.tokenizer(" Ja, 5 € 😀!")["input_ids"]:
            answer.put(torch.tensor([token]))
        answer.end()

        assert "".join(said) == "Ja, 5 € 😀!"
        assert len(said) > 5
        assert not any("\ufffd" in text for text in said)


def plan_error(path: Path, *, max_tokens: int = 60) -> str:
    from bot.local.transformers_generation import make_plan

    with pytest.raises(CannotStart) as caught:
        make_plan(name=str(path), token=None, context_tokens=8192, max_tokens=max_tokens)
    return str(caught.value)


class TestBlenderbot:
    async def test_it_streams_within_its_positions(self, folders: Callable[[str], Path]) -> None:
        async with (
            serving(folders("blenderbot"), context=8192, max_tokens=1024) as server,
            connected(server) as model,
        ):
            deltas, cut = await deltas_of(model, [Message("user", "Hello")])
            with pytest.raises(PromptTooLong):
                await deltas_of(model, [Message("user", "x" * 129)])

        assert "".join(deltas)
        assert cut
        assert (server.context_tokens, server.max_tokens) == (255, 127)
        assert server.is_dialogue


class TestRefusals:
    async def refusal(self, name: Path | str, *, token: str = "") -> str:
        with pytest.raises(CannotStart) as caught:
            async with serving(name, token=token):
                pass
        return str(caught.value)

    @pytest.mark.parametrize("package", ["torch", "transformers"])
    async def test_a_missing_package_tells_how_to_get_it(
        self, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Python's own way to say that a module cannot be imported.
        monkeypatch.setitem(sys.modules, package, None)

        assert "requirements-transformers.txt" in await self.refusal("any")

    def test_a_model_without_a_template_is_no_chat_model(
        self, folders: Callable[[str], Path]
    ) -> None:
        assert "no chat template" in plan_error(folders("base"))

    def test_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        assert f"TRANSFORMERS_MODEL={tmp_path} cannot be run" in plan_error(tmp_path)

    @pytest.mark.parametrize("name", ["/no/such", "~nobodysuch/model"])
    async def test_a_path_without_a_folder_is_reported(self, name: str) -> None:
        assert f"TRANSFORMERS_MODEL={name}: " in await self.refusal(name)

    def test_an_answer_longer_than_the_context_is_refused(
        self, folders: Callable[[str], Path]
    ) -> None:
        text = plan_error(folders("llama"), max_tokens=512)

        assert text.startswith("MAX_TOKENS=512 leaves no room for a question in the 512 tokens")

    def test_a_model_larger_than_the_memory_is_refused_before_it_is_read(
        self, folders: Callable[[str], Path], tmp_path: Path
    ) -> None:
        shutil.copytree(folders("llama"), tmp_path, dirs_exist_ok=True)
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {"hidden_size": 2**20, "intermediate_size": 2**22, "head_dim": 2**14}
        (tmp_path / "config.json").write_text(json.dumps(config))

        text = plan_error(tmp_path)

        assert "GiB of memory" in text
        assert "LOCAL_MODEL_PATH" in text

    async def test_broken_weights_are_reported_while_questions_wait(
        self, folders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copytree(folders("llama"), tmp_path, dirs_exist_ok=True)
        (tmp_path / "model.safetensors").write_bytes(b"no weights")

        async with serving(tmp_path) as server, connected(server) as model:
            with pytest.raises(ModelUnavailable):
                await deltas_of(model)
            await until(lambda: bool(caplog.records))

        assert f"TRANSFORMERS_MODEL={tmp_path} cannot be run" in caplog.text

    async def test_code_that_comes_with_a_model_is_never_run(
        self, folders: Callable[[str], Path], tmp_path: Path
    ) -> None:
        shutil.copytree(folders("llama"), tmp_path, dirs_exist_ok=True)
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")

        text = await asyncio.wait_for(self.refusal(tmp_path), 60)

        assert "custom code" in text
        assert not (tmp_path / "run").exists()

    async def test_pickled_weights_run_nothing(
        self, folders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copytree(folders("llama"), tmp_path, dirs_exist_ok=True)
        (tmp_path / "model.safetensors").unlink()
        torch.save({"weight": _Touches(tmp_path / "run")}, tmp_path / "pytorch_model.bin")

        async with serving(tmp_path):
            await until(lambda: bool(caplog.records))

        assert f"TRANSFORMERS_MODEL={tmp_path} cannot be run" in caplog.text
        assert not (tmp_path / "run").exists()

    async def test_no_conversion_service_hears_of_pickled_weights(
        self, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        folder = tmp_path / "model"
        shutil.copytree(folders("llama"), folder)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        asked: list[str] = []
        async with serve_repository(folder, asked) as url:
            use_hub(monkeypatch, url, tmp_path / "home")
            async with serving("some/model", token="hf_secret") as server, connected(server) as it:
                assert await deltas_of(it)

        # transformers would ask for a conversion, and hand the token to whoever converts.
        assert not [each for each in asked if "/commits/" in each or "discussions" in each]

    async def test_a_token_that_lies_on_the_machine_is_not_used(
        self, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("hf_lying_about")
        asked: list[str] = []
        async with serve_repository(folders("llama"), asked) as url:
            use_hub(monkeypatch, url, tmp_path)
            monkeypatch.setenv("HF_TOKEN", "hf_of_the_shell")
            async with serving("some/model") as server, connected(server) as model:
                assert await deltas_of(model)

        assert asked
        assert not [each for each in asked if "hf_" in each]

    async def test_a_folder_may_be_named_from_where_the_operator_stands(
        self, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folders("llama").parent.parent)
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

        async with serving(Path(folders("llama").parent.name) / "llama") as server:
            assert server.max_tokens == 60

    async def test_a_gated_model_tells_where_its_licence_is(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        async with serve_refusal(403, "GatedRepo") as url:
            use_hub(monkeypatch, url, tmp_path)

            text = await self.refusal("meta/gated", token="hf_secret")

        assert "https://huggingface.co/meta/gated" in text
        assert "HF_TOKEN" in text
        assert "hf_secret" not in text

    async def test_a_name_that_nobody_knows_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        async with serve_refusal(401, "RepoNotFound") as url:
            use_hub(monkeypatch, url, tmp_path)

            assert "TRANSFORMERS_MODEL=no/such" in await self.refusal("no/such")

    async def test_a_hub_that_is_away_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)

        assert "cannot be reached" in await self.refusal("some/model")


class TestPlatforms:
    """From an event to the last word, with the bot as a process."""

    @pytest.mark.parametrize("kind", ["llama", "blenderbot"])
    async def test_a_tiny_model_answers_in_discord_and_slack(
        self, kind: str, folders: Callable[[str], Path], tmp_path: Path
    ) -> None:
        chosen = {"TRANSFORMERS_MODEL": str(folders(kind)), "MAX_TOKENS": "40"}
        async with DiscordEmulator() as discord, SlackEmulator() as slack:
            variables = discord_variables(discord) | slack_variables(slack) | chosen
            async with bot(data_dir=tmp_path, variables=variables) as running:
                await asyncio.wait_for(discord.connected.wait(), 60)
                await asyncio.wait_for(slack.connected.wait(), 60)
                ways: list[Way] = [DiscordDm(discord), SlackMention(slack)]
                for way in ways:
                    await way.ask("What is it?")
                for way in ways:
                    await until(partial(_is_cut, way), within=60, why=running.text)

        assert "run by transformers on this machine" in running.text()
        assert "runs on cpu in float32" in running.text()
        assert running.process.returncode == 0


def _is_cut(way: Way) -> bool:
    """Whether the answer is there, with the words that stand below one that reached its limit."""
    return any("This is the longest answer I can give" in each for each in way.finals())


@asynccontextmanager
async def serve_refusal(status: int, code: str) -> AsyncIterator[str]:
    """Answer as Hugging Face's hub does; huggingface_hub 2.4 reads X-Error-Code."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"X-Error-Code": code})

    async with _serve_handler(refuse) as url:
        yield url


@asynccontextmanager
async def _serve_handler(answer: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_repository(folder: Path, asked: list[str]) -> AsyncIterator[str]:
    """Serve a folder as Hugging Face serves a repository; `asked` gets paths and keys."""

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(f"{request.path} {request.headers.get('Authorization')}")
        file = folder / request.path.rpartition("/")[2]
        if "/tree/" in request.path:
            return web.json_response([])
        if "/resolve/" not in request.path:
            return web.json_response({"id": "some/model", "private": False, "siblings": []})
        if not file.is_file():
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": "c" * 40, "ETag": f'"{file.name}"'}
        return web.Response(body=file.read_bytes(), headers=headers)

    async with _serve_handler(serve) as url:
        yield url


class _Touches:
    """An object that runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._path}",)


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Make the started processes ask this hub, without a cache."""
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HOME", str(home))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before
