"""Counting prompts: as mistral-common does for Mistral's model, and rather too many for others."""

from __future__ import annotations

import importlib.util
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import Message
from bot.tokens.counters import (
    TEMPLATE_ONCE,
    MistralCounter,
    TokenEstimator,
    estimate,
    read_mistral,
)

CHATS = 150
ROLES = ("user", "assistant")
SCRIPTS = (
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x370, 0x530),
    (0x590, 0x700),
    (0x900, 0xE80),
    (0x1100, 0x1200),
    (0x1E00, 0x2100),
    (0x3040, 0x3100),
    (0x4E00, 0xA000),
    (0xAC00, 0xD7A4),
    (0x1F300, 0x1FB00),
    (0x10000, 0x110000),
)
SIGNS = [
    "[INST]",
    "[/INST]",
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
    "▁",
    "[AVAILABLE_TOOLS]",
    "[control_9]",
]
WORDS = [
    "the",
    "Größe",
    "привет",
    "世界",
    "🙂",
    "don't",
    "x=1;",
    "naïve",
    "مرحبا",
    "नमस्ते",
    "\u200b",
]
CODE = Path(__file__).read_text(encoding="utf-8")


def make_text(dice: random.Random) -> str:
    """Return a text of one of many kinds, never empty."""
    size = dice.randrange(1, 120)

    def some(characters: Sequence[str], times: int = 1) -> str:
        return "".join(dice.choices(characters, k=size * times))

    low, high = dice.choice(SCRIPTS)
    start = dice.randrange(len(CODE))
    kinds: list[Callable[[], str]] = [
        lambda: "".join(chr(dice.randrange(low, high)) for _ in range(size)),
        lambda: some(" \t\n\r\u00a0\u3000\u2028a"),
        lambda: "".join(chr(dice.randrange(0x20)) for _ in range(size)),
        lambda: some(string.ascii_lowercase, 20),  # one very long word
        lambda: dice.choice(["a", "=", " ", "\n", "ab", "é", "哈"]) * size * 5,
        lambda: " ".join(dice.choices(WORDS, k=size)),
        lambda: CODE[start : start + size * 5] or "pass",
        lambda: some(SIGNS + WORDS),
        lambda: some(string.printable, 3),
        lambda: dice.choice([" ", "  ", "\n", ""]) + dice.choice(WORDS) + " " * dice.randrange(4),
    ]
    return dice.choice(kinds)()


def make_chat(dice: random.Random) -> list[Message]:
    """Return a composed prompt of up to six exchanges."""
    said = [
        Message("user" if place % 2 == 0 else "assistant", make_text(dice))
        for place in range(2 * dice.randrange(7) + 1)
    ]
    # mistral-common takes no answer of white space alone; the bot sends none.
    said = [each if each.text.strip() else Message(each.role, "well " + each.text) for each in said]
    return [Message("system", make_text(dice)), *said] if dice.random() < 0.5 else said


def v3() -> Path:
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("mistral-common is missing: pip install -r requirements-dev.txt")
    return Path(spec.origin).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"


@pytest.fixture(scope="module")
def counter() -> MistralCounter:
    return read_mistral(v3())


@pytest.fixture(scope="module")
def reference() -> Callable[[Sequence[Message]], int]:
    """Count as mistral-common does: what the model's makers take for the truth."""
    v3()
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    tokenizer = MistralTokenizer.from_file(str(v3()))

    def count(prompt: Sequence[Message]) -> int:
        messages = [{"role": each.role, "content": each.text} for each in prompt]
        request: Any = ChatCompletionRequest.model_validate({"messages": messages})
        return len(tokenizer.encode_chat_completion(request).tokens)

    return count


@pytest.mark.filterwarnings("ignore")
def test_mistrals_prompts_are_counted_as_mistral_common_counts_them(
    counter: MistralCounter, reference: Callable[[Sequence[Message]], int]
) -> None:
    dice = random.Random(2403)
    chats = [make_chat(dice) for _ in range(CHATS)]

    wrong = [chat for chat in chats if counter.count(chat) != reference(chat)]

    assert wrong == []


def test_any_part_of_a_prompt_is_counted(counter: MistralCounter) -> None:
    chat = [
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "Why?"),
    ]

    counts = [counter.count(chat[:length]) for length in range(5)]

    assert counts == sorted(set(counts))
    assert counter.count(chat[:1]) < counter.count([*chat[:1], Message("user", "Hi")])


