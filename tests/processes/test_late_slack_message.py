"""Messages that reach Slack after another process has answered, and whose ids are lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.store import connect
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import SlackMention, bot, slack_variables
from tests.support.waiting import until


async def test_what_a_stopped_process_has_posted_late_is_deleted(data_dir: Path) -> None:
    async with (
        connect(url="", data_dir=data_dir),
        ModelEmulator() as model,
        SlackEmulator() as slack,
    ):
        first_word = asyncio.Event()
        model.fail("completions", "late", gate=first_word)
        variables = slack_variables(slack, model)
        mention = SlackMention(slack)
        async with bot("slack", "worker", data_dir=data_dir, variables=variables) as first:
            await until(slack.connected.is_set, why=first.text)
            await mention.ask("What is it?")
            await until(lambda: model.requests, why=first.text)
            # The request is applied late, and its answer is lost.
            landing = asyncio.Event()
            slack.fail("chat.startStream", "drop", applied=True, gate=landing)
            first_word.set()
            await until(lambda: not slack.pending_faults, why=first.text)
            first.pause()

            async with bot("worker", data_dir=data_dir, variables=variables) as second:
                await until(
                    lambda: len(mention.buttons()) == 1,
                    why=lambda: f"no single button below {mention.answers()}: {second.text()}",
                )
                (answer,) = mention.finals()
                landing.set()
                await until(lambda: len(mention.finals()) == 2, why=second.text)
                first.wake()

                await until(lambda: mention.finals() == [answer], why=first.text)
                assert "You said: What is it?" in answer
                assert [button for _, button in mention.buttons()] == ["regenerate"]
