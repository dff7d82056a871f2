"""The shared async core: it knows no platform and reads no environment.

A script's questions are the exception: they are answered as the settings say, without a platform.
"""

from __future__ import annotations

# Whoever imports one module imports this one: what answers is imported with the first question.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["ask", "ask_async", "asking"]


def ask(text: str) -> str:
    """Return the answer to one question, which knows of no other; any thread may ask.

    The settings and the model of the first question serve all others, until the process ends. It
    works where a loop runs already, as in a notebook, and blocks it. ModelError where there is no
    answer; one that is cut short is returned, with a warning in the log.
    """
    from bot.app.ask import kept

    return kept().ask(text)


async def ask_async(text: str) -> str:
    """Return the answer as `ask` does, from the same model, and leave the loop free meanwhile."""
    from bot.app.ask import kept

    return await kept().ask_async(text)


def asking() -> AbstractAsyncContextManager[Callable[[str], Awaitable[str]]]:
    """Open a model of one's own for as long as the block lasts; many may ask it at once.

    `async with bot.asking() as ask: print(await ask("…"))`; entering and asking raise ModelError.
    """
    from bot.app.ask import asking

    return asking()
