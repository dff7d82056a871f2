"""The shared async core; it imports no platform and reads no environment.

The functions here are for scripts: they read the settings and need no platform.
"""

from __future__ import annotations

# Every import of a module of this package runs this file, so it imports nothing itself.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from bot.app.ask import Asking

__all__ = ["__version__", "ask", "ask_async", "asking"]
# CHANGELOG.md lists the changes of each version.
__version__ = "0.1.0"


def ask(text: str, *, files: Sequence[str | Path] = (), allow: bool = False) -> str:
    """Return the answer to one question, without a history. Any thread may call this.

    The model reads as much as fits of the `files`, whose paths are given; by default five at most.
    It may use tools that only read; with `allow` any, and nobody is asked before it does.

    The first question reads the settings and opens the model, which stays open until the process
    ends. In a running event loop, as in a notebook, this blocks the loop. Raises ModelError if
    there is no answer; one that is cut short is returned, with a warning in the log.
    """
    from bot.app.ask import shared

    return shared().ask(text, files=files, allow=allow)


async def ask_async(text: str, *, files: Sequence[str | Path] = (), allow: bool = False) -> str:
    """Return the answer as `ask` does, from the same model, without blocking the loop."""
    from bot.app.ask import shared

    return await shared().ask_async(text, files=files, allow=allow)


def asking() -> AbstractAsyncContextManager[Asking]:
    """Open a model for the block; it may be asked many questions at once.

    `async with bot.asking() as ask: print(await ask("…"))`; raises ModelError. `ask.stream` yields
    the answer as it grows, and both take a `history`, a `system` prompt, `files` and `allow`.
    """
    from bot.app.ask import asking

    return asking()


def command() -> None:
    """Run the command line: an installed `parley` is `python -m bot`."""
    import runpy

    runpy.run_module("bot", run_name="__main__")
