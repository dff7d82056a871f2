"""Reads the folder of personas that the operator offers: NAME.md, or NAME.txt, each a text."""

from __future__ import annotations

from pathlib import Path

from config.variables import file_text

MOST_PERSONA = 2_000  # characters of a text
MOST_NAME = 60  # characters; menus have no room for more
_MOST = 50  # files
_ENDINGS = (".md", ".txt")


def read_personas(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the names and texts, in the order of the names; none if there is no folder.

    Raises ValueError with a line for each mistake.
    """
    try:
        files = sorted(it for it in folder.iterdir() if it.suffix in _ENDINGS)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    found, mistakes = dict[str, tuple[str, str]](), list[str]()
    for file in files:
        name = " ".join(file.stem.split())
        try:
            text = file_text(str(file))
        except ValueError as error:
            mistakes.append(f"{file.name} {error}")
            continue
        if not name.isprintable() or len(name) > MOST_NAME:
            mistakes.append(f"{file.name} needs a name of at most {MOST_NAME} characters")
        if len(text) > MOST_PERSONA:
            mistakes.append(f"{file.name} has more than {MOST_PERSONA:,} characters")
        if name.casefold() in found:
            mistakes.append(f"{file.name} has the name of another one")
        found[name.casefold()] = name, text
    if len(files) > _MOST:
        mistakes.append(f"it has more than {_MOST} personas")
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return tuple(found.values())
