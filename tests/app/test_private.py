"""What somebody asks in private reaches no other conversation, with a real worker."""

from __future__ import annotations

from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.service import serving_discord
from tests.support.waiting import until


def is_answered(discord: DiscordEmulator, interaction: str) -> bool:
    """Whether the answer to a command has ended."""
    shown = discord.original(interaction)
    return shown is not None and any("regenerate" in one for one in shown.buttons)


async def test_a_private_question_is_in_no_prompt_of_a_public_one(
    own_store: Store, model: ModelEmulator
) -> None:
    async with serving_discord(own_store, model) as (discord, _):
        ada, channel = discord.user("Ada"), discord.channel_id
        private = await discord.slash(channel, ada, "ask", question="my secret", private=True)
        await until(lambda: is_answered(discord, private))

        public = await discord.slash(channel, ada, "ask", question="hello")
        await until(lambda: is_answered(discord, public))
        shown = str(model.requests[-1].messages)
        again = await discord.slash(channel, ada, "ask", question="and now?", private=True)
        await until(lambda: is_answered(discord, again))

        answers = [discord.original(one) for one in (private, public, again)]
        assert [one.ephemeral for one in answers if one] == [True, False, True]
        assert "secret" not in shown
        assert "my secret" in str(model.requests[-1].messages)
