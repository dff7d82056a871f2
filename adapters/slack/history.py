"""What was said in a channel or a thread, page by page."""

from __future__ import annotations

from functools import partial

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import translated

_PAGE = 200  # messages, as Slack recommends (docs: conversations.history, "Pagination")
# Pages after which nobody reads on: where more than a thousand messages came since a question, or
# in five minutes, is no conversation.
PAGES = 5


async def read_page(
    client: AsyncWebClient, *, channel: str, thread: str, since: str, cursor: str
) -> tuple[list[dict[str, object]], str]:
    """Return what was said there since, and where to read on; SurfaceError.

    `thread` is empty at the top level, `cursor` for the first page and after the last. Slack's
    documentation has the newest first, and Slack begins with what is closest to `since`
    (slackhq/slack-api-docs issue 4): nobody may rely on either.
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
