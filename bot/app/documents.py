"""Writes the pages that list all settings: `.env.example` and docs/settings.md.

python -m bot.app.documents
"""

from __future__ import annotations

from dataclasses import Field
from pathlib import Path
from typing import Any

from bot.app.platforms import all_specs
from config.settings import variables

EXAMPLE, TABLE = Path(".env.example"), Path("docs/settings.md")
_BEGIN = "| variable | default | meaning |\n| --- | --- | --- |\n"
_AUTO = "GPU_LAYERS"  # None stands for auto there, and for no value elsewhere


def example() -> str:
    """Return the text of `.env.example`: each variable with its meaning and default."""
    lines = [
        "# Copy this file to .env and fill in what you have: with none the terminal answers.",
        "# A secret may stand in a file instead: HF_TOKEN_FILE=PATH, and so for each of them.",
    ]
    for name, variable in variables(all_specs()).items():
        lines += ["", f"# {variable.metadata['meaning']}", f"{name}={_default(name, variable)}"]
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the table of docs/settings.md."""
    text = _BEGIN
    for name, variable in variables(all_specs()).items():
        default = _default(name, variable)
        shown = "a short one" if " " in default else f"`{default}`" if default else ""
        text += f"| `{name}` | {shown} | {variable.metadata['meaning']} |\n"
    return text


def _default(name: str, variable: Field[Any]) -> str:
    value = variable.default
    if value is None or value == ():
        return "auto" if name == _AUTO else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text


def main() -> None:
    """Write both files."""
    EXAMPLE.write_text(example(), encoding="utf-8")
    before, _, rest = TABLE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition("\n\n")[2]
    TABLE.write_text(before + table() + (f"\n{after}" if after else ""), encoding="utf-8")


if __name__ == "__main__":
    main()
