"""Why files are not read."""

from __future__ import annotations

from enum import StrEnum


class Problem(StrEnum):
    """A sentence for people on what was not read; `{names}` are those of the files."""

    LARGE = "I have not read {names}: {most} MB is the limit."
    UNPACKED = "I have not read {names}: 64 MB of unpacked data is the limit."
    PICTURE = "I cannot see pictures, so I have not looked at {names}."
    BIG_PICTURE = "I have not looked at {names}: a picture may have 4 MB and 25 megapixels."
    MANY_PICTURES = "I have not looked at {names}: I am looking at too many pictures just now."
    NOT_TAKEN = "My model does not accept {names}, so I have answered without."
    UNKNOWN = "I cannot read {names}: I read text, PDF, DOCX, PPTX, XLSX and pictures."
    PROTECTED = "I cannot read {names}: encrypted."
    DAMAGED = "I cannot read {names}: damaged."
    EMPTY = "I have found no text in {names}."
    SLOW = "I have not read {names}: that takes too long."
    HEAVY = "I have not read {names}: that takes too much memory."
    NO_ROOM_NOW = "I no longer see {names}: there is no room beside the newer files."
    WINDOWS = "I cannot read {names} here: that needs Linux, macOS or WSL."
    MISSING = "I cannot read {names} here: the packages in requirements-files.txt are missing."
    MANY = "I have not read {names}: I read at most {most} at once."
    OFF = "I have not read {names}: no files are read here."
    GONE = "I cannot find {names} any more."
    REFUSED = "I may not open {names}."
    UNREACHABLE = "I could not fetch {names}."
