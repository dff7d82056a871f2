"""Counters for the tokens of a prompt: an estimate for any model, exact ones for known models."""

from __future__ import annotations

import json
import math
import re
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Protocol, TypeGuard

from bot.domain import Message

# The tokens that a chat template adds to a message if the vocabulary spells its marks as text:
# ChatML and Gemma's 15 to 18 tokens, OpenChat's 13 to 16, Zephyr's 10 to 15, Phi's 10 to 13
# (templates of llama.cpp, src/llama-chat.cpp, in 21 vocabularies, run). As control tokens they are
# 1 to 7, and Qwen3's with its empty thoughts 10. The marks of Llama 3, Command R and Granite would
# cost more as text, but their vocabularies have them.
MESSAGE_OVERHEAD = 20

# The tokens that a template may add once, however short the prompt: Command R7B's preambles are 515
# to 606 tokens (llama.cpp, models/templates), gpt-oss' header some 100, Granite's 48, Llama 3.1's
# date 28.
TEMPLATE_ONCE = 640

_MOST_TOKENS = 10**9  # far above any context, and sums stay numbers

# The letters that often follow each letter in English prose and code. Vocabularies have long pieces
# of such pairs, while another pair mostly ends a piece.
# fmt: off
_FOLLOWERS = {
    "a": "bcdgiklmnprstuvy", "b": "aejlouy", "c": "aehiklortu", "d": "adeiosu",
    "e": "abcdeflmnpqrstvwxy", "f": "aeiortu", "g": "eghiru", "h": "aeiort",
    "i": "abcdefglmnorstv", "j": "e", "k": "e", "l": "adefilostuy", "m": "abeimops",
    "n": "acdegilnostuy", "o": "bcdfgklmnoprstuvw", "p": "aehiloprsty", "q": "u",
    "r": "adegiklmnorstuwy", "s": "acehilopstuy", "t": "aehioprstuy", "u": "bceilmnprst",
    "v": "aei", "w": "aehinor", "x": "t", "y": "nopt", "z": "",
}
# fmt: on

