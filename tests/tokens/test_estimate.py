"""The estimate is near what a real tokenizer needs."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.tokens.counters import estimate

DICE = random.Random(7)  # always the same texts
PROSE = (
    "Bicycles stay upright because the rider, and to some degree the machine itself, keeps "
    "steering the wheels back under the centre of mass. When you begin to fall to the left, the "
    "front wheel turns to the left as well, and the ground contact moves back under you. That is "
    "why it is easier to balance at speed: a small turn of the handlebar moves the wheels "
    "sideways faster.\n\nYou can try this in an empty car park. Push the bicycle without a rider "
    "and let it go; it will wobble, correct itself, and only fall when it has become slow. For a "
    "long time people thought that the spinning wheels did this alone, but machines have been "
    "built that cancel the effect and still balance.\n\n"
) * 2
TEXTS = {
    "English": PROSE,
    "capitals": PROSE.upper(),
    "German": "Geschwindigkeitsbegrenzungen gelten außerorts für Kraftfahrzeuge aller Art. " * 8,
    "French": "L'été dernier, nous étions déjà allés à la plage où l'on mange des glaces. " * 8,
    "Polish": "W Szczebrzeszynie chrząszcz brzmi w trzcinie i Szczebrzeszyn z tego słynie. " * 8,
    "Turkish": "Muvaffakiyetsizleştiricileştiriveremeyebileceklerimizdenmişsiniz gibi. " * 8,
    "Malay": "Keterangan tentang baris jadual itu boleh dicapai oleh semua orang. " * 8,
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm. " * 8,
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах. " * 8,  # noqa: RUF001
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια. " * 8,  # noqa: RUF001
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا. " * 8,
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। " * 8,
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。" * 8,
    "Japanese": "すべての人間は、生まれながらにして自由であり、尊厳と権利において平等である。" * 8,
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. " * 8,
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ " * 8,
    "Python": Path(__file__).read_text(encoding="utf-8")[:4000],
    "JSON": json.dumps([{"id": n, "name": f"user_{n}", "tags": ["a", "b"]} for n in range(60)]),
    "table": "| name | value |\n|------|------:|\n" + "| a_1 | 23.50 |\n" * 60,
    "emoji": "😀🎉❤️👍🏽👩\u200d🚀👨\u200d👩\u200d👧🇩🇪🏳️\u200d🌈 ok " * 40,
    "digits": "".join(DICE.choices(string.digits, k=1500)),
    "hexadecimal": DICE.randbytes(700).hex(),
    "identifiers": "getElementById(XMLHttpRequest.DONE, snake_case_name, kHTTPStatus404); " * 12,
    "random letters": "".join(DICE.choices(string.ascii_letters + " ", k=1500)),
    "random lower case": "".join(DICE.choices(string.ascii_lowercase + "   ", k=1500)),
    "random ASCII": "".join(DICE.choices(string.printable, k=1500)),
    "random Latin-1": DICE.randbytes(1500).decode("latin-1"),
    "random bytes": DICE.randbytes(1500).decode("utf-8", "replace"),
    "newlines": "\n" * 300 + "\t" * 300,
    "base64": base64.b64encode(DICE.randbytes(900)).decode(),
}


def v3() -> Path:
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("mistral-common is missing: pip install -r requirements-dev.txt")
    return Path(spec.origin).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"


@given(st.text(st.characters(codec=None)))
def test_no_text_is_estimated_at_more_tokens_than_it_has_bytes(text: str) -> None:
    assert estimate(text) <= len(text.encode("utf-8", "surrogatepass"))
    assert estimate(text + "0") > 0


def test_the_estimate_of_english_and_of_code_is_near_what_a_tokenizer_of_mistral_needs() -> None:
    from sentencepiece import SentencePieceProcessor

    tokenizer = SentencePieceProcessor(model_file=str(v3()))
    shares = [
        estimate(TEXTS[kind]) / len(tokenizer.encode(TEXTS[kind])) for kind in ("English", "Python")
    ]

    assert all(1 <= share <= 1.4 for share in shares)
