"""A chat page by Panel: `python -m panel serve examples/panel_chat.py` in the project's folder."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import panel as pn
import panel_material_ui as pmui

import bot
from bot.app.ask import Asking
from bot.errors import ParleyError

YOU, PARLEY = "You", "Parley"
SYSTEM = "You are Parley, a friendly assistant. Answer briefly, in Markdown where it helps."

# In questions and answers no markup acts, and an image is a link: nothing is loaded from elsewhere.
pn.pane.Markdown.renderer_options = {"html": False}
pn.pane.Markdown.plugins = [lambda parser: parser.disable("image")]
pn.pane.Markdown.disable_math = True
pn.extension(disconnect_notification="The connection is lost: reload the page.")


async def model() -> Asking:
    """Return the model of this process, opened by its first question."""
    opened = pn.state.cache.get("model")
    if opened is None or (opened.done() and opened.exception()):
        pn.state.cache["asking"] = asking = bot.asking()
        pn.state.cache["model"] = opened = asyncio.ensure_future(asking.__aenter__())
    return await asyncio.shield(opened)


async def answer(question: object, user: str, chat: pn.chat.ChatInterface) -> AsyncIterator[str]:
    """Yield the answer as it grows; Stop, or another question, ends the request."""
    # Panel switches off its input meanwhile, and Material's with it the button to stop.
    chat.disabled = False
    if not isinstance(question, str):
        yield "I can read text only."
        return
    said = [(one.user, str(getattr(one.object, "object", one.object))) for one in chat.objects]
    history = [(q, a) for (who, q), (by, a) in pairwise(said) if (who, by) == (YOU, PARLEY)]
    try:
        ask = await model()
        async for text in ask.stream(question, history=history, system=SYSTEM):
            yield text
    except ParleyError as error:
        yield error.apology


# Panel's `pn.chat.ChatInterface` in Material design, whose icons and fonts are served here, too.
chat = pmui.ChatInterface(
    callback=answer,
    callback_user=PARLEY,
    user=YOU,
    callback_exception="ignore",  # its text is not for people
    message_params={"show_reaction_icons": False, "show_edit_icon": False},
    sizing_mode="stretch_both",
)
pmui.Page(title=PARLEY, main=[chat]).servable()
