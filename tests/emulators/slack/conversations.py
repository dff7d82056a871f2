"""The bot's reading: Slack's methods about what is written where."""

from __future__ import annotations

import base64

from tests.emulators.slack.arguments import SlackError, channel, flag, joined, text
from tests.emulators.slack.message import Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace

# docs: conversations.history and conversations.replies, argument limit.
HISTORY_LIMIT, HISTORY_MOST = 100, 999
REPLIES_LIMIT = REPLIES_MOST = 1000
# docs: both, for apps sold outside of the Marketplace.
UNLISTED_MOST = 15


class Conversations:
    """Tells what is in a workspace; an `unlisted` app gets little at once."""

    def __init__(self, *, unlisted: bool) -> None:
        self.methods = {
            "conversations.history": self.history,
            "conversations.info": info,
            "conversations.replies": self.replies,
        }
        self._most = UNLISTED_MOST if unlisted else REPLIES_MOST

    def replies(self, workspace: Workspace, args: Payload) -> Payload:
        """conversations.replies: a thread, its parent first and then the oldest."""
        place = joined(workspace, args)
        post = workspace.find(place.id, text(args, "ts"))
        if post is None:
            raise SlackError("thread_not_found")
        thread = workspace.thread(place.id, post.thread_ts or post.ts)
        limit = self._limit(args, REPLIES_LIMIT, REPLIES_MOST)
        return _page(workspace, _between(thread, args), args, limit)

    def history(self, workspace: Workspace, args: Payload) -> Payload:
        """conversations.history: the top level, the newest first.

        With `oldest` and no `latest` the pages begin with what is closest to `oldest`, each with
        its newest first (slackhq/slack-api-docs issue 4).
        """
        posts = _between(workspace.top_level(joined(workspace, args).id), args)
        upwards = bool(text(args, "oldest")) and not text(args, "latest")
        limit = self._limit(args, HISTORY_LIMIT, HISTORY_MOST)
        page = _page(workspace, posts if upwards else posts[::-1], args, limit, upwards=upwards)
        return {**page, "pin_count": 0, "channel_actions_ts": None, "channel_actions_count": 0}

    def _limit(self, args: Payload, usual: int, most: int) -> int:
        given = text(args, "limit") or str(usual)
        if not given.isdigit() or int(given) == 0:
            raise SlackError("invalid_arguments", why="must be more than 0 [/limit]")
        return min(int(given), most, self._most)


def info(workspace: Workspace, args: Payload) -> Payload:
    """conversations.info, of channels that the bot is not in too."""
    return {"channel": channel(workspace, args).payload()}


def _page(
    workspace: Workspace, posts: list[Post], args: Payload, limit: int, *, upwards: bool = False
) -> Payload:
    """Return at most `limit` messages, and the cursor of the next page.

    Those of a page `upwards` are given oldest first, and are returned newest first.
    """
    start = _start(text(args, "cursor"))
    end = start + limit
    more = end < len(posts)
    cursor = base64.b64encode(f"next:{end}".encode()).decode() if more else ""
    all_metadata = flag(args, "include_all_metadata") is True
    messages = [_read(workspace, post, all_metadata=all_metadata) for post in posts[start:end]]
    return {
        "messages": messages[::-1] if upwards else messages,
        "has_more": more,
        "response_metadata": {"next_cursor": cursor},
    }


def _read(workspace: Workspace, post: Post, *, all_metadata: bool) -> Payload:
    """Return the message object; a parent tells of its replies."""
    message = post.payload()
    if not all_metadata:
        # docs: conversations.replies, argument include_all_metadata.
        message.pop("metadata", None)
    replies = workspace.thread(post.channel_id, post.ts)[1:]
    if not replies:
        return message | _parent(workspace, post)
    authors = list(dict.fromkeys(str(reply.payload()["user"]) for reply in replies))
    return {
        **message,
        "reply_count": len(replies),
        "reply_users_count": len(authors),
        "latest_reply": replies[-1].ts,
        "reply_users": authors,
        "subscribed": False,
    }


def _parent(workspace: Workspace, post: Post) -> Payload:
    """Return what a reply says of its thread's parent."""
    if post.thread_ts in (None, post.ts):
        return {}
    parent = workspace.channels[post.channel_id].posts[str(post.thread_ts)]
    return {"parent_user_id": parent.payload()["user"]}


def _start(cursor: str) -> int:
    try:
        return int(base64.b64decode(cursor).decode().removeprefix("next:") or 0)
    except ValueError:
        raise SlackError("invalid_cursor") from None


def _between(posts: list[Post], args: Payload) -> list[Post]:
    """Keep what lies between `oldest` and `latest`; a thread's parent is there in any case."""
    oldest, latest = text(args, "oldest"), text(args, "latest")
    ends = (oldest, latest) if flag(args, "inclusive") else ()
    return [
        post
        for post in posts
        if post.ts in (text(args, "ts"), *ends)
        or ((not oldest or post.ts > oldest) and (not latest or post.ts < latest))
    ]