_WORD = re.compile("[A-Z]?[a-z]+")
_RARE_PAIR = re.compile(
    "|".join(
        f"{first}(?=[{''.join(sorted({*ascii_lowercase} - {*often}))}])"
        for first, often in _FOLLOWERS.items()
    )
)
_SPACE_OF_WORD = re.compile("(?<! ) (?=[A-Za-z])")
_LATE_LETTER = re.compile("(?<=[a-z]{12})[a-z]")
# In tokens.
_PER_LETTER = 0.35  # of a word, after its first
_PER_LATE_LETTER = 0.65  # more after the twelfth, because such long words are rare
_PER_RARE_PAIR = 0.5
_PER_TEXT = 4  # short texts vary more than long ones
# Small Greek and Russian letters are in every vocabulary; any other may be spelled in its bytes.
_SMALL_GREEK_OR_CYRILLIC = re.compile("[ά-ώа-џ]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_PIECE_LENGTH = 256  # characters

COUNT_SECONDS = 5.0  # for a text by its tokenizer; 40,000 characters take some 0.05
_REMEMBERED_TEXTS = 20_000  # a thread's history is counted again with every turn
# Llama 2's tokenizer.json may make a text four times longer. Without a limit a tokenizer could use
# up the memory, and a library in Rust then ends the process.
_MOST_GROWTH = 32
_MOST_RATIO = 3.0  # of a server's count to ours; beyond it, one of them is wrong
# In a prompt of up to this many tokens, the difference to a server's count is due to the template.
_SHORT_TOKENS = 400
_FEW_TOKENS = 8  # a difference this small is always due to the template


def estimate(text: str) -> int:
    """Return an upper bound of the tokens for common tokenizers.

    English counts twice what most of them need (`python -m bench.tokens`). It is never more than a
    token for each byte, which byte-level and byte-fallback vocabularies do not exceed.
    """
    if not text:
        return 0
    size, beyond_ascii = _bytes(text), _count(_BEYOND_ASCII, text)
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    # A capital, digit, mark or control character is a token; a space belongs to the word after it.
    others = len(text) - beyond_ascii - letters - _count(_SPACE_OF_WORD, text)
    plain = len(words) + _PER_LETTER * (letters - len(words))
    plain += _PER_RARE_PAIR * _count(_RARE_PAIR, text)
    plain += _PER_LATE_LETTER * _count(_LATE_LETTER, text)
    rest = size - (len(text) - beyond_ascii) - 0.35 * _count(_SMALL_GREEK_OR_CYRILLIC, text)
    # SentencePiece puts a space before the text.
    return min(math.ceil(plain + others + rest) + _PER_TEXT, size + 1)


def least_tokens(text: str) -> int:
    """Return a lower bound of the tokens for common tokenizers."""
    return len(text.split())


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value from a server can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


def _bytes(text: str) -> int:
    # Python sorts a run of combining marks in quadratic time, and blocks all threads meanwhile.
    pieces = [text[at : at + _PIECE_LENGTH] for at in range(0, len(text), _PIECE_LENGTH)]
    # A lone surrogate, which JSON may bring, counts too. Some vocabularies see a compatible
    # form of the text, which is longer if one character is an abbreviation of several.
    forms = [(piece, unicodedata.normalize("NFKC", piece)) for piece in pieces]
    return sum(max(len(form.encode("utf-8", "surrogatepass")) for form in pair) for pair in forms)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return len(pattern.findall(text))


class Counter(Protocol):
    """Counts the tokens of a prompt with what the model's template puts around its messages."""

    exact: bool  # it counts as the model's server does, instead of rather too many
    reserve: int  # tokens that the template may add once, besides those counted

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a prompt or a part of one, rather too many than too few."""
        ...

    def estimate(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a prompt by its texts alone, without earlier counts of servers."""
        ...

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Record how many tokens a server found in a prompt."""
        ...


def _remembering(count: Callable[[str], int]) -> Callable[[str], int]:
    """Cache counts by the hash of the text, so that no text is stored; thread-safe."""
    known: dict[tuple[int, int], int] = {}

    def counted(text: str) -> int:
        key = hash(text), len(text)
        if (found := known.get(key)) is None:
            if len(known) >= _REMEMBERED_TEXTS:
                known.clear()
            found = known[key] = count(text)
        return found

    return counted


class TokenEstimator:
    """Estimates prompts for any model, and learns from the counts that servers report.

    A new text is counted by `count`, times a ratio that only rises: the next text may be in another
    language. Once a server has counted a prompt, each of its texts has a share of that count. The
    reserve begins above the templates in use, and shrinks with the first answer to a short prompt.
    """

    exact = False

    def __init__(self, count: Callable[[str], int] = estimate) -> None:
        self.reserve = TEMPLATE_ONCE
        self._count = _remembering(count)
        self._ratio = 1.0
        self._shares: dict[tuple[int, int], float] = {}  # of texts in server counts, in tokens

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a prompt, too many rather than too few."""
        return math.ceil(
            sum(
                self._shares.get(_key(message), self._estimate(message) * self._ratio)
                for message in prompt
            )
        )

    def estimate(self, prompt: Sequence[Message]) -> int:
        """Return the estimate, without the shares."""
        return math.ceil(sum(map(self._estimate, prompt)) * self._ratio)

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Share a server's count among the new texts, or among all if it is too low for that."""
        least = sum(_least(message) for message in prompt)
        if used < least + len(prompt):  # a mark around each message is the least
            return
        new = [message for message in prompt if _key(message) not in self._shares]
        left = used - self.count([message for message in prompt if _key(message) in self._shares])
        if not new or left < sum(_least(message) for message in new) + len(new):
            new, left = list(prompt), used
        estimated = sum(map(self._estimate, new))
        left = min(left, int(estimated * _MOST_RATIO) + TEMPLATE_ONCE)
        ratio = (left - self.reserve) / estimated
        self._ratio = min(max(self._ratio, ratio), _MOST_RATIO)
        self.reserve = min(self.reserve, used - least)
        if len(self._shares) >= _REMEMBERED_TEXTS:
            self._shares.clear()
        for message in new:
            self._shares[_key(message)] = self._estimate(message) * left / estimated

    def _estimate(self, message: Message) -> int:
        return self._count(message.text) + MESSAGE_OVERHEAD


def _key(message: Message) -> tuple[int, int]:
    return hash(message.text), len(message.text)


def _least(message: Message) -> int:
    # Templates drop a model's thoughts before its answer (Qwen 3's, DeepSeek R1's).
    return least_tokens(message.text.rpartition("</think>")[2])


class MistralCounter:
    """Counts as mistral-common does for Mistral-7B-Instruct-v0.3: its text tokens and its template.

    The template is that of the tokenizer's version 3 (mistral_common 1.13, tokens/tokenizers/
    instruct.py, InstructTokenizerV3): `<s>`, then `[INST]`, the text and `[/INST]` for each
    question, the text and `</s>` for each answer. The system prompt precedes the text of the
    last question, with two newlines between.
    """

    exact = True

    def __init__(self, count: Callable[[str], int]) -> None:
        self.reserve = 0
        self._count = _remembering(count)
        self._ratio = 1.0

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a composed prompt, or of a part of one, such as its beginning."""
        said = [*prompt]
        system = said.pop(0).text + "\n\n" if said and said[0].role == "system" else ""
        last = said.pop().text if said else ""
        found = 1 + self._count(system + last) + 2
        for message in said:
            if message.role == "user":
                found += self._count(message.text) + 2
            else:
                found += self._count(message.text.rstrip(" ")) + 1
        return math.ceil(found * self._ratio)

    def estimate(self, prompt: Sequence[Message]) -> int:
        """Return the same as `count`, which is exact."""
        return self.count(prompt)

    def learn(self, prompt: Sequence[Message], used: int) -> None:
        """Raise the ratio if the server counted more: its model is not the one in its name."""
        counted = self.count(prompt)
        missed = used - counted
        if missed <= _FEW_TOKENS or counted <= _SHORT_TOKENS:
            self.reserve = min(max(self.reserve, missed), TEMPLATE_ONCE)
        else:
            self._ratio = min(self._ratio * used / counted, _MOST_RATIO)


class _GuardedTokenizer:
    """Counts with a tokenizer until it fails or takes too long, then with the estimate."""

    def __init__(
        self, tokens: Callable[[str], int], *, seconds: float, failed: Callable[[str], object]
    ) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._failed = failed
        self._failing = threading.Lock()  # held from the first failure on

    def __call__(self, text: str) -> int:
        """Return the tokens of a text; thread-safe."""
        found: list[int] = []
        reason = [f"it takes more than {self._seconds:g} s for a text"]

        def count() -> None:
            try:
                found.append(self._tokens(text))
            # A panic of a library in Rust is no Exception, and may contain the text.
            except BaseException as error:
                reason[:] = [type(error).__name__]

        if not self._failing.locked():
            # A daemon: a regular expression that runs for hours cannot be stopped.
            thread = threading.Thread(target=count, name="tokens", daemon=True)
            thread.start()
            thread.join(self._seconds)
            if found:
                return found[0]
            if self._failing.acquire(blocking=False):
                self._failed(reason[0])
        return estimate(text)


def read_mistral(path: Path) -> MistralCounter:
    """Read the tokenizer's file `tokenizer.model.v3`; takes a moment and blocks.

    Raises ImportError without the package sentencepiece, ValueError for another file.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path.name} is no tokenizer") from error
    if processor.vocab_size() != 32_768 or processor.piece_to_id("[INST]") != 3:
        raise ValueError(f"{path.name} is not the tokenizer of Mistral-7B-Instruct-v0.3")
    return MistralCounter(lambda text: len(processor.encode(_encodable(text))))


