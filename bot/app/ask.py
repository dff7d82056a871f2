"""Single questions of scripts and the command `ask`, without platform, store or history."""

from __future__ import annotations

import asyncio
import atexit
import io
import logging
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO, TypedDict, Unpack
from uuid import uuid4

from bot.app.assistant import DEMO, Assistant, open_assistant
from bot.app.platforms import load_settings
from bot.concurrency import cancelled
from bot.domain import (
    Delta,
    Exchange,
    FileRef,
    FilesRead,
    FileText,
    LeftOut,
    Message,
    Person,
    Start,
    StepNote,
    StepNotes,
    ThreadKey,
    Turn,
)
from bot.errors import AnswerCut, CannotStart, ModelError, ParleyError, PromptRefused
from bot.files.reading import read_path
from bot.text.files import left_out_of
from bot.text.prompt import compose
from bot.text.sanitize import one_line, strip_controls, whole_characters
from config.settings import Settings, SettingsError, hand_on

log = logging.getLogger(__name__)

STDIN = "-"
_MAX_INPUT = 4_000_000  # characters; more than any model reads, and a pipe may be endless
_MOST_SHOWN = 100  # characters of a step: a model may name any tool
_CLOSE_SECONDS = 10.0  # a local model's process gets three of them to end by itself

# What a question yields: text, a new beginning of it, or a call of a tool that has ended.
Piece = str | Start | StepNote


async def stream_answer(
    assistant: Assistant,
    question: str,
    *,
    history: Sequence[tuple[str, str]] = (),
    system: str | None = None,
    files: Sequence[str | Path] = (),
    allow: bool = False,
) -> AsyncGenerator[Piece]:
    """Yield the deltas of an answer, each call of a tool that has ended, and its sources as text.

    A Start restarts the text. Raises ModelError. `history` has earlier questions and their answers,
    and `system` replaces the system prompt. Calls with effects are made if they are allowed by
    `allow`; nobody is asked.

    A truncated answer ends without an error. Truncation of question or answer is logged, and what
    was not read of the `files`.
    """
    if not question.strip():
        raise PromptRefused("there is no question")
    nowhere, nobody = ThreadKey("", "", "", ""), Person("", "")
    text, now = whole_characters(question), time.time()
    read = await _read_files(files, assistant.settings)
    refs = tuple(FileRef(str(at), "", one.name, 0, {}) for at, one in enumerate(read))
    # Tools may take the id for a key, so that nothing is done twice.
    turn = Turn(f"ask:{uuid4()}", nowhere, nobody, text, place={}, asked_at=now, files=refs)
    zone = assistant.system_prompt.zone(turn) if system is None else None
    if system is None:
        system = assistant.system_prompt.for_turn(turn)
    exchanges = [
        Exchange("", nobody, now, whole_characters(asked), whole_characters(answered))
        for asked, answered in history
    ]
    texts = {str(at): one for at, one in enumerate(read)}
    prompt = compose(system=system, exchanges=exchanges, turn=turn, files=texts, zone=zone)
    if assistant.tool_sources:
        stream = await _with_tools(assistant, prompt, turn, texts, allow=allow)
    else:
        stream = assistant.model.stream(prompt)
    said, steps, told = list[str](), StepNotes(()), set[str]()
    try:
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                if isinstance(delta, LeftOut):
                    log.warning(
                        "The question is too long: %d characters of its middle were left out",
                        delta.characters,
                    )
                elif isinstance(delta, FilesRead):
                    if unread := left_out_of(delta.files):
                        log.warning("%s", unread)
                elif isinstance(delta, StepNotes):
                    steps = delta
                    ended = [one for one in delta.notes if one.outcome and one.call_id not in told]
                    told.update(one.call_id for one in ended)
                    for note in ended:
                        yield note
                # A single question has nothing before it.
                elif isinstance(delta, str | Start):
                    if isinstance(delta, str):
                        said.append(delta)
                    else:
                        said.clear()
                    yield delta
    except AnswerCut as cut:
        log.warning("The answer is cut short: %s", cut)
    if steps.sources:
        from bot.reply.draft import sources_below

        yield f"\n\n{sources_below(''.join(said), steps.sources)}"


