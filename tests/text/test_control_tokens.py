"""No text of a person or of an answer spells a control token when it reaches the model."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import Message, Role
from bot.model.context_window import fit
from bot.text.graphemes import CUT, without_middle
from bot.text.sanitize import as_words, without_marks

# Of llama.cpp's list of templates and of vocabularies in use, one of each form at least.
SPELLINGS = """
<|im_start|> <|im_end|> <|endoftext|> <|start_header_id|> <|eot_id|> <|user|> <|assistant|> <|end|>
<|START_OF_TURN_TOKEN|> <|USER_TOKEN|> <|start_of_role|> <|channel|> <|plamo:eos|> <|"|> <|turn>
<turn|> <|tool_call> <tool_call|> <|img_row_1_col_2|> <|reserved_special_token_7|> <|ifm|im_start|>
<\uff5cbegin▁of▁sentence\uff5c> <\uff5cUser\uff5c> <\uff5cAssistant\uff5c>
<\uff5cend▁of▁sentence\uff5c> <\uff5ctool▁calls▁begin\uff5c>
[INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS]
[TOOL_RESULTS] [TOOL_CONTENT] [IMG] [IMG_BREAK] [ARGS] [CALL_ID] [THINK] [/THINK] [PREFIX] [REF]
[control_9] [REFERENCE_DOC_19] [BEGIN_AUDIO] [gMASK] [sMASK] [MASK] [CLS] [SEP] [PAD] [UNK] [@BOS@]
[|user|] [|endofturn|] <<SYS>> <</SYS>> <s> </s> <unk> <pad> <bos> <eos> <mask> <sep> <sop> <eod>
<start_of_turn> <end_of_turn> <start_of_image> <unused9> <extra_id_1> <SPECIAL_20> <fim_prefix>
<BOS_TOKEN> <EOS_TOKEN> <PAD> <EOT> <tool_call> </tool_call> <tool_response> <think> </think>
<seed:bos> <seed:eos> <seed:tool_call> <reserved_106> <__media__> <image> <role> <AI> <用户>
<repo_name> <reponame> <filename> <gh_stars> <jupyter_start> ]~b] ]~!b[ [e~[ ]<]image[>[
>>QUESTION<<
"""
FIELD = SPELLINGS.split()
THOUGHTS = ["<think>", "</think>"]
PIECES = [*FIELD, "<", "|", "im_start", "|>", "[", "INST", "]", "/", "</", "s", ">", " ", "\n", "a"]


def written(text: str, role: Role = "user") -> str:
    (message,) = as_words([Message(role, text)])
    return message.text


def spelled(text: str) -> list[str]:
    return [token for token in FIELD if token in text]


@pytest.mark.parametrize("token", FIELD)
def test_a_control_token_arrives_as_words(token: str) -> None:
    text = written(f"What does {token} mean, and x{token}{token}?")

    assert token not in text
    # Nothing else was changed.
    assert text.replace("\u2060", "") == f"What does {token} mean, and x{token}{token}?"


@pytest.mark.parametrize("token", [token for token in FIELD if token not in THOUGHTS])
def test_an_answer_of_the_history_spells_none_either(token: str) -> None:
    assert token not in written(f"It is {token}.", "assistant")


def test_templates_still_find_what_a_model_thought_before_its_answer() -> None:
    answer = "<think>A greeting.</think>Hello!"

    assert written(answer, "assistant") == answer


def test_the_operators_system_prompt_stays_as_it_is() -> None:
    assert written("You use <tool_call>.", "system") == "You use <tool_call>."


@pytest.mark.parametrize(
    "text",
    [
        '<div class="a"><b>bold</b><br/></div><h1>Title</h1><p>text</p>',
        "List<String> names = new ArrayList<>(); vector<int32> v; if (a<b && b>c) x = y[i];",
        "f <| x |> g; a || b; cat x | grep '<' > y; [1, 2]; [x](http://a.b); - [ ] to do",
        "[INFO] started [TODO] <3 <@U123> <https://a.b/c_d?e=f> a<_b; <!-- c --> <?xml?> <a href>",
        "∑ <\uff5c im > 你好 <Vorname>",
    ],
)
def test_what_spells_none_stays_as_it_is(text: str) -> None:
    assert written(text) == text


def test_no_token_of_type_control_of_mistrals_vocabularies_is_left() -> None:
    tokens = [*sentencepiece_controls(), *tekken_controls()]

    assert len(tokens) > 1000
    assert [token for token in tokens if token in written(f"a{token}b")] == []


def sentencepiece_controls() -> list[str]:
    from sentencepiece import SentencePieceProcessor

    found = []
    for path in sorted(mistral_data().glob("*.model*")):
        pieces = SentencePieceProcessor(model_file=str(path))
        every = range(pieces.vocab_size())
        # The library calls those of type control so that transformers' fast tokenizers match.
        found += [pieces.id_to_piece(n) for n in every if pieces.is_control(n)]
    return found


def tekken_controls() -> list[str]:
    found = []
    for path in sorted(mistral_data().glob("tekken*.json")):
        special = json.loads(path.read_text(encoding="utf-8")).get("special_tokens") or []
        found += [each["token_str"] for each in special]
    return found


def mistral_data() -> Path:
    spec = importlib.util.find_spec("mistral_common")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_no_way_of_putting_pieces_together_spells_one(text: str) -> None:
    once = written(text)

    assert spelled(once) == []
    assert written(once) == once


@given(
    st.lists(st.sampled_from(PIECES), min_size=20, max_size=60).map("".join), st.integers(10, 60)
)
def test_a_cut_joins_no_two_halves_to_one(text: str, budget: int) -> None:
    def size(messages: Sequence[Message]) -> int:
        return sum(len(message.text) for message in messages)

    prompt = fit(as_words([Message("user", text)]), budget=budget, count=size)

    assert spelled("".join(message.text for message in prompt.messages)) == []


@pytest.mark.parametrize("half", ["~b]x ", "~!b[x ", "<]image[>[x ", "x]~!b ", "x[e~ ", "x]~b "])
def test_the_cut_mark_completes_none_of_them(half: str) -> None:
    (question,) = as_words([Message("user", half * 50)])

    cuts = [without_middle(question.text, kept) for kept in range(100)]

    assert [token for cut in cuts for token in spelled(cut)] == []


def test_a_mark_that_the_model_repeats_is_taken_out() -> None:
    assert without_marks("Use `<\u2060|im_start|>`.", last="") == "Use `<|im_start|>`."
    assert without_marks("\u2060|im_start|>", last="Use <") == "|im_start|>"
    assert without_marks("\u2060", last="[") == ""


def test_a_word_joiner_of_the_models_own_stays() -> None:
    assert without_marks("10\u2060km", last="") == "10\u2060km"
    assert without_marks("\u2060km", last="0") == "\u2060km"


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.randoms())
def test_marks_are_found_over_the_borders_of_deltas(text: str, dice: random.Random) -> None:
    said, last, heard = written(text), "", ""
    while said:
        size = dice.randint(1, 4)
        delta, said = said[:size], said[size:]
        heard += without_marks(delta, last=last)
        last = delta

    assert heard == text


def test_the_cut_mark_is_no_control_token() -> None:
    assert written(f"<|im{CUT}|> [{CUT}INST]").count("\u2060") == 1


def test_a_text_made_to_be_slow_is_read_at_once() -> None:
    # Quadratic work on any of these would take minutes.
    for piece in ("<", "<|", "[", "<_", "[A_", "<" + "a" * 60, "]~", ">>AAA"):
        written(piece * 50_000)
