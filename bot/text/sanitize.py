"""Makes text harmless: it cannot ping people, be hidden, or control a terminal or a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from bot.domain import Message

_UNSEEN = (
    *range(0x20),  # C0, including the escape character
    *range(0x7F, 0xA0),  # DEL and C1; U+009B alone begins a terminal's sequence
    *range(0x202A, 0x202F),  # embeddings and overrides of the writing direction
    *range(0x2066, 0x206A),  # isolates
)
# Spaces, control and format characters, letters, marks and signs without a shape of their own, and
# the first halves of surrogate pairs.
_UNSEEABLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ud800-\udbff]*"
)
# The line breaks of `str.splitlines`, and tabs.
_BREAKS = re.compile("[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
_REMOVED = dict.fromkeys(code for code in _UNSEEN if chr(code) not in "\n\t")
# WORD JOINER: no tokenizer in use drops it, and it costs one token (Mistral) to three (SmolLM2).
_MARK = "\u2060"
# The spellings of chat templates in use and of the tokens of type control in the vocabularies of
# SmolLM2, Mistral, Llama, Gemma, Qwen, DeepSeek (whose bar is U+FF5C), Phi, Command R, GLM, EXAONE,
# MiniMax and Falcon. The mark is inserted behind the match. HTML and most code spell none.
# MiniMax's begin or end with a bracket that may belong to the "[…]" of a cut.
_SPELLED = re.compile(
    r"""
    <(?=
        [|\uff5c][^\s<>]{1,60}>  # <|im_start|>, <|turn>
      | [^\s<>|\uff5c\u2060]{1,60}[|\uff5c]>  # <turn|>
      | /?[A-Za-z\d:]{0,60}_[\w:]{1,60}>  # <start_of_turn>, <__media__>
      | /?[A-Z]{3,60}>  # <PAD>
      | </?SYS>>  # <<SYS>>
      | (?:unused|reserved|special)\d{1,6}>
      | /?(?:s|bos|eos|unk|pad|mask|cls|sep|sop|eop|eod|eoh|eoa|eom|eot|think|role
            |seed:\w{1,60}|image|video|audio|filename|reponame|AI|用户)>
    )
    | \[(?=
        /?(?:INST|IMG|ARGS|AUDIO|THINK|PREFIX|MIDDLE|SUFFIX|REF|TRANSCRIBE|[gs]?MASK|CLS|SEP
            |PAD|UNK|@?BOS@?|EOS|EOT|[A-Z]{1,60}_[A-Z\d_]{1,60}|control_\d{1,6})\]
      | [|\uff5c][^\s\[\]]{1,60}[|\uff5c]\]  # [|assistant|]
      | e~  # [e~[
    )
    | ~(?=b[\[\]]|!b) | <(?=\])  # ]~b], ]~!b[, ]<]image[>[
    | >(?=>[A-Z]{3,60}<<)  # >>QUESTION<<
    """,
    re.VERBOSE,
)
# Templates search earlier answers for these, to drop the model's thoughts (Qwen 3, DeepSeek R1).
# Within an answer they do not end the message.
_THOUGHTS = re.compile(r"</?think>")
_MARKED = re.compile(rf"(?<=[<>~\[]){_MARK}")


def escape_markup(text: str) -> str:
    """Write `& < >` as entities, once, so that no text becomes `<!channel>` or `<url|label>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Revert `escape_markup`, or the same escaping by a platform."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def strip_controls(text: str) -> str:
    """Remove control characters and direction overrides, which control terminals or hide text.

    Newlines and tabs stay, and a `\\r\\n` becomes `\\n`. The text after an escape character stays,
    too. Each character is checked alone, so deltas may be stripped one by one.
    """
    return text.translate(_REMOVED)


def one_line(text: str) -> str:
    """Return a text on one line without controls, so that it cannot imitate another log line."""
    return strip_controls(_BREAKS.sub(" ", text)).strip()


def in_code(text: str) -> str:
    """Return a text on one line as inline code, which it cannot leave."""
    return "`" + one_line(text).replace("`", "'") + "`"


def is_visible(text: str) -> bool:
    """Whether a text shows anything at all."""
    return _UNSEEABLE.fullmatch(text) is None


def whole_characters(text: str) -> str:
    """Join the halves of surrogate pairs, as JSON may contain; a lone half becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_words(prompt: Sequence[Message]) -> list[Message]:
    """Break up control tokens in questions, answers, calls and results.

    The system prompt is the operator's.
    """
    words = []
    for message in prompt:
        mark = partial(mark_control_tokens, is_answer=message.role == "assistant")
        files = tuple(replace(one, text=mark(one.text)) for one in message.files)
        context = tuple(map(mark, message.context))
        # In JSON they stand in strings only, so it stays JSON.
        calls = tuple(replace(one, arguments=mark(one.arguments)) for one in message.calls)
        marked = replace(
            message, text=mark(message.text), context=context, files=files, calls=calls
        )
        words.append(message if message.role == "system" else marked)
    return words


def mark_control_tokens(text: str, *, is_answer: bool = False) -> str:
    """Return a text with a mark in each control token; the thoughts in an answer have none."""

    def mark(found: re.Match[str]) -> str:
        is_thought = is_answer and _THOUGHTS.match(text, found.start())
        return found[0] if is_thought else found[0] + _MARK

    return _SPELLED.sub(mark, text)


def without_marks(delta: str, *, last: str) -> str:
    """Return a delta without the marks that the model repeats. `last` is the delta before it."""
    return _MARKED.sub("", last[-1:] + delta)[len(last[-1:]) :]