async def _with_tools(
    assistant: Assistant,
    prompt: Sequence[Message],
    turn: Turn,
    files: Mapping[str, FileText],
    *,
    allow: bool,
) -> AsyncGenerator[Delta]:
    """Ask the model, with the tools that there are for a question."""
    from bot.tools import steps, toolset
    from bot.tools.loop import ToolLoop
    from bot.tools.memory import MemoryJournal
    from bot.tools.toolbox import Toolbox

    journal = MemoryJournal("allow" if allow else "deny")

    async def never(_: Turn, __: toolset.Offered) -> bool:
        return False  # `allow` says what may be called

    tools = Toolbox(assistant.tool_sources, never, -math.inf, assistant.settings.names_tools)
    offered = await tools.offered(toolset.Asked(turn, files=files), assistant.model)
    if not offered:
        return assistant.model.stream(prompt)
    loop = ToolLoop(
        model=assistant.model,
        steps=steps.Steps(journal, turn_id=turn.id),
        offered=offered,
        turn=turn,
        is_always_allowed=never,
        consent_seconds=tools.consent_seconds,
        reply_seconds=assistant.settings.reply_timeout,
    )
    return loop.stream(prompt)


async def _read_files(files: Sequence[str | Path], settings: Settings) -> list[FileText]:
    """Return what was read of files on this machine. Raises PromptRefused."""
    if len(files) > (most := settings.files_per_question):
        many = f"there are {len(files)} files, and {most} can be read at once"
        raise PromptRefused(many if most else "no files are read: FILES_PER_QUESTION is 0")
    found = []
    for path in map(Path, files):
        try:
            found.append(await read_path(path, most_mb=settings.file_max_mb))
        except (OSError, ValueError) as error:  # a name may have a zero character
            reason = getattr(error, "strerror", None) or error
            raise PromptRefused(f"{path} cannot be read: {reason}") from error
    return found


def _log_step(note: StepNote) -> None:
    """Tell what a call of a tool came to; what it was asked, and what it returned, is not told."""
    log.info("%s: %s", one_line(note.what)[:_MOST_SHOWN], note.outcome)


async def joined(deltas: AsyncGenerator[Piece]) -> str:
    """Return the whole answer."""
    pieces: list[str] = []
    async with aclosing(deltas):
        async for delta in deltas:
            if isinstance(delta, Start):
                pieces.clear()
            elif isinstance(delta, StepNote):
                _log_step(delta)
            else:
                pieces.append(delta)
    return whole_characters("".join(pieces)).strip()


def read_question(words: Sequence[str], stdin: TextIO) -> str:
    """Join the words; "-" and no words at all stand for standard input."""
    words, piped = words or (STDIN,), ""
    if STDIN in words:
        # Other programs mostly write UTF-8, whatever the locale says.
        if isinstance(stdin, io.TextIOWrapper):
            stdin.reconfigure(encoding="utf-8", errors="replace")
        piped = stdin.read(_MAX_INPUT)
    return " ".join(piped if word == STDIN else word for word in words)


def chosen(settings: Settings, *, model: str | None, system: str | None) -> Settings:
    """Return the settings with another model and system prompt, if given.

    A model is a GGUF file, or a name as in MODEL_ID. Raises CannotStart if no server has it.
    """
    if system is not None:
        settings = replace(settings, system_prompt=system)
    if not model:
        return settings
    if Path(model).is_file():
        return replace(settings, model_id=Settings().model_id, local_model_path=Path(model))
    if model != DEMO and not (settings.hf_token or settings.model_url):
        raise CannotStart(f"--model {model} is no GGUF file: a name needs HF_TOKEN or MODEL_URL")
    return replace(settings, model_id=model, local_model_path=None, transformers_model="")


async def print_answer(
    settings: Settings,
    question: str,
    stdout: TextIO,
    *,
    files: Sequence[str] = (),
    allow: bool = False,
) -> None:
    """Print the answer as it grows in a terminal, or else when it is complete.

    A closed pipe is not an error. Raises ParleyError.
    """
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="replace")
    async with open_assistant(settings, asyncio.Event(), at_terminal=True) as assistant:
        deltas = stream_answer(assistant, question, files=files, allow=allow)
        try:
            if stdout.isatty():
                await _print_growing(deltas, stdout)
            else:
                _write(stdout, f"{strip_controls(await joined(deltas))}\n")
        except BrokenPipeError:
            # Flushing the buffer at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        except OSError as error:
            raise ParleyError(f"the answer cannot be written: {error.strerror}") from error


