"""The window of the terminal, over prompt_toolkit's own pipe and a small terminal emulator."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

pytest.importorskip("prompt_toolkit", reason="the window needs requirements-terminal.txt")
pytest.importorskip("rich", reason="the window needs requirements-terminal.txt")

from prompt_toolkit.application import create_app_session
from prompt_toolkit.application.current import AppSession, get_app_session
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.formatted_text import fragment_list_to_text, to_formatted_text
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.layout.controls import FormattedTextControl
from prompt_toolkit.output import DummyOutput

from adapters.console.talk import ConsoleConversation
from adapters.console.window import Window
from adapters.live import LivePlatform, stream_of
from adapters.uploads import Uploads
from bot.concurrency import running
from bot.domain import Exchange, Preferences
from bot.domain import Person as Author
from bot.errors import ParleyError, ThreadBusy
from bot.store import Store
from tests.support.console import CALL, FORM_ID, LINK_ID, WINDOW, AnsweringQueue, terminal
from tests.support.waiting import until

ENTER, NEW_LINE, UP, CTRL_C, CTRL_D, CTRL_R = "\r", "\x1b\r", "\x1b[A", "\x03", "\x04", "\x12"


@dataclass
class Paper(DummyOutput):
    """A terminal of which only what is printed for good is kept, without colours and codes."""

    columns: int = 80
    printed: str = ""

    def write_raw(self, data: str) -> None:
        self.printed += re.sub(r"\x1b\[[\d;]*m", "", data.replace("\r\n", "\n"))

    def get_size(self) -> Size:
        return Size(rows=24, columns=self.columns)


@dataclass
class Person:
    """Who sits at the window."""

    keys: PipeInput
    paper: Paper
    queue: AnsweringQueue
    window: Window
    session: AppSession
    conversation: asyncio.Task[None]

    def type(self, text: str) -> None:
        self.keys.send_text(text)

    async def reads(self, text: str) -> str:
        """Wait for a printed text; return what came before it, and take both away."""

        def is_printed() -> bool:
            if self.conversation.done():
                # An error of the window is the reason why nothing more comes.
                self.conversation.result()
            return text in self.paper.printed

        await until(is_printed, why=lambda: repr(self.paper.printed))
        before, _, self.paper.printed = self.paper.printed.partition(text)
        return before

    def sees(self, text: str) -> bool:
        """Whether the part of the answer that still changes has this text."""
        growing = self.window.transcript.growing
        return growing is not None and text in growing.live

    def is_offered(self, command: str) -> bool:
        """Whether a menu offers to complete what is typed."""
        state = self.buffer.complete_state
        return state is not None and [one.text for one in state.completions] == [command]

    @property
    def decided(self) -> list[tuple[str, str]]:
        """The answers to calls."""
        return [(call_id, consent) for _, call_id, consent, *_ in self.queue.decided]

    @property
    def is_asked(self) -> bool:
        """Whether the input waits for an answer to a call."""
        growing = self.window.transcript.growing
        return growing is not None and growing.consent != ""

    @property
    def prompt(self) -> str:
        """What the person is to say, before the input."""
        growing = self.window.transcript.growing
        return growing.prompt if growing else ""

    def above(self) -> str:
        """Return what is drawn above the input."""
        assert self.session.app
        windows = self.session.app.layout.find_all_windows()
        texts = [it.content.text for it in windows if isinstance(it.content, FormattedTextControl)]
        return max((fragment_list_to_text(to_formatted_text(text)) for text in texts), key=len)

    @property
    def buffer(self) -> Buffer:
        assert self.session.app
        return self.session.app.current_buffer

    async def leaves(self) -> None:
        await asyncio.wait_for(self.conversation, 60)

    async def asks(self, question: str, answer: str) -> None:
        self.type(question + ENTER)
        await self.reads(f"you> {question}")
        await self.reads(answer)


@pytest.fixture(autouse=True)
def _patient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine that is busy for seconds, the window tells that the store is away.
    for limit in ("COMMAND_SECONDS", "CONNECT_SECONDS"):
        monkeypatch.setattr(f"bot.store.{limit}", 60.0)


@asynccontextmanager
async def at_window(
    store: Store, tmp_path: Path, *said: Exchange, patience: float = 30.0, asks_again: str = ""
) -> AsyncIterator[Person]:
    queue = AnsweringQueue(store)
    queue.asks_again = asks_again
    queue.history.exchanges = list(said)
    paper = Paper()
    with create_pipe_input() as keys, create_app_session(input=keys, output=paper):
        window = Window(
            talk=ConsoleConversation(
                intake=queue.intake,
                store=store,
                thread="terminal",
                uploads=Uploads(store, most_files=2, most_mb=1),
            ),
            banner="The banner",
            patience=patience,
            history=tmp_path / "history",
        )
        async with running(window.run()) as conversation:
            session = get_app_session()
            await until(lambda: session.app)
            yield Person(keys, paper, queue, window, session, conversation)
        await queue.close()


@pytest.fixture
async def person(store: Store, tmp_path: Path) -> AsyncIterator[Person]:
    """A person at a new window."""
    async with at_window(store, tmp_path) as one:
        yield one


async def test_an_answer_is_printed_block_by_block_and_each_once(person: Person) -> None:
    person.type("code" + ENTER)
    before = await person.reads("you> code\n\n")
    code = await person.reads("Done.\n\n")
    await person.asks("again", "Another one\n\n")

    assert before.startswith("The banner\n")
    assert code == "  a = 1\n  b = 2\n\n"


async def test_what_is_typed_while_an_answer_grows_waits_for_its_end(person: Person) -> None:
    person.type("long" + ENTER)
    await person.reads("you> long")
    person.type("hello" + ENTER)
    await until(lambda: len(person.queue.turns) == 2)
    person.type("/stop" + ENTER)
    long = await person.reads("you> hello\n\n")
    await person.reads("Hello world!")

    assert long.split() == ["On", "and", "on", "Stopped:", "True."]


async def test_several_lines_and_a_paste_are_one_question(person: Person) -> None:
    person.type("many" + NEW_LINE + "lines" + ENTER)
    await person.reads("both\nlines")
    person.type("many\\" + ENTER + "lines" + ENTER)
    await person.reads("both\nlines")
    person.type("\x1b[200~many\rlines\x1b[201~" + ENTER)
    await person.reads("both\nlines")

    assert [turn.text for turn in person.queue.turns] == ["many\nlines"] * 3


async def test_commands_are_carried_out_and_unknown_ones_refused(
    store: Store, person: Person
) -> None:
    await person.asks("hello", "Hello world!")
    person.type("/nonsense" + ENTER)
    await person.reads("There is no /nonsense")
    person.type("help" + ENTER)
    await person.reads("/save")
    person.type("/regenerate" + ENTER)
    await person.reads("you> hello")
    await person.reads("Hello world!")
    person.type("/reset" + ENTER)
    await person.reads("Forgotten.")
    assert not await store.redis.xlen(stream_of(store, person.queue.turns[0].key))
    person.type(" /hello" + ENTER + "/etc/hosts is what?" + ENTER)
    await until(lambda: len(person.queue.turns) == 3)
    person.type("exit" + ENTER)
    await person.leaves()

    queue = person.queue
    assert [turn.text for turn in queue.turns] == ["hello", "/hello", "/etc/hosts is what?"]
    assert [press[0] for press in queue.pressed] == [queue.turns[0].id]
    assert queue.resets == [queue.turns[0].key]


async def test_a_command_is_completed(person: Person) -> None:
    person.type("/reg")
    await until(lambda: person.is_offered("/regenerate"))
    person.type("\t")
    await until(lambda: person.buffer.text == "/regenerate", why=lambda: person.buffer.text)
    person.type(ENTER)
    await person.reads("There is no question yet.")


async def test_files_wait_for_the_next_question_and_go_with_it(
    store: Store, tmp_path: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my notes.txt").write_bytes(b"\0in it")
    (tmp_path / "big.txt").write_bytes(b"x" * 1_000_001)
    person.type("/file" + ENTER)
    await person.reads("No file waits: write /file PATH.")
    for path, said in (
        ("nothing.txt", "nothing.txt: No such file or directory."),
        (".", ".: Is a directory."),
        ("/dev/zero", "There is nothing in this file."),
        ("~/big.txt", "1 MB is the limit for a file."),
        ("~/my notes.txt", "For your next question: my notes.txt."),
        (f"'{tmp_path}/my notes.txt'", "my notes.txt, my notes.txt."),
    ):
        person.type(f"/file {path}{ENTER}")
        await person.reads(said)
    person.type("busy" + ENTER)
    await person.reads(ThreadBusy.apology[:30])
    person.type("again" + ENTER)
    await person.reads("you> again\n[file: my notes.txt]\n[file: my notes.txt]")
    await person.reads("Another one")
    person.type("/edit hello" + ENTER)
    await person.reads("Hello world!")
    await person.asks("again", "Another one")

    (first, second), (edited, _) = person.queue.turns, person.queue.edits[0]
    assert (edited.text, edited.files) == ("hello", first.files)
    assert [one.name for one in first.files] == ["my notes.txt"] * 2
    assert {one.message for one in first.files} == {first.id}
    fetch = LivePlatform("console", store=store).fetch_file
    assert [[part async for part in fetch(one)] for one in first.files] == [[b"\0in it"]] * 2
    assert second.files == ()


async def test_words_wrap_as_wide_as_the_window_is_at_the_moment(person: Person) -> None:
    question = "words in a question that is longer than a narrow window"
    person.type(question + ENTER)
    await person.reads(question)
    person.type(CTRL_C + CTRL_C)
    await person.reads("I no longer wait for that answer.\n\n")
    person.paper.columns = 30
    person.type(question + ENTER)
    printed = await person.reads("narrow window")

    assert printed == "you> words in a question that\nis longer than a "


async def test_the_model_and_the_persona_are_chosen_shown_and_taken_back(person: Person) -> None:
    person.type("/model clever" + ENTER)
    await person.reads("From now on Clever answers in this conversation.")
    person.type("/persona server A pirate." + ENTER)
    await person.reads("From now on I use this persona in this conversation.")
    chosen = await person.queue.preferences.read_all()
    person.type("/model" + ENTER)
    shown = await person.reads("Models: Fast, Clever.")
    person.type("/persona" + ENTER)
    await person.reads("A pirate.")
    person.type("/model nonsense" + ENTER)
    await person.reads("There is no such model.")
    person.type("/temperature hot" + ENTER)
    await person.reads("Temperature: please enter a number, not 'hot'.")
    person.type("/temperature 0.5" + ENTER + "/longest 50" + ENTER)
    await person.reads("Saved for this conversation: Longest answer.")
    (numbers,) = (await person.queue.preferences.read_all()).values()
    person.type("/temperature" + ENTER)
    await person.reads("- Temperature: 0.5\n- Longest answer: 50\n\n")
    person.type("/temperature off" + ENTER + "/longest off" + ENTER)
    person.type("/model off" + ENTER + "/persona off" + ENTER)
    await person.reads("I no longer use that persona in this conversation.")
    left = await person.queue.preferences.read_all()

    assert [*chosen.values()] == [Preferences(model="large/one", persona="server A pirate.")]
    assert (numbers.temperature, numbers.max_tokens) == (0.5, 50)
    assert "Clever" in shown
    assert left == {}


async def test_a_confirmed_erasure_is_reported_when_it_is_done(
    tmp_path: Path, person: Person
) -> None:
    await person.asks("hello", "Hello world!")
    person.queue.forgetting.is_quick = False
    person.type("/forget-me" + ENTER)
    await person.reads("/forget-me yes")
    assert person.queue.forgetting.people == []
    person.type("/forget-me yes" + ENTER)
    await person.reads("then I cannot answer you")
    person.type("/usage" + ENTER)
    await person.reads("Your questions today: 2")
    person.queue.forgetting.is_quick = True
    await person.reads("I have forgotten everything")
    typed = (tmp_path / "history").read_text()
    person.type("/regenerate" + ENTER)
    await person.reads("There is no question yet.")

    assert typed == ""
    assert stat.S_IMODE((tmp_path / "history").stat().st_mode) == 0o600
    assert len(person.queue.forgetting.people) == 1


async def test_the_last_question_is_edited_while_its_answer_grows_and_after_it(
    person: Person,
) -> None:
    await person.asks("again", "Another one")
    person.type("/edit" + ENTER)
    await until(lambda: person.buffer.text == "again")
    person.type("\x15hello" + ENTER)
    await person.reads("you> hello")
    await person.reads("Hello world!")
    person.type("long" + ENTER)
    await person.reads("you> long")
    await until(lambda: person.sees("On and on"))
    person.type(UP)
    await until(lambda: person.buffer.text == "long")
    person.type("er" + ENTER)
    await person.reads("you> longer")

    first, second = (turn for turn, _ in person.queue.edits)
    assert (first.id, first.text) == (person.queue.turns[0].id, "hello")
    assert (second.id, second.text) == (person.queue.turns[1].id, "longer")


async def test_the_conversation_is_saved_as_the_model_wrote_it_and_no_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, person: Person
) -> None:
    monkeypatch.chdir(tmp_path)
    await person.asks("code", "Done.")
    person.type("/save said.md" + ENTER)
    await person.reads("Saved to")
    person.type("/save said.md" + ENTER)
    await person.reads("exists already")
    person.type("/save" + ENTER)
    await person.reads("/save FILE")
    person.type("/save ~nobody-of-this-name/said.md" + ENTER)
    await person.reads("I cannot write")

    assert "```py\na = 1\nb = 2\n```\nDone." in (tmp_path / "said.md").read_text()


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("y" + ENTER, "allow"), ("A" + ENTER, "always"), (" No " + ENTER, "deny"), (CTRL_C, "deny")],
)
async def test_a_call_is_allowed_or_denied_at_the_input(
    person: Person, typed: str, answer: str
) -> None:
    person.type("ticket" + ENTER)
    await until(lambda: person.is_asked)
    above = person.above()
    person.type(typed)
    await person.reads(f"It is: {answer}.")
    await person.asks("hello", "Hello world!")

    assert above == 'Hm.\n\nMay I call `ticket` with `{"title": "[2JPrinter"}`?\n'
    assert person.decided == [(CALL, answer)]


async def test_a_form_of_a_server_is_filled_in_at_the_input_and_leaves_no_trace(
    person: Person, tmp_path: Path
) -> None:
    person.type("form" + ENTER)
    await until(lambda: person.prompt == "Room[2J: ")
    person.type("five" + ENTER)
    await person.reads("Room[2J: five")
    await until(lambda: person.prompt.endswith("may be empty): "))
    person.type("Blue" + ENTER)
    await person.reads("please enter a whole number.")
    await until(lambda: person.prompt == "Room[2J: ")
    person.type("5" + ENTER)
    await person.reads('It is: answer {"room": 5, "colour": "blue"}.')
    await person.asks("hello", "Hello world!")

    assert person.decided == [(FORM_ID, "answer")]
    kept = [line for line in person.buffer.history.get_strings() if line]
    assert kept == ["form", "hello"]


@pytest.mark.parametrize(("typed", "answer"), [("y" + ENTER, "done"), (CTRL_C, "deny")])
async def test_a_page_to_visit_is_confirmed_by_a_word(
    person: Person, typed: str, answer: str
) -> None:
    person.type("visit" + ENTER)
    await until(lambda: person.is_asked)
    above = person.above()
    person.type(typed)
    await person.reads(f"It is: {answer}.")

    assert "https://example.com/1" in above
    assert person.decided == [(LINK_ID, answer)]


async def test_ctrl_c_denies_a_form(person: Person) -> None:
    person.type("form" + ENTER)
    await until(lambda: person.prompt == "Room[2J: ")
    person.type(CTRL_C)
    await person.reads("It is: deny.")


async def test_a_line_that_began_before_the_question_is_no_answer_to_it(person: Person) -> None:
    await person.asks("hello", "Hello world!")
    person.type("y")
    await until(lambda: person.buffer.text == "y")
    other = replace(person.queue.turns[0], id="console:other", text="ticket")
    await person.queue.admit(other)
    await until(lambda: person.is_asked)
    person.type("es" + ENTER)
    await until(lambda: len(person.queue.turns) == 3)
    assert person.decided == []
    person.type("yes" + ENTER)
    await person.reads("It is: allow.")

    assert person.queue.last.text == "yes"


async def test_a_question_is_whole_in_a_small_window_and_waits_longer_than_an_answer_may(
    store: Store, tmp_path: Path
) -> None:
    async with at_window(store, tmp_path, patience=0.2) as person:
        person.paper.columns = 20
        person.type("ticket" + ENTER)
        await until(lambda: person.is_asked)
        asked = person.window.transcript.growing
        assert asked
        asked.since -= 60
        assert person.window.transcript.overdue(0.2) is None
        above = person.above()
        person.type("n" + ENTER)
        await person.reads("It is: deny.")

    assert " ".join(above.split()) == 'Hm. May I call `ticket` with `{"title": "[2JPrinter"}`?'


async def test_a_question_from_before_a_restart_is_asked_again(
    store: Store, tmp_path: Path
) -> None:
    async with at_window(store, tmp_path, asks_again="console:7") as person:
        await person.reads("you> a ticket")
        await until(lambda: person.is_asked)
        person.type("y" + ENTER)
        await until(lambda: person.decided == [(CALL, "allow")])


async def test_ctrl_c_stops_then_gives_up_then_leaves(person: Person) -> None:
    person.type("stubborn" + ENTER)
    await person.reads("you> stubborn")
    await until(lambda: person.sees("On and on"))
    person.type(CTRL_C)
    await until(lambda: person.sees("Stopped: False."))
    person.type(CTRL_C)
    await person.reads("I no longer wait for that answer.")
    person.type(CTRL_C + "x\x7f" + CTRL_C)
    # What is typed is cleared, and only a line without words is left.
    person.type("a mistake" + CTRL_C)
    await person.asks("hello", "Hello world!")
    person.type(CTRL_C + CTRL_C)
    await person.leaves()

    assert person.queue.forgotten == [person.queue.turns[0].id]


async def test_leaving_ends_what_grows_and_waits(person: Person) -> None:
    person.type("long" + ENTER + "hello" + ENTER)
    await until(lambda: len(person.queue.turns) == 2)
    person.type(CTRL_D)
    await person.leaves()

    assert person.queue.stopped == [person.queue.turns[0].id]
    assert person.queue.forgotten == [person.queue.turns[1].id]


async def test_the_last_exchanges_are_shown_and_can_be_edited(store: Store, tmp_path: Path) -> None:
    me = Author("me", "me")
    said = [Exchange(f"console:{n}", me, n, f"Question {n}", f"**Answer** {n}") for n in range(5)]
    async with at_window(store, tmp_path, *said) as person:
        before = await person.reads("you> Question 2\n\nAnswer 2\n\nyou> Question 3\n\n")
        await person.reads("Answer 4\n")
        person.type("/edit hello" + ENTER)
        await person.reads("Hello world!")

    assert "Question 1" not in before
    assert person.queue.edits[0][0].id == "console:4"


async def test_what_was_typed_is_found_again_after_a_restart_in_a_private_file(
    store: Store, tmp_path: Path
) -> None:
    async with at_window(store, tmp_path) as person:
        await person.asks("hello", "Hello world!")
        await person.asks("again", "Another one")
    async with at_window(store, tmp_path) as person:
        await until(person.buffer.history.get_strings)
        person.type(CTRL_R + "hel" + ENTER + ENTER)
        await person.reads("you> hello")

    assert stat.S_IMODE((tmp_path / "history").stat().st_mode) == 0o600


async def test_a_question_that_is_not_taken_or_answered_gets_an_apology(
    store: Store, tmp_path: Path
) -> None:
    async with at_window(store, tmp_path, patience=0.2) as person:
        person.type("busy" + ENTER)
        await person.reads(ThreadBusy.apology[:30])
        person.type("nothing" + ENTER)
        await person.reads(ParleyError.apology[:30])


async def test_a_question_of_another_terminal_is_shown_too(person: Person) -> None:
    await person.asks("hello", "Hello world!")
    key = person.queue.turns[0].key
    other = replace(person.queue.turns[0], id="console:other", text="again", key=key)
    await person.queue.admit(other)
    await person.reads("you> another's question")
    await person.reads("Another one")


async def test_a_process_at_a_terminal_has_the_window_and_leaves_it_as_it_was(
    store: Store, tmp_path: Path
) -> None:
    async with terminal(store, WINDOW, tmp_path, PROMPT_TOOLKIT_NO_CPR="1", NO_COLOR="1") as it:
        echoed = it.echoes()
        await it.until("/help shows the commands")
        await it.until("you>")
        it.type("hello\r")
        await it.until("Hello ")
        it.type("code\r")
        code = await it.until("Done.")
        it.type("ticket\r")
        await it.until("[n]o:")
        it.type("y\r")
        await it.until("allow.")
        it.type("\x04")
        await it.until("resets: 0")
        status = await it.process.wait()

        assert (status, echoed, it.echoes()) == (0, True, True)
    assert not re.search(r"\x1b\[(\d+;)*(3[0-8]|9[0-7])[;m]", code)


async def test_a_dumb_terminal_is_plain(store: Store, tmp_path: Path) -> None:
    async with terminal(store, WINDOW, tmp_path, TERM="dumb") as it:
        await it.until("/reset forgets it")
        await it.until_prompt()
        it.type("hello\r")
        await it.until("bot> Hello `world`!")
