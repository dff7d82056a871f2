"""What the emulated model makes of messages: ChatML, and the order that other templates ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Message = Mapping[str, object]

# Mistral's template says this (mistralai/Mistral-7B-Instruct-v0.3, tokenizer_config.json).
ALTERNATION = (
    "After the optional system message, conversation roles must alternate"
    " user/assistant/user/assistant/..."
)


def render(messages: Iterable[Message]) -> str:
    """Return the text that the model continues; its tokens are those of the prompt."""
    turns = [f"<|im_start|>{each['role']}\n{_text(each)}<|im_end|>\n" for each in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def alternates(messages: Sequence[Message]) -> bool:
    """Whether user and assistant take turns, the user first, after at most one system message."""
    roles = [message["role"] for message in messages]
    if roles[:1] == ["system"]:
        del roles[0]
    return all(role == ("user", "assistant")[place % 2] for place, role in enumerate(roles))


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict))
    return str(content or "")
