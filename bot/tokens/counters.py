"""Ways to count the tokens of a prompt: carefully for any model, exactly for Mistral's."""

from __future__ import annotations

import collections
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bot.domain import Message
from bot.tokens.estimate import MESSAGE_OVERHEAD, TEMPLATE_ONCE, estimate, words

COUNT_SECONDS = 5.0  # for a text by its tokenizer; 40,000 characters take some 0.05
_REMEMBERED = 20_000  # texts; a thread's history is counted again with every turn
_MEASURED = 500  # prompts
# Llama 2's tokenizer.json may make a text four times longer, by its own words. Where one goes on
# for ever, no memory is enough, and a library in Rust takes the process along.
_MOST_GROWTH = 32

# How much more a model may need than was counted: usage beyond it is somebody's mistake.
_MOST = 3.0
# What is missed beside so little text, in tokens, tells of the template and not of the texts.
_SHORT = 400
_FEW = 8  # tokens; as little is the template's in any prompt
_TEMPLATE = 640  # tokens that a template may say once beyond its reserve

_Mark = tuple[str, int, int]  # a message's role, its text's hash and least tokens


class Counter(Protocol):
    """Counts the tokens of a prompt with what the model's template puts around its messages."""

    @property
    def exact(self) -> bool:
        """Whether it counts as the model's server does, and not rather too many."""
        ...

    @property
    def reserve(self) -> int:
        """Tokens that the template may say once, beside what is counted."""
        ...

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a prompt, as far as this counter knows never too few."""
        ...

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Hear how many tokens the server found in a prompt."""
        ...


class Texts:
    """Counts of texts, remembered by the text's hash, so that no text is kept."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._known: dict[tuple[int, int], int] = {}

    def count(self, text: str) -> int:
        """Return the tokens of a text; any thread may ask."""
        key = hash(text), len(text)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[key] = self._count(text)
        return known


class Measured:
    """Prompts whose tokens a server told, remembered by their texts' hashes.

    `least` counts what a text cannot be less than.
    """

    def __init__(self, least: Callable[[str], int]) -> None:
        self._least = least
        self._known: dict[_Mark, tuple[collections.Counter[_Mark], int]] = {}

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Hear how many tokens a server found in a prompt."""
        marks = self._marks(prompt)
        self._known.pop(marks[-1], None)
        self._known[marks[-1]] = collections.Counter(marks), used
        if len(self._known) > _MEASURED:
            del self._known[next(iter(self._known))]

    def since(self, prompt: Sequence[Message]) -> tuple[int, list[Message]] | None:
        """Return the most that is left of the newest prompt that this one goes on, and what is new.

        What is gone from it was no less than its least.
        """
        marks = self._marks(prompt)
        # A thread may ask while the loop learns.
        known = next(filter(None, map(self._known.get, reversed(marks))), None)
        if known is None:
            return None
        gone, used = known[0].copy(), known[1]
        new = []
        for message, mark in zip(prompt, marks, strict=True):
            if gone[mark]:
                gone[mark] -= 1
            else:
                new.append(message)
        return used - sum(mark[-1] * times for mark, times in gone.items()), new

    def _marks(self, prompt: Sequence[Message]) -> list[_Mark]:
        return [(each.role, hash(each.text), self._least(each.text)) for each in prompt]


class Correction:
    """What servers found beyond a count: it only grows, for the next text may be odder still."""

    def __init__(self) -> None:
        self._more = 0
        self._factor = 1.0

    def correct(self, counted: int) -> int:
        """Return a count with what was missed before."""
        return math.ceil((counted + self._more) * self._factor)

    def learn(self, counted: int, used: int, *, template: int = _TEMPLATE) -> None:
        """Hear what a server found where so much was counted, corrections included.

        `template` is the most that the template may have said of what was missed.
        """
        missed = used - counted
        if counted <= 0 or missed <= 0:
            return
        little = missed <= _FEW or counted <= _SHORT
        if little and self._more + missed <= min(template, _TEMPLATE):
            self._more += missed
        else:
            # The next prompt may miss by a little more than this one.
            self._factor = min(self._factor * used / counted * 1.02, _MOST)


class Template:
    """What a chat template adds: at first as much as any may, then what a server's counts leave."""

    def __init__(self) -> None:
        self._each = float(MESSAGE_OVERHEAD)
        self.once = TEMPLATE_ONCE

    def around(self, messages: int) -> int:
        """Return the tokens around so many messages."""
        return math.ceil(messages * self._each)

    def learn(self, messages: int, left: int) -> None:
        """Hear what is left of a server's count without the least that the texts can be.

        The template's words are no more than that, wherever they stand.
        """
        self._each = min(self._each, left / messages)
        self.once = min(self.once, left)


class TokenEstimator:
    """Counts by a count of texts that may miss, and corrects it by what servers tell.

    The texts' count is corrected upwards only, for the next text may be in another language; what
    was counted by a server is known, and a prompt that goes on from it has the count for what is
    new alone. The template's share begins with more than the templates in use say, and comes down
    with the first answer to a short prompt. `least` counts what a text cannot be less than.
    """

    exact = False

    def __init__(
        self, count: Callable[[str], int] = estimate, *, least: Callable[[str], int] = words
    ) -> None:
        self._texts = Texts(count)
        self._least = self._texts if least is count else Texts(least)
        self._template = Template()
        self._correction = Correction()
        self._measured = Measured(self._least_of)

    @property
    def reserve(self) -> int:
        """Tokens that the template may say once, beside what is counted."""
        return self._template.once

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a prompt, too many rather than too few."""
        counted = self._count(prompt)
        if (since := self._measured.since(prompt)) is None:
            return counted
        known, new = since
        return min(counted, known + self._count(new) + _FEW)

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Count more from now on where the server did, and less for the template where it may."""
        least = sum(self._least_of(message.text) for message in prompt)
        left = used - least
        if left >= len(prompt):  # a sign around each message is the least; else the count is odd
            self._template.learn(len(prompt), left)
            self._measured.learn(prompt, used)
        said = self._template.once
        self._correction.learn(self._count(prompt), used - said, template=max(left - said, 0))

    def _least_of(self, text: str) -> int:
        # Templates leave out what a model thought before it answered (Qwen 3's, DeepSeek R1's).
        return self._least.count(text.rpartition("</think>")[2])

    def _count(self, messages: Sequence[Message]) -> int:
        found = sum(self._texts.count(message.text) for message in messages)
        return self._correction.correct(found + self._template.around(len(messages)))