def test_half_a_surrogate_pair_is_counted(counter: MistralCounter) -> None:
    assert counter.count([Message("user", "\ud83d")]) > 3


def test_the_estimator_does_not_count_less_than_mistral(counter: MistralCounter) -> None:
    dice = random.Random(7)
    estimator = TokenEstimator()
    chats = [[Message("user", " ".join(dice.choices(WORDS, k=200)))] for _ in range(100)]

    assert all(estimator.count(chat) >= counter.count(chat) for chat in chats)


def test_the_estimate_is_not_below_mistrals_count(counter: MistralCounter) -> None:
    dice = random.Random(11)
    texts = [make_text(dice)[: dice.choice([3, 12, 60, 2000])] for _ in range(CHATS)]

    # Without the template's three tokens.
    missed = [t for t in texts if estimate(t) < counter.count([Message("user", t)]) - 3]

    assert missed == []


@pytest.mark.parametrize("content", [b"", b"no tokenizer", b"\x00" * 100])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("sentencepiece")
    path = tmp_path / "tokenizer.model.v3"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"tokenizer\.model\.v3"):
        read_mistral(path)


def test_a_text_is_counted_once() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    counter = TokenEstimator(count)
    for text in ("one", "one", "three"):
        counter.count([Message("user", text)])

    assert counted == ["one", "three"]


PROMPT = [Message("user", "word " * 100)]


def room_for(counter: TokenEstimator | MistralCounter, prompt: Sequence[Message]) -> int:
    """Return the tokens that are kept free for a prompt."""
    return counter.count(prompt) + counter.reserve


