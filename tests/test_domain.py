"""ThreadKey is written one way and read back the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.domain import ThreadKey

PARTS = st.text(max_size=20)


@given(PARTS, PARTS, PARTS, PARTS)
def test_a_thread_key_is_read_back_as_it_was_written(a: str, b: str, c: str, d: str) -> None:
    key = ThreadKey(a, b, c, d)

    read = ThreadKey.parse(str(key))

    assert read == key