class MistralCounter:
    """Counts as mistral-common does for Mistral-7B-Instruct-v0.3: its text tokens and its template.

    The template is that of the tokenizer's version 3 (mistral_common 1.13, tokens/tokenizers/
    instruct.py, InstructTokenizerV3): `<s>`, then `[INST]`, the text and `[/INST]` for each
    question, the text and `</s>` for each answer. The system prompt stands within the last
    question, two newlines before its text.
    """

    exact = True
    reserve = 0

    def __init__(self, count: Callable[[str], int]) -> None:
        self._texts = Texts(count)
        self._correction = Correction()

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a composed prompt."""
        system = prompt[0].text + "\n\n" if prompt[0].role == "system" else ""
        *said, asked = prompt[1:] if system else prompt
        found = 1 + self._texts.count(system + asked.text) + 2
        for message in said:
            if message.role == "user":
                found += self._texts.count(message.text) + 2
            else:
                found += self._texts.count(message.text.rstrip(" ")) + 1
        return self._correction.correct(found)

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Count more from now on where the server did: its model is another than it is called."""
        self._correction.learn(self.count(prompt), used)


class _Tried:
    """A tokenizer's count of a text, until it fails or takes too long; then the estimate's."""

    def __init__(
        self, tokens: Callable[[str], int], *, seconds: float, failed: Callable[[str], object]
    ) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._failed = failed
        self._telling = threading.Lock()
        self._is_over = False

    def __call__(self, text: str) -> int:
        """Return the tokens of a text; any thread may ask."""
        found: list[int] = []
        why = [f"it takes more than {self._seconds:g} s for a text"]

        def count() -> None:
            try:
                found.append(self._tokens(text))
            # A panic of a library in Rust is no Exception, and may repeat the text.
            except BaseException as error:
                why[:] = [type(error).__name__]

        if not self._is_over:
            # A daemon: nothing ends an expression that is tried for hours.
            thread = threading.Thread(target=count, name="tokens", daemon=True)
            thread.start()
            thread.join(self._seconds)
            if found:
                return found[0]
            self._give_up(why[0])
        return estimate(text)

    def _give_up(self, why: str) -> None:
        with self._telling:
            is_first, self._is_over = not self._is_over, True
        if is_first:
            self._failed(why)


def mistral(path: Path) -> MistralCounter:
    """Read the tokenizer's file `tokenizer.model.v3`; takes a moment and blocks.

    ImportError without sentencepiece, ValueError for a file that is another's.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path.name} is no tokenizer") from error
    if processor.vocab_size() != 32_768 or processor.piece_to_id("[INST]") != 3:
        raise ValueError(f"{path.name} is not the tokenizer of Mistral-7B-Instruct-v0.3")
    return MistralCounter(lambda text: len(processor.encode(_encodable(text))))


def of_file(
    path: Path, *, failed: Callable[[str], object], seconds: float = COUNT_SECONDS
) -> TokenEstimator:
    """Read another model's `tokenizer.json`; takes a moment and blocks.

    If it raises or takes more than so many `seconds` for a text, `failed` is told why, once, and
    all texts are estimated from then on.

    Its chat template is not followed, for the server may have another: reserves stand for it, as
    with the estimate, until the first answer tells. ImportError without tokenizers, ValueError for
    a file that cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path.name} cannot be read") from error
    # What a person writes is text, though it may look like a sign of the template.
    tokenizer.encode_special_tokens = True
    # What a file may ask for beyond a text's tokens: fewer of them, or more than memory can hold.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.post_processor = None
    if _growth_in(tokenizer.normalizer) * _growth_in(tokenizer.pre_tokenizer) > _MOST_GROWTH:
        raise ValueError(f"{path.name} may make texts too long")

    def tokens(text: str) -> int:
        # `encode` would hold Python's lock (tokenizers 0.23, run).
        return len(tokenizer.encode_batch([_encodable(text)], add_special_tokens=False)[0].ids)

    count = _Tried(tokens, seconds=seconds, failed=failed)
    return TokenEstimator(count, least=count)


def _growth_in(part: Any) -> float:
    """Return how many times longer a text may become in a part of a tokenizer."""
    return 1 if part is None else _growth(json.loads(part.__getstate__()))


def _growth(step: Mapping[str, Any]) -> float:
    match step:
        case {"normalizers": [*steps]} | {"pretokenizers": [*steps]}:
            return math.prod(map(_growth, steps))
        case {"type": "Replace", "content": str(text)} | {"type": "Prepend", "prepend": str(text)}:
            return 1 + len(text)
        case {"type": "ByteLevel" | "Metaspace"}:
            return 2
        case {"type": "Precompiled"}:  # anything may stand in it for a character
            return math.inf
        case _:
            return 1


def _encodable(text: str) -> str:
    # Half a surrogate pair, which JSON may bring, is no text.
    return text.encode("utf-8", "replace").decode()
