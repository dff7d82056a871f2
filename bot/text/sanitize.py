"""Nothing that a model or a person writes can ping, hide or drive a terminal."""

from __future__ import annotations

import re

_UNSEEN = (
    *range(0x20),  # C0, the escape character among them
    *range(0x7F, 0xA0),  # DEL and C1, whose U+009B alone begins a terminal's sequence
    *range(0x202A, 0x202F),  # embeddings and overrides of the writing direction
    *range(0x2066, 0x206A),  # isolates
)
# What `str.splitlines` breaks at, and tabs.
_BREAKS = re.compile("[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
_REMOVED = dict.fromkeys(code for code in _UNSEEN if chr(code) not in "\n\t")


def escape_markup(text: str) -> str:
    """Write `& < >` as entities, so that no text becomes `<!channel>`, `<@U…>` or `<url|label>`.

    For platforms whose markup lives in angle brackets. It is to be applied once: escaping again
    escapes the entities, and `unescape` takes back exactly one time.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Take back what `escape_markup`, or a platform that escapes as it does, wrote."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def strip_controls(text: str) -> str:
    """Remove what drives a terminal or hides text: control characters and direction overrides.

    Newlines and tabs stay, and a `\\r\\n` becomes `\\n`. What stood behind an escape character
    stays too, as plain text. Each character is judged alone, so deltas may be stripped one by one.
    """
    return text.translate(_REMOVED)


def one_line(text: str) -> str:
    """Return a text as one line that drives no terminal, for a log line or an error.

    Whatever a program may take for a line break or a tab becomes a space, so that no text passes
    for a line of ours.
    """
    return strip_controls(_BREAKS.sub(" ", text)).strip()


def whole_characters(text: str) -> str:
    """Join the halves of surrogate pairs; a half alone, which nothing can encode, becomes U+FFFD.

    JSON may bring halves: an emoji that is cut between two deltas, say.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
