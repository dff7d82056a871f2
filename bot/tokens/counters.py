"""Counters for the tokens of a prompt: an estimate for any model, exact ones for known models."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeGuard

from bot.domain import Message

log = logging.getLogger(__name__)

# The tokens that a chat template adds to a message: 1 to 7 as control tokens, 10 to 18 if the
# vocabulary spells its marks as text (templates of llama.cpp, src/llama-chat.cpp, run).
MESSAGE_OVERHEAD = 8

_MOST_TOKENS = 10**9  # far above any context, and sums stay numbers

# ASCII as vocabularies cut it: the beginning of a word, pairs of its further letters, a run of
# spaces, any other character; one space belongs to the word after it. Emoji count once more here.
_PIECE = re.compile(r"(?<![a-z])[A-Z]?[a-z]{1,5}|[a-z]{1,2}| {2,8}|[^\x80-\uffffa-z ]")
_PER_BYTE = 0.5  # tokens, of a character beyond ASCII
_REMEMBERED_TEXTS = 20_000  # a thread's history is counted again with every turn


def estimate(text: str) -> int:
    """Return about as many tokens as common tokenizers find, and never more than it has bytes.

    English counts 1.35 times what they need, random letters of a rare script half of it (`python -m
    bench.tokens`).
    """
    size = len(text.encode("utf-8", "surrogatepass"))  # JSON may bring half a surrogate pair
    beyond_ascii = size - len(text.encode("ascii", "ignore"))
    return min(len(_PIECE.findall(text)) + math.ceil(_PER_BYTE * beyond_ascii), size)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value from a server can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


class Counter(Protocol):
    """Counts the tokens of a prompt with what the model's template puts around its messages."""

    share: float  # of a context that a prompt may fill by this count; 1 if the count is exact
    ratio: float  # of a server's latest counts to these

    def count(self, prompt: Sequence[Message]) -> int:
        """Return the tokens of a prompt or a part of one."""
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
    """Counts texts by the model's own tokenizer or the estimate, and a template by an allowance.

    A tokenizer that fails is replaced by the estimate.
    """

    def __init__(self, count: Callable[[str], int] = estimate) -> None:
        self.share = 0.75 if count is estimate else 0.9
        self.ratio = 1.0
        self._tokens = count
        self._count = _remembering(self._count_or_estimate)

    def count(self, prompt: Sequence[Message]) -> int:
        """Return about the tokens of a prompt."""
        return sum(self._count(message.text) + MESSAGE_OVERHEAD for message in prompt)

    def _count_or_estimate(self, text: str) -> int:
        try:
            return self._tokens(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        # A panic of a library in Rust is no Exception, and may contain the text.
        except BaseException as error:
            log.warning(
                "Prompt lengths are estimated: the tokenizer fails: %s", type(error).__name__
            )
            self._tokens, self.share = estimate, 0.75
            return estimate(text)


class MistralCounter:
    """Counts as mistral-common does for Mistral-7B-Instruct-v0.3: its text tokens and its template.

    The template is that of the tokenizer's version 3 (mistral_common 1.13, tokens/tokenizers/
    instruct.py, InstructTokenizerV3): `<s>`, then `[INST]`, the text and `[/INST]` for each
    question, the text and `</s>` for each answer. The system prompt precedes the text of the
    last question, with two newlines between.
    """

    share = 1.0

    def __init__(self, count: Callable[[str], int]) -> None:
        self.ratio = 1.0
        self._count = _remembering(count)

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
        return found


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


def read_tokenizer(path: Path) -> TokenEstimator:
    """Read another model's `tokenizer.json`; takes a moment and blocks.

    Its chat template is not used, because the server may have another one. Raises ImportError
    without the package tokenizers, ValueError if the file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path.name} cannot be read") from error
    # Control tokens that a person spells are text.
    tokenizer.encode_special_tokens = True
    # Some files of the Hub ask for truncation or padding.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokens(text: str) -> int:
        # `encode` would hold Python's lock (tokenizers 0.23, run).
        return len(tokenizer.encode_batch([_encodable(text)], add_special_tokens=False)[0].ids)

    return TokenEstimator(tokens)


def _encodable(text: str) -> str:
    # JSON may contain half a surrogate pair, which cannot be encoded.
    return text.encode("utf-8", "replace").decode()
