"""Reads the messages of a channel or a thread, page by page."""

from __future__ import annotations

from functools import partial

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import translated

_PAGE = 200  # messages, as Slack recommends (docs: conversations.history, "Pagination")
# A place with more than a thousand messages since a question, or in five minutes, is not a
# conversation: the rest is not read.
MOST_PAGES = 5


async def read_page(
    client: AsyncWebClient, *, channel: str, thread: str, since: str, cursor: str
) -> tuple[list[dict[str, object]], str]:
    """Return the messages since then, and the cursor of the next page. Raises SurfaceError.

    `thread` is empty for the top level, `cursor` for the first page and after the last. Do not rely
    on an order: Slack's documentation has the newest first, but Slack begins with the messages
    closest to `since` (slackhq/slack-api-docs issue 4).
    """
    read = client.conversations_history
    if thread:
        read = partial(client.conversations_replies, ts=thread)
    async with translated():
        answer = await read(
            channel=channel,
            oldest=since,
            limit=_PAGE,
            cursor=cursor or None,
            include_all_metadata=True,
        )
    metadata = answer.get("response_metadata") or {}
    return list(answer.get("messages") or ()), str(metadata.get("next_cursor") or "")
