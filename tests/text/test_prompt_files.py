"""Files in a prompt: each once, the newest first, and never beyond the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bot.domain import ContextMessage, Exchange, FileRef, FileText, Message
from bot.model.context_window import FittedPrompt, fit
from bot.text.files import FILES_NOTICE
from bot.text.graphemes import CUT
from bot.text.prompt import compose
from tests.text.test_prompt import BOB, WORDS, exchange, said, size

NAMES = ("a.txt", "b.txt", "c.txt")
FILES = {name: FileText(name, f"text of {name} " * 3) for name in NAMES}


def refs(*names: str) -> tuple[FileRef, ...]:
    return tuple(FileRef(name, "console:1", name, 1, {}) for name in names)


def with_files(question: str, *names: str) -> Exchange:
    return replace(exchange(question, f"answer {question}"), files=refs(*names))


def ask(
    *exchanges: Exchange,
    files: Sequence[str] = (),
    budget: int = 10_000,
    texts: dict[str, FileText] = FILES,
    quote: ContextMessage | None = None,
    text: str = "now?",
) -> FittedPrompt:
    """Build a prompt in which a token is a character."""
    turn = replace(said(text), files=refs(*files), quote=quote)
    messages = compose(system="Be kind.", exchanges=exchanges, turn=turn, files=texts)
    return fit(messages, budget=budget, count=size)


def named(message: Message) -> list[str]:
    """Return the names of the files that a message shows."""
    return [name for name in NAMES if f'[File "{name}"' in message.text]


def test_files_stand_before_the_questions_that_brought_them() -> None:
    prompt = ask(with_files("one", "a.txt", "b.txt"), files=["c.txt"])

    system, first, _, last = prompt.messages
    assert FILES_NOTICE in system.text
    assert (named(first), named(last)) == (["a.txt", "b.txt"], ["c.txt"])
    assert first.text.endswith("[End of file]\none")
    assert prompt.messages[-1].files == (FILES["c.txt"],)


def test_a_file_stands_before_the_last_question_that_shows_it() -> None:
    quote = ContextMessage("console:7", BOB, "Look!", files=refs("a.txt"))

    _, first, _, last = ask(with_files("one", "a.txt", "b.txt"), quote=quote).messages

    assert (named(first), named(last)) == (["b.txt"], ["a.txt"])


def test_a_file_whose_text_is_not_kept_is_only_named() -> None:
    _, first, *_ = ask(with_files("one", "a.txt"), texts={}).messages

    assert first.text == '[File "a.txt": its text is not shown here]\none'


def test_the_files_of_exchanges_that_are_dropped_stay() -> None:
    long = [exchange("x" * 200, "y" * 200) for _ in range(3)]
    exchanges = [with_files("one", "a.txt"), *long, with_files("two", "b.txt")]

    prompt = ask(*exchanges, files=["c.txt"], budget=1_000)

    _, first, *_, last = prompt.messages
    assert prompt.dropped > 1
    assert named(last) == ["c.txt"]
    assert [name for one in prompt.messages for name in named(one)] == list(NAMES)
    assert named(first)[0] == "a.txt"


def test_hundreds_of_files_in_a_thread_leave_room_for_that_of_the_question() -> None:
    names = [f"{number}.png" for number in range(300)]
    quote = ContextMessage("console:7", BOB, "Look!", files=refs(*names))

    last = ask(files=["a.txt"], quote=quote).messages[-1]

    assert last.files[0] == FILES["a.txt"]
    assert "| text of a.txt" in last.text
    assert len(last.files) == 301


def test_newer_files_have_room_first() -> None:
    texts = {name: FileText(name, f"{name} " * 100) for name in NAMES}

    prompt = ask(
        with_files("1", "a.txt"),
        with_files("2", "b.txt"),
        texts=texts,
        files=["c.txt"],
        budget=1_600,
    )

    counts = [sum(one.text.count(f"{name} ") for one in prompt.messages) for name in NAMES]
    assert counts[2] == 100
    assert 0 < counts[1] < 100
    assert counts[0] == 0


@given(
    st.lists(st.tuples(WORDS, WORDS, st.sampled_from(NAMES)), max_size=4),
    st.lists(st.sampled_from(NAMES), max_size=3),
    st.integers(0, 3_000),
    WORDS,
    st.integers(50, 1_500),
)
def test_no_files_lead_beyond_the_budget(
    talk: list[tuple[str, str, str]], files: list[str], length: int, text: str, budget: int
) -> None:
    texts = {name: FileText(name, "word\n" * (length // 5) + "\fmore", "page", 3) for name in NAMES}
    exchanges = [
        replace(exchange(question, answer), files=refs(name)) for question, answer, name in talk
    ]

    prompt = ask(*exchanges, texts=texts, files=files, budget=budget, text=text)

    system, *rest = prompt.messages
    assert [one.role for one in rest] == ["user", "assistant"] * (len(rest) // 2) + ["user"]
    smallest = [system, Message("user", CUT)]
    assert size(prompt.messages) <= max(budget, size([system, Message("user", text)])) or (
        size(smallest) > budget
    )
