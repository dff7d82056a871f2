"""Messages that land in Slack after another process has answered, and tell nobody their ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.store import connect
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import InSlack, SlackDm, SlackMention, bot, slack_variables
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("kind", "call"), [(SlackMention, "chat.startStream"), (SlackDm, "chat.postMessage")]
)
async def test_what_a_stopped_process_has_posted_late_is_taken_away(
    kind: Callable[[SlackEmulator], InSlack], call: str, data_dir: Path
) -> None:
    async with (
        connect(url="", data_dir=data_dir),
        ModelEmulator() as model,
        SlackEmulator() as slack,
    ):
        # The faults are there before the first word is.
        model.first_delay, model.delay = 2.0, 1.0
        variables = slack_variables(slack, model)
        way = kind(slack)
        async with bot("slack", "worker", data_dir=data_dir, variables=variables) as first:
            await until(slack.connected.is_set, why=first.text)
            await way.ask("What is it?")
            await until(lambda: model.requests, why=first.text)
            # It reaches Slack, is done late, and its answer is lost.
            landing = asyncio.Event()
            slack.fail(call, "drop", applied=True, gate=landing)
            await until(lambda: not slack.pending_faults, why=first.text)
            first.pause()
            model.first_delay = model.delay = 0.0

            async with bot("worker", data_dir=data_dir, variables=variables) as second:
                await until(
                    lambda: len(way.buttons()) == 1,
                    why=lambda: f"no single button below {way.answers()}: {second.text()}",
                )
                (answer,) = way.finals()
                landing.set()
                await until(lambda: len(way.finals()) == 2, why=second.text)
                first.wake()

                await until(lambda: way.finals() == [answer], why=first.text)
                assert "You said: What is it?" in answer
                assert [button for _, button in way.buttons()] == ["regenerate"]
