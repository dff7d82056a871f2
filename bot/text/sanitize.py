"""Makes text harmless: it can neither ping people, nor hide, nor control a terminal."""

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

    For platforms whose markup is in angle brackets. Apply it once: escaping again escapes the
    entities, and `unescape` reverts one application.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Revert `escape_markup`, or the same escaping by a platform."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def strip_controls(text: str) -> str:
    """Remove what controls a terminal or hides text: control characters, direction overrides.

    Newlines and tabs stay, and a `\\r\\n` becomes `\\n`. The text behind an escape character stays,
    too. Each character is checked alone, so deltas may be stripped one by one.
    """
    return text.translate(_REMOVED)


def one_line(text: str) -> str:
    """Return a text as one line without control characters, for a log line or an error.

    Line breaks of all kinds and tabs become spaces, so that no text looks like a line of ours.
    """
    return strip_controls(_BREAKS.sub(" ", text)).strip()


def whole_characters(text: str) -> str:
    """Join the halves of surrogate pairs. A lone half, which cannot be encoded, becomes U+FFFD.

    JSON may contain halves, for example of an emoji that is cut between two deltas.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
