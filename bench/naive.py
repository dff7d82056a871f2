"""The bot that a tutorial ends with: an edit each second, awaited where the model is read.

    python -m bench.naive discord|slack

Everything it knows is in the environment. It keeps nothing and runs alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route
from huggingface_hub import AsyncInferenceClient
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

INTERVAL = 1.0  # seconds
ENV = os.environ

Edit = Callable[[str], Awaitable[object]]
Post = Callable[[str], Awaitable[Edit]]


async def reply(model: AsyncInferenceClient, question: str, post: Post) -> None:
    """Show what the model answers."""
    text, edit, edited_at = "", None, 0.0
    messages = [{"role": "user", "content": question}]
    async for chunk in await model.chat_completion(messages, stream=True, max_tokens=1024):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        if edit is None and text.strip():
            edit, edited_at = await post(text), time.monotonic()
        elif edit and time.monotonic() - edited_at >= INTERVAL:
            await edit(text)
            edited_at = time.monotonic()
    if edit:
        await edit(text)


class OnDiscord(discord.Client):
    """Answers mentions, in a thread if DISCORD_THREADS is on."""

    model: AsyncInferenceClient

    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot or self.user not in message.mentions:
            return
        thread = None
        if ENV["DISCORD_THREADS"] == "on":
            thread = await message.create_thread(name="answer")

        async def post(text: str) -> Edit:
            sent = await (thread.send(text) if thread else message.reply(text))
            return lambda text: sent.edit(content=text)

        await reply(self.model, message.content, post)


async def on_discord(model: AsyncInferenceClient) -> None:
    Route.BASE = ENV["DISCORD_API_URL"]
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(ENV["DISCORD_GATEWAY_URL"])
    intents = discord.Intents.default()
    intents.message_content = True
    client = OnDiscord(intents=intents)
    client.model = model
    await client.start(ENV["DISCORD_TOKEN"])


async def on_slack(model: AsyncInferenceClient) -> None:
    client = AsyncWebClient(ENV["SLACK_BOT_TOKEN"], base_url=ENV["SLACK_API_URL"])
    client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=5))
    app = AsyncApp(client=client)

    @app.event("app_mention")
    async def answer(event: dict[str, str]) -> None:
        channel, thread = event["channel"], event["ts"]

        async def post(text: str) -> Edit:
            sent = await client.chat_postMessage(channel=channel, thread_ts=thread, text=text)
            return lambda text: client.chat_update(channel=channel, ts=sent["ts"], text=text)

        await reply(model, event["text"], post)

    @app.event("message")
    async def leave_alone() -> None:
        """Slack tells of a mention twice."""

    await AsyncSocketModeHandler(app, ENV["SLACK_APP_TOKEN"]).start_async()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    answering = AsyncInferenceClient(base_url=ENV["MODEL_URL"], api_key="-")
    asyncio.run({"discord": on_discord, "slack": on_slack}[sys.argv[1]](answering))