def test_what_a_server_found_beyond_a_count_is_added_from_then_on() -> None:
    counter = TokenEstimator(lambda text: len(text) // 8)
    counter.learn([Message("user", "Hi")], 10)

    counter.learn(PROMPT, 108)

    assert room_for(counter, PROMPT) >= 108


def test_a_few_tokens_more_are_the_templates() -> None:
    counter = MistralCounter(len)
    before = counter.count(PROMPT)

    counter.learn(PROMPT, before + 3)

    assert (counter.count(PROMPT), counter.reserve) == (before, 3)


def test_the_templates_reserve_comes_down_with_the_first_answer_to_a_short_prompt() -> None:
    counter = TokenEstimator()
    before = room_for(counter, PROMPT)

    counter.learn([Message("system", "Be brief."), Message("user", "Hi")], 14)

    assert counter.reserve <= 11
    assert room_for(counter, PROMPT) < before - TEMPLATE_ONCE + 20


def test_a_template_that_says_much_keeps_its_reserve() -> None:
    counter, short = TokenEstimator(), [Message("user", "Hi")]

    for _ in range(3):
        counter.learn(short, 600)

    assert counter.reserve == 599
    assert room_for(counter, PROMPT) >= 600 + 100


@pytest.mark.parametrize("used", [0, 1, 50])
def test_a_server_that_counts_fewer_tokens_than_words_lowers_nothing(used: int) -> None:
    counter = TokenEstimator()
    before = room_for(counter, PROMPT)

    counter.learn(PROMPT, used)

    assert room_for(counter, PROMPT) == before


@pytest.mark.parametrize("counter", [TokenEstimator(), MistralCounter(lambda text: len(text))])
def test_what_a_template_says_once_is_not_taken_for_more_in_every_text(
    counter: TokenEstimator | MistralCounter,
) -> None:
    short, long = [Message("user", "Hi")], [Message("user", "word " * 2000)]
    before = room_for(counter, long)

    for _ in range(3):
        counter.learn(short, 75)

    assert room_for(counter, short) >= 75
    assert room_for(counter, long) < before + 75


def test_what_is_missed_in_a_long_prompt_is_expected_in_every_text() -> None:
    counter, long = MistralCounter(lambda text: len(text)), [Message("user", "word " * 2000)]
    before = counter.count(long)

    counter.learn(long, before + 100)

    assert counter.count([Message("user", "word " * 4000)]) > 2 * before + 190


def make_talk(exchanges: int) -> list[Message]:
    said = [
        message
        for n in range(exchanges)
        for message in (
            Message("user", f"What is {n}? " + PROSE),
            Message("assistant", f"It is {n}. " + PROSE),
        )
    ]
    return [*said, Message("user", "And now?")]


PROSE = "It is easier to balance at speed: a small turn of the handlebar moves the wheels. " * 5


def test_a_prompt_that_goes_on_from_a_counted_one_is_estimated_for_what_is_new_alone() -> None:
    counter, talk = TokenEstimator(), make_talk(20)
    used = 2 * 20 * 95
    before = counter.count(talk)
    counter.learn(talk, used)

    more = [*talk, Message("assistant", "世界 " * 100), Message("user", "Why?")]

    fresh = TokenEstimator().count(more[-2:])
    assert used <= counter.count(talk) <= used + 1 < before
    assert used + 300 <= counter.count(more) <= used + fresh + 1
    # What went had a token for each of its words at least.
    assert counter.count(more[10:]) < counter.count(more) - 2 * 5 * 75


def test_texts_of_several_languages_each_have_their_own_count() -> None:
    counter, dense = TokenEstimator(), Message("user", "deadbeef0123" * 100)
    talk = make_talk(5)
    counter.learn(talk, 1000)

    counter.learn([*talk, dense], 2000)

    assert 999 <= counter.count([dense]) <= 1001
    assert counter.count(talk) <= 1001


def test_a_new_text_is_counted_carefully_whatever_the_others_were() -> None:
    counter, other = TokenEstimator(), [Message("user", "世界 " * 300), Message("user", "And now?")]
    before = counter.count(other)

    counter.learn(make_talk(20), 4000)

    assert before - 50 <= counter.count(other) <= before
    assert counter.count(other) >= 300 * 3


def test_a_count_that_contradicts_the_others_is_shared_anew() -> None:
    counter, talk, new = TokenEstimator(), make_talk(5), Message("user", "Why is that so, then?")
    counter.learn(talk, 1500)

    counter.learn([*talk, new], 900)

    assert counter.count([*talk, new]) <= 901
    assert counter.count(talk) < 900
    assert counter.count([new]) > 0


def test_thoughts_that_a_template_leaves_out_are_no_obstacle() -> None:
    thought = Message("assistant", "<think>" + "so " * 400 + "</think>Well.")
    talk = [Message("user", "Hi"), thought, Message("user", "世界 " * 200), *make_talk(1)]
    counter = TokenEstimator()

    counter.learn(talk, 390)

    assert counter.count(talk) <= 391


def test_an_estimate_is_of_the_texts_alone() -> None:
    counter, talk = TokenEstimator(), make_talk(5)
    before = counter.estimate(talk)

    counter.learn(talk, 1000)

    assert counter.estimate(talk) == before > counter.count(talk)


def test_only_so_many_counts_are_remembered() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return 1

    counter = TokenEstimator(count)
    texts = [Message("user", f"word {n}") for n in range(20_001)]
    for prompt in (texts[:1], texts[:1], texts, texts[:1]):
        counter.count(prompt)

    assert counted.count("word 0") == 2


def test_only_so_many_texts_are_remembered() -> None:
    counter = TokenEstimator()
    texts = [Message("user", f"word {n}") for n in range(20_001)]
    before = counter.count(texts[:1])
    counter.learn(texts, 8 * len(texts))
    learned = counter.count(texts[:1])

    counter.learn([Message("user", "a last word")], 9)

    assert learned < counter.count(texts[:1]) == before


@given(
    heard=st.lists(st.tuples(st.integers(1, 300), st.integers(-5, 50_000))),
    words=st.integers(1, 300),
)
def test_a_correction_is_bounded(heard: list[tuple[int, int]], words: int) -> None:
    prompt = [Message("user", "word " * words)]
    counter = TokenEstimator()
    plain = counter.count(prompt)

    for said, used in heard:
        counter.learn([Message("user", "word " * said)], used)

    assert words <= room_for(counter, prompt) <= 3 * (plain + TEMPLATE_ONCE) + TEMPLATE_ONCE + 1


def test_a_text_whose_count_cannot_be_right_takes_no_more_than_it_may() -> None:
    prompt = [Message("user", "word " * 100)]
    counter = TokenEstimator()
    plain = counter.count(prompt)

    counter.learn(prompt, 10**9)

    assert plain < counter.count(prompt) <= 3 * plain + TEMPLATE_ONCE + 1