def read_tokenizer(
    path: Path, *, failed: Callable[[str], object], seconds: float = COUNT_SECONDS
) -> TokenEstimator:
    """Read another model's `tokenizer.json`; takes a moment and blocks.

    If it raises or takes more than so many `seconds` for a text, `failed` is called with the
    reason, once, and all texts are estimated from then on. Its chat template is not used, because
    the server may have another one. Raises ImportError without the package tokenizers, ValueError
    if the file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path.name} cannot be read") from error
    # Control tokens that a person spells are text.
    tokenizer.encode_special_tokens = True
    # A file may ask for truncation, or for padding beyond the memory.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.post_processor = None
    parts = [part for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) if part is not None]
    if math.prod(_growth(json.loads(part.__getstate__())) for part in parts) > _MOST_GROWTH:
        raise ValueError(f"{path.name} may make texts too long")

    def tokens(text: str) -> int:
        # `encode` would hold Python's lock (tokenizers 0.23, run).
        return len(tokenizer.encode_batch([_encodable(text)], add_special_tokens=False)[0].ids)

    return TokenEstimator(_GuardedTokenizer(tokens, seconds=seconds, failed=failed))


def _growth(step: Mapping[str, Any]) -> float:
    """Return the factor by which a step of a tokenizer may lengthen a text."""
    match step:
        case {"normalizers": [*steps]} | {"pretokenizers": [*steps]}:
            return math.prod(map(_growth, steps))
        case {"type": "Replace", "content": str(text)} | {"type": "Prepend", "prepend": str(text)}:
            return 1 + len(text)
        case {"type": "ByteLevel" | "Metaspace"}:
            return 2
        case {"type": "Precompiled"}:  # it may replace a character by anything
            return math.inf
        case _:
            return 1


def _encodable(text: str) -> str:
    # JSON may contain half a surrogate pair, which cannot be encoded.
    return text.encode("utf-8", "replace").decode()
