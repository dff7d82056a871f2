"""Counting prompts: as mistral-common does for Mistral's model, and about right for others."""

from __future__ import annotations

import importlib.util
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.domain import Message
from bot.tokens.counters import MistralCounter, TokenEstimator, read_mistral

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