async def _print_growing(deltas: AsyncGenerator[Piece], stdout: TextIO) -> None:
    printed = False
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, Start):
                    if printed:
                        _write(stdout, "\n")
                        log.warning("The answer broke off and starts again")
                    printed = False
                    continue
                if isinstance(delta, StepNote):
                    if printed:
                        _write(stdout, "\n")
                    _log_step(delta)
                    continue
                text = strip_controls(delta)
                text = text if printed else text.lstrip()
                _write(stdout, text)
                printed = printed or bool(text)
    finally:
        if printed:
            _write(stdout, "\n")


def _write(stdout: TextIO, text: str) -> None:
    stdout.write(text)
    stdout.flush()


class Options(TypedDict, total=False):
    """What a question to `Asking` may have beside its text."""

    history: Sequence[tuple[str, str]]
    system: str | None
    files: Sequence[str | Path]
    allow: bool


class Asking:
    """An open model, which may be asked many questions at once; it raises ModelError.

    `history` has earlier questions and their answers, oldest first; as much of it is sent as the
    model can read. `system` replaces the configured system prompt. Of `files`, paths on this
    machine, the model reads as much as fits; what it has not read is logged. Calls of tools that
    have effects are denied, or with `allow` made without asking anybody.
    """

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant

    async def __call__(self, text: str, **options: Unpack[Options]) -> str:
        """Return the answer to a question."""
        return await joined(stream_answer(self._assistant, text, **options))

    async def stream(self, text: str, **options: Unpack[Options]) -> AsyncGenerator[str]:
        """Yield the whole answer each time it grows, because it may restart."""
        said = ""
        deltas = stream_answer(self._assistant, text, **options)
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, StepNote):
                    _log_step(delta)
                    continue
                said = "" if isinstance(delta, Start) else said + delta
                if shown := whole_characters(said).strip():
                    yield shown


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    """Open the configured model for the block; raises ModelError if that fails."""
    async with AsyncExitStack() as stack:
        try:
            settings = load_settings(os.environ, Path(".env"))
            hand_on(Path(".env"), os.environ)
            opening = open_assistant(settings, asyncio.Event())
            assistant = await stack.enter_async_context(opening)
        except (SettingsError, CannotStart) as error:
            raise ModelError(str(error)) from error
        yield Asking(assistant)


class SharedAssistant:
    """One assistant for all threads and loops, in an event loop and a thread of its own.

    It opens with the first question and closes with the process.
    """

    # Not anyio's BlockingPortal: that cancels a task again in each step of its clean-up, and a
    # process that the first question has just started would be left behind.

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bot.ask", daemon=True)
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._asking: Asking | None = None
        self._thread.start()
        atexit.register(self._close)

    def ask(self, text: str, **options: Unpack[Options]) -> str:
        """Return the answer, in any thread; an interrupted caller ends the request."""
        future = self._submit(text, options)
        try:
            return future.result()
        finally:
            future.cancel()

    async def ask_async(self, text: str, **options: Unpack[Options]) -> str:
        """Return the answer, in any loop; a cancelled caller ends the request."""
        return await asyncio.wrap_future(self._submit(text, options))

    def _submit(self, text: str, options: Options) -> Future[str]:
        return asyncio.run_coroutine_threadsafe(self._answer(text, options), self._loop)

    async def _answer(self, text: str, options: Options) -> str:
        async with self._opening:
            # After a failure the next question tries again.
            if self._asking is None:
                self._asking = await self._stack.enter_async_context(asking())
        return await self._asking(text, **options)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._stack.aclose())
        # Questions of daemon threads may still be open.
        self._loop.run_until_complete(cancelled(*asyncio.all_tasks(self._loop)))
        self._loop.close()

    def _close(self) -> None:
        # A forked process inherits the object, but not the thread.
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECONDS)


_creating = threading.Lock()
_shared: SharedAssistant | None = None


def shared() -> SharedAssistant:
    """Return the assistant of this process."""
    global _shared
    with _creating:
        _shared = _shared or SharedAssistant()
        return _shared


def _forget_shared() -> None:
    global _creating, _shared
    _creating, _shared = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    # A child has neither the parent's thread nor the owner of its locks.
    os.register_at_fork(after_in_child=_forget_shared)
