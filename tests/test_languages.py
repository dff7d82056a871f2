"""People read everything in their language: the catalogues are whole, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextvars import copy_context

import pytest

from bot.commands.handlers import COMMANDS
from bot.errors import GivenUp, QuotaUsed, ThreadBusy, until
from bot.languages import accepted, known, number, say, speak, spoken
from tests.support.catalogues import LANGUAGES, STATIC, catalogue, names_in, said
from tests.support.process import ROOT
from tests.test_sentences import PEOPLE, texts_in

# What only looks like a sentence for people: the model, operators or programs read it.
NOT_SHOWN = re.compile(
    r"^(Summarise what was said|Your last answer was cut off|Lines between a line"
    r"|\[(File|Picture)|This page (only works|does not know|was reached)|A change needs the header"
    r"|Another site may not|the (thread|answer|file|message|upload|response|token|provider)"
    r"|A (question|rating|choice|press|file|call) (needs|must|can)|The request is not|discord"
    r"|default-src|attachment;|There is no password here|The terminal$"
    r"|Slack answered HTTP"
    r"|(Send|Create|Read) (Messages|Public|Message)"  # permissions, as Discord names them
    r"|(Content-Type|Escape|Parley|Enter|ArrowUp|Tab)$|noopener|button primary"
    r"|li button|\{\}px"
    r"|Type|Please log in at the proxy|<!doctype|local |redis|camera=)"
)
_SENTENCE = re.compile(r"^[^\W\d_](?=.*\w [\w{]).*[.?!:…)]$|^[A-Z][a-z]+ [\w{]", re.DOTALL)
_LABEL = re.compile(r"^[A-Z][a-z]+|^[^<>]*[a-z]{2} [a-z]{2}[^<>]*$")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_has_a_translation_with_the_same_names(language: str) -> None:
    found = catalogue(language)
    missing = [f"{place}: {one!r}" for one, place in said().items() if not found.get(one, "")]
    wrong = [
        f"{said().get(one)}: {one!r} has {names_in(one)}, {other!r} has {names_in(other)}"
        for one, other in found.items()
        if names_in(one) != names_in(other)
    ]
    spaced = [one for one, it in found.items() if it[-1:].isspace() != one[-1:].isspace()]

    assert not missing, f"{language}.json lacks:\n" + "\n".join(missing)
    assert not wrong, f"{language}.json names other values:\n" + "\n".join(wrong)
    assert not spaced


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_unused_and_no_two_are_the_same(language: str) -> None:
    unused = [one for one in catalogue(language) if one not in said()]
    same = defaultdict(list)
    for one, other in catalogue(language).items():
        same[other].append(one)
    # Labels that are one word in other languages; a sentence is never another one's.
    twice = {it: ones for it, ones in same.items() if len(ones) > 1 and it.endswith((".", "?"))}
    twice = {it: ones for it, ones in twice.items() if ones[0].endswith((".", "?"))}

    assert not unused, f"{language}.json has what is not said (any more):\n" + "\n".join(unused)
    assert not twice, f"{language}.json says different sentences alike: {twice}"


def not_said() -> Iterator[str]:
    """Yield the sentences of the rooms for people that are not said in their language."""
    for path in sorted({path for pattern in PEOPLE for path in ROOT.glob(pattern)}):
        if path.suffix == ".html" or "vendor" in path.parts:
            continue
        name = str(path.relative_to(ROOT))
        for line, text in texts_in(name, path.read_text(encoding="utf-8")):
            words = re.sub(r"\$\{[^}]*\}", "{}", text)
            looks = _LABEL if path.suffix == ".js" else _SENTENCE
            if looks.search(words) and words not in said() and not NOT_SHOWN.search(words):
                yield f"{name}:{line}: {words!r}"


def test_every_sentence_that_people_read_is_said_in_their_language() -> None:
    found = [*not_said()]

    assert not found, (
        'Say these by say("…", name=value), later("…") or t("…", { name: value }), as one text'
        " without glued parts:\n" + "\n".join(found)
    )


def test_no_sentence_of_all_platforms_names_what_some_of_them_lack() -> None:
    lacked = re.compile(r"\b(button|press|click|menu)|\bchannel(?! or room)", re.IGNORECASE)
    found = [f"{place}: {one!r}" for one, place in said().items() if lacked.search(one)]

    assert not [it for it in found if it.startswith("bot/")]


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("de-AT", "de"),
        ("de_DE.UTF-8", "de"),
        ("es-419", "es"),
        ("ja", "ja"),
        ("FR", "fr"),
        ("pt-BR", ""),
        ("C.UTF-8", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_locale_has_a_language(locale: str | None, language: str) -> None:
    assert known(locale) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de-CH, de;q=0.9, en;q=0.8", "de"),
        ("pt-BR, fr;q=0.5, es;q=0.7", "es"),
        ("fr;q=0, ja", "ja"),
        ("pt", "en"),
        ("", "en"),
        ("*", "en"),
        ("de;q=high, en", "de"),
        (",;=;q=;" * 1000, "en"),
    ],
)
def test_a_browser_is_answered_in_the_language_that_it_wants_most(
    header: str, language: str
) -> None:
    assert accepted(header) == language


async def test_each_task_speaks_its_own_language() -> None:
    async def asked(*locales: str) -> str:
        speak(*locales)
        await asyncio.sleep(0)
        return str(ThreadBusy().apology)

    german, english = await asyncio.gather(asked("", "de"), asked("pt"))

    assert german.startswith("Ich antworte noch")
    assert english.startswith("I am still answering")
    assert spoken() == "en"


def in_german(check: Callable[[], None]) -> None:
    """Run it without a trace in other tests, which share a task."""

    def run() -> None:
        speak("de")
        check()

    copy_context().run(run)


def test_apologies_numbers_and_durations_are_in_the_language_of_the_task() -> None:
    error = GivenUp("out of attempts")
    tried = "I tried several times and could not answer this. Please ask again later."

    @in_german
    def _() -> None:
        # Also of an error that was raised before.
        assert error.apology == GivenUp.apology == catalogue("de")[tried]
        written = number(1234567), until(7200), until(60)
        assert written == ("1.234.567", "in 2 Stunden", "in 1 Minute")
        assert QuotaUsed("questions", 7200.0).apology == (
            "Du hast alle deine Fragen für heute verbraucht. "
            "Nach 00:00 UTC, in 2 Stunden, kannst du mich wieder fragen."
        )


def test_values_are_no_part_of_the_sentence() -> None:
    @in_german
    def _() -> None:
        assert say("Models: {offered}.", offered="{name} {0}") == "Modelle: {name} {0}."
        assert say("Not in any catalogue: {name}.", name="x") == "Not in any catalogue: x."


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_discord_shows_of_commands_is_short_enough(language: str) -> None:
    from adapters.discord.registration import definitions

    described = [*definitions()]
    for one in described:
        described += one.get("options", []) + one.get("choices", [])
    texts = [
        (text, 32 if kind == "name" and one.get("type") == 3 and "options" not in one else 100)
        for one in described
        for kind in ("name", "description")
        for locale, text in one.get(f"{kind}_localizations", {}).items()
        if locale.startswith(language)
    ]

    assert len(texts) > len(COMMANDS)
    assert [text for text, most in texts if not 0 < len(text) <= most] == []


def test_the_page_offers_all_languages_by_their_own_names() -> None:
    from bot.languages import LANGUAGES as NAMED

    text = (ROOT / STATIC / "index.html").read_text(encoding="utf-8")
    offered = re.findall(r'<option value="(\w+)" lang="(\w+)">(\w+)</option>', text)

    assert offered == [(one, one, label) for one, label in NAMED.items()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_knows_the_steps_of_an_answer_in_each_language(language: str) -> None:
    script = (ROOT / STATIC / "below.js").read_text(encoding="utf-8")
    steps = re.search(r"const STEPS = /(.+)/;", script)
    assert steps

    assert re.fullmatch(steps[1], say("(Steps: {steps}.)", language=language, steps="x: y"))
    assert say("Sources:", language=language).endswith(":")
    times = say("{step} ({n} times)", language=language, step="x", n=3)
    assert re.search(r"\((\d+) \S+\)$", times)
