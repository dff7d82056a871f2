"""The methods of Discord that are emulated: a call to any other fails the test by its name."""

from __future__ import annotations

from tests.emulators.discord.request import Route
from tests.emulators.discord.rest import Rest
from tests.emulators.discord.webhooks import Webhooks


def routes(rest: Rest, webhooks: Webhooks) -> tuple[Route, ...]:
    """Return every route; a new method is a line here and a function that answers it."""
    channel = "/channels/{channel_id}"
    messages = channel + "/messages"
    message = messages + "/{message_id}"
    commands = "/applications/{application_id}/commands"
    server_commands = "/applications/{application_id}/guilds/{guild_id}/commands"
    webhook = "/webhooks/{webhook_id}/{webhook_token}"
    response = webhook + "/messages/{message_id}"
    callback = "/interactions/{interaction_id}/{interaction_token}/callback"
    # A route that tells of no bucket has none (discord-api-docs, issue 1135).
    return (
        Route("GET", "/users/@me", rest.me),
        Route("GET", "/oauth2/applications/@me", rest.application),
        Route("GET", "/gateway/bot", rest.gateway_for_bot),
        Route("POST", "/users/@me/channels", rest.open_dm),
        Route("GET", "/users/@me/guilds", rest.my_guilds, queries=("limit", "after")),
        Route("DELETE", "/users/@me/guilds/{guild_id}", rest.leave_guild),
        Route("GET", "/guilds/{guild_id}", rest.guild),
        Route("GET", "/guilds/{guild_id}/channels", rest.channels),
        Route("GET", "/guilds/{guild_id}/members/{user_id}", rest.member),
        Route("GET", channel, rest.channel),
        Route("PATCH", channel, rest.modify_channel, "channel", "channel_id"),
        Route("POST", channel + "/typing", rest.typing, "typing", "channel_id"),
        Route(
            "GET",
            messages,
            rest.messages,
            "listing",
            "channel_id",
            queries=("before", "after", "around", "limit"),
        ),
        Route("POST", messages, rest.create_message, "create", "channel_id"),
        Route("GET", message, rest.message),
        Route("PATCH", message, rest.edit_message, "edit", "channel_id"),
        Route("DELETE", message, rest.delete_message, "delete", "channel_id"),
        Route("POST", message + "/threads", rest.open_thread, "thread", "channel_id"),
        Route("GET", commands, rest.commands, queries=("with_localizations",)),
        Route("PUT", commands, rest.put_commands, "commands"),
        Route("PUT", server_commands, rest.put_server_commands, "commands"),
        Route("POST", callback, webhooks.callback, open=True, queries=("with_response",)),
        Route(
            "POST",
            webhook,
            webhooks.follow_up,
            "webhook",
            "webhook_token",
            open=True,
            # An interaction's follow-up is always waited for, and may always have components.
            queries=("wait", "with_components"),
        ),
        Route("GET", response, webhooks.message, "webhook", "webhook_token", open=True),
        Route("PATCH", response, webhooks.edit, "webhook", "webhook_token", open=True),
        Route("DELETE", response, webhooks.delete, "webhook", "webhook_token", open=True),
    )
