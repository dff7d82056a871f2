"""Two processes that answer with tokens of a Slack workspace that rotate.

EVENTS and LIFE in the environment say how many questions are asked, and how long tokens last.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import bot
from tests.support.slack_installed import app_variables, installed
from tests.support.waiting import until

EVENTS, LIFE = int(os.environ.get("EVENTS", "8")), float(os.environ.get("LIFE", "60"))
PACE = 0.25  # seconds between two questions
PEOPLE = 40


async def test_two_processes_use_each_refresh_token_once_and_slack_refuses_nothing(
    own_store: Store, model: ModelEmulator, data_dir: Path
) -> None:
    async with SlackEmulator() as slack:
        # Both find at once that it is due.
        await installed(slack, own_store, life=LIFE, left=LIFE / 2)
        variables = app_variables(slack, model, socket=True) | {"REDIS_URL": own_store.url}
        async with (
            bot(data_dir=data_dir, variables=variables) as one,
            bot(data_dir=data_dir, variables=variables) as other,
        ):
            await until(
                lambda: slack.sockets == 4, why=lambda: f"{one.text()}\n---\n{other.text()}"
            )
            people = [slack.user(f"Ann {number}") for number in range(min(EVENTS, PEOPLE))]
            for number in range(EVENTS):
                person = people[number % len(people)]
                await slack.say(slack.dm(person), person, f"{number}?")
                await asyncio.sleep(PACE)
            for person in people:
                # Only what has ended can be asked again.
                await until(
                    lambda person=person: (
                        slack.screen(slack.dm(person))[-1].buttons  # type: ignore[misc]
                        == ("regenerate",)
                    ),
                    within=240,
                    why=one.text,
                )

        refused = [call for call in slack.requests if call.error and "token" in call.error]
        assert refused == []
        assert {*slack.oauth.refreshed.values()} == {1}
        assert len(slack.oauth.refreshed) >= max(1, EVENTS * PACE // LIFE)
        assert "xox" not in one.text() + other.text()
