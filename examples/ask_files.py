"""Asks one question about each file, all at once: `python examples/ask_files.py QUESTION FILE …`.

Run it in the project's folder, where `.env` names the model.
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bot


async def main(question: str, *names: str) -> None:
    """Print the answers in the order of the files."""
    async with bot.asking() as ask:
        asked = [ask(f"{question}\n\n{Path(name).read_text()}") for name in names]
        for name, answer in zip(names, await asyncio.gather(*asked), strict=True):
            print(f"## {name}\n\n{answer}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
