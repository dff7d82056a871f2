"""What the emulated model makes of messages: ChatML, and the order that other templates ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Message = Mapping[str, object]

# Mistral's template says this (mistralai/Mistral-7B-Instruct-v0.3, tokenizer_config.json), and the
# two others what checks a request before it (mistralai/mistral-common, protocol/instruct/
# validator.py).
_ALTERNATION = (
    "After the optional system message, conversation roles must alternate"
    " user/assistant/user/assistant/..."
)
_EMPTY = "Assistant message must have either content or tool_calls, but not both."
_LAST = "Expected last role User or Tool (or Assistant with prefix True) for serving but got {}"


def render(messages: Iterable[Message]) -> str:
    """Return the text that the model continues; its tokens are those of the prompt."""
    turns = [f"<|im_start|>{each['role']}\n{_text(each)}<|im_end|>\n" for each in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def disorder(messages: Sequence[Message]) -> str | None:
    """Return what a template says to messages that it does not take; None: it takes them.

    After at most one system message user and assistant take turns. The first and the last word is
    the user's, and the assistant has said something each time.
    """
    roles = [str(message["role"]) for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(turns)):
        return _ALTERNATION
    if any(each["role"] == "assistant" and not _text(each).strip() for each in messages):
        return _EMPTY
    return None if roles[-1] == "user" else _LAST.format(roles[-1])


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict))
    return str(content or "")
