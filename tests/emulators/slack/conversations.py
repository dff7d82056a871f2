"""The bot's reading: Slack's methods about conversations and people."""

from __future__ import annotations

from tests.emulators.slack.arguments import SlackError, channel, flag, joined, text
from tests.emulators.slack.workspace import (
    BOT_USER_ID,
    SLACKBOT,
    TEAM_ID,
    Payload,
    Post,
    Workspace,
)

LIMIT = 1000  # docs: conversations.replies, argument limit


class Conversations:
    """Tells what is in a workspace, of channels that the bot is in."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def replies(self, args: Payload) -> Payload:
        """conversations.replies: a thread, its parent first and then the oldest."""
        place = joined(self._workspace, args)
        post = self._workspace.find(place.id, text(args, "ts"))
        if post is None:
            raise SlackError("thread_not_found")
        return self._page(self._workspace.thread(place.id, post.thread_ts or post.ts), args)

    def history(self, args: Payload) -> Payload:
        """conversations.history: the top level, the newest first."""
        place = joined(self._workspace, args)
        return self._page(self._workspace.top_level(place.id)[::-1], args)

    def open(self, args: Payload) -> Payload:
        """conversations.open: the DM with a person."""
        if text(args, "channel"):
            return self.info(args)
        user_id = text(args, "users")
        if user_id not in self._workspace.users:
            raise SlackError("user_not_found")
        return {"channel": self._workspace.dm(user_id).payload()}

    def info(self, args: Payload) -> Payload:
        """conversations.info, of channels that the bot is not in too."""
        return {"channel": channel(self._workspace, args).payload()}

    def user(self, args: Payload) -> Payload:
        """users.info."""
        user_id = text(args, "user")
        names = {**self._workspace.users, BOT_USER_ID: "parley", SLACKBOT: "slackbot"}
        if user_id not in names:
            raise SlackError("user_not_found")
        name = names[user_id]
        user: Payload = {
            "id": user_id,
            "team_id": TEAM_ID,
            "name": name.lower(),
            "real_name": name,
            "deleted": False,
            "is_bot": user_id == BOT_USER_ID,
            "profile": {"real_name": name, "display_name": name, "team": TEAM_ID},
        }
        return {"user": user}

    def _page(self, posts: list[Post], args: Payload) -> Payload:
        """Return at most `limit` messages; the cursor is the place of the next."""
        wanted = _between(posts, args)
        start = int(text(args, "cursor") or 0)
        end = start + int(text(args, "limit") or LIMIT)
        more = end < len(wanted)
        return {
            "messages": [self._counted(post) for post in wanted[start:end]],
            "has_more": more,
            "response_metadata": {"next_cursor": str(end) if more else ""},
        }

    def _counted(self, post: Post) -> Payload:
        """Return the message object; a parent tells of its replies."""
        replies = len(self._workspace.thread(post.channel_id, post.ts)) - 1
        if replies == 0:
            return post.payload()
        return {**post.payload(), "reply_count": replies}


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
