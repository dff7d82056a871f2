"""A cut never falls within what people see as one character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.text.graphemes import boundaries, cut_after, cut_before

WHOLE = {
    "an accent": "e\u0301",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a skin tone": "\U0001f44d\U0001f3fd",
    "a flag": "\U0001f1e9\U0001f1ea",
    "a flag of tags": "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "a heart": "\u2764\ufe0f",
    "a line's end": "\r\n",
    "an Indic cluster": "\u0915\u094d\u0937\u093f",
    "Thai with marks": "\u0e01\u0e33",
    "Korean letters": "\u1112\u1161\u11ab",
    "a Korean syllable and a letter": "\ud558\u11ab",
    "half-width kana with a mark": "\uff76\uff9e",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_character_stays_whole(kind: str) -> None:
    whole = WHOLE[kind]
    text = f"a{whole}b"

    for at in range(2, len(whole) + 1):
        assert cut_before(text, at) == 1
        assert cut_after(text, at) == 1 + len(whole)


@pytest.mark.parametrize("text", ["ab", "한글", "🇩🇪🇫🇷", "\n\n", "中文", "😀😀", "a👍🏽"])
def test_two_characters_come_apart(text: str) -> None:
    middle = 2 if len(text) == 4 else 1

    assert cut_before(text, middle) == cut_after(text, middle) == middle


@pytest.mark.parametrize("kind", WHOLE)
def test_all_boundaries_of_a_text(kind: str) -> None:
    whole = WHOLE[kind]

    assert boundaries(f"a{whole}b") == [1, 1 + len(whole), 2 + len(whole)]


@pytest.mark.parametrize("sign", ["\u0301", "\u200d", "\u1100"])
def test_what_joins_without_end_is_cut_where_it_has_to_be(sign: str) -> None:
    text = sign * 10_000

    assert cut_before(text, 5000) == cut_after(text, 5000) == 5000


@given(text=st.text(st.characters(codec=None)), at=st.integers(0, 50))
def test_a_cut_is_near_on_its_side(text: str, at: int) -> None:
    at = min(at, len(text))

    assert 0 <= cut_before(text, at) <= at <= cut_after(text, at) <= len(text)
