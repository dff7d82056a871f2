"""What Sentry gets of an error, from the real SDK at a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

pytest.importorskip("sentry_sdk", reason="SENTRY_DSN needs requirements-sentry.txt")

from bot.app.platforms import load_settings
from bot.app.watched import watched
from bot.concurrency import turn_in_work
from bot.errors import CannotStart
from config.settings import Settings, SettingsError
from tests.support.waiting import until
from tests.support.watchers import Sentry, sentry

NO_FILE = Path("no such file")
# Put together, because the lines of the source that failed are sent.
CANARY = "-".join(("canary", "word"))
SECRET = "-".join(("tell", "nobody"))
log = logging.getLogger("bot.turns.worker")


def settings_of(found: Sentry, **variables: str) -> Settings:
    return load_settings({"SENTRY_DSN": found.dsn, **variables}, NO_FILE)


def break_over(question: str) -> None:
    words = [question, SECRET]
    try:
        int(words[0])
    except ValueError as error:
        raise RuntimeError(f"cannot answer {words}") from error


async def test_it_gets_where_an_error_arose_and_no_word_of_people() -> None:
    variables = {"MODEL_URL": "http://m", "MODEL_API_KEY": SECRET}
    async with sentry() as found:
        async with watched(settings_of(found, **variables)):
            turn_in_work.set("discord:17")
            try:
                break_over(CANARY)
            except RuntimeError as error:
                error.add_note(CANARY)
                log.exception("Turn %s: the reply to %s is given up", "discord:17", CANARY)
        await until(lambda: found.events)

    [event] = found.events
    assert event["logentry"]["message"] == "Turn %s: the reply to %s is given up"
    assert event["level"] == "error"
    assert event["tags"] == {"turn": "discord:17"}
    kinds = [one["type"] for one in event["exception"]["values"]]
    assert kinds == ["ValueError", "RuntimeError"]
    for one in event["exception"]["values"]:
        frames = one["stacktrace"]["frames"]
        assert frames[-1]["function"] == "break_over"
        assert not any("vars" in frame for frame in frames)
    assert not event.keys() & {"breadcrumbs", "modules", "request", "user", "extra"}
    assert not event.get("server_name")
    for words in (CANARY, SECRET):
        assert words not in found.text()


async def test_what_libraries_write_stays_here() -> None:
    async with sentry() as found:
        async with watched(settings_of(found)):
            for name in ("slack_sdk.socket_mode", "asyncio"):
                logging.getLogger(name).error(f"Failed to handle {CANARY}")
            try:
                break_over(CANARY)
            except RuntimeError:
                logging.getLogger("asyncio").exception(f"Task was {CANARY}")
            log.warning("Not an error")
        await until(lambda: found.events)

    [event] = found.events
    assert "logentry" not in event
    assert event["logger"] == "asyncio"
    assert CANARY not in found.text()


async def test_secrets_are_masked_as_in_the_log() -> None:
    async with sentry() as found:
        async with watched(settings_of(found, HF_TOKEN=SECRET)):
            log.error(f"It was {SECRET}")
        await until(lambda: found.events)

    assert [one["logentry"]["message"] for one in found.events] == ["It was ***"]


async def test_it_gets_the_error_that_ends_the_process() -> None:
    async with sentry() as found:
        with pytest.raises(RuntimeError):
            async with watched(settings_of(found)):
                break_over(CANARY)
        with pytest.raises(CannotStart):
            async with watched(settings_of(found)):
                raise CannotStart("a mistake of the operator")
        await until(lambda: found.events)

    [event] = found.events
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert CANARY not in found.text()


async def test_a_sentry_that_is_away_costs_nothing() -> None:
    settings = load_settings({"SENTRY_DSN": "http://key@127.0.0.1:9/1"}, NO_FILE)
    async with asyncio.timeout(20), watched(settings):
        for _ in range(500):
            log.error("It failed")


@pytest.mark.parametrize(
    "dsn", ["sentry.io", "https://sentry.io/1", "https://key@sentry.io/", "https://key@sentry.io/a"]
)
def test_a_dsn_that_cannot_be_one_is_refused(dsn: str) -> None:
    with pytest.raises(SettingsError, match=r"^SENTRY_DSN (is no DSN|does not begin)") as refused:
        load_settings({"SENTRY_DSN": dsn}, NO_FILE)

    assert "key" not in str(refused.value).replace("KEY", "")


def test_a_dsn_is_no_secret_that_a_log_shows() -> None:
    dsn = "https://key@example.org/sentry/1"
    settings = load_settings({"SENTRY_DSN": dsn}, NO_FILE)

    assert dsn in settings.secrets
    assert dsn not in json.dumps(repr(settings))
