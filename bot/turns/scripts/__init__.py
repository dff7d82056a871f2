"""The Lua scripts of the queue: one file for each subject, and one script for each verb."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# The files whose functions each file needs, beside those of the prelude. Redis makes the functions
# of a script anew in each call, so a script has no more than its verb needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "prelude": (),
    "quota": (),
    "open": (),
    "room": ("open",),
    "context": (),
    "speakers": (),
    "turn": (),
    "kept": ("turn",),
    "repairs": (),
    "rate": (),
    "enqueue": ("context", "quota", "speakers"),
    "admit": ("context", "enqueue", "quota", "room", "speakers"),
    "press": ("enqueue", "quota", "room", "turn"),
    "stop": ("kept",),
    "edit": ("admit", "enqueue", "open", "quota", "room", "stop", "turn"),
    "take": ("open", "turn"),
    "forget": ("context", "kept", "quota", "repairs", "stop", "turn"),
    "lease": ("context", "forget"),
    "finish": ("context", "kept", "lease", "quota", "repairs", "turn"),
    "forgetting": ("context", "forget", "kept", "open", "turn"),
}

# The verbs of each file.
VERBS: dict[str, tuple[str, ...]] = {
    "admit": ("admit", "check_room"),
    "edit": ("edit",),
    "finish": ("finish", "give_up"),
    "forget": ("forget", "forget_answers", "reset"),
    "forgetting": (
        "claim_forgetting",
        "erase",
        "forget_persona",
        "hide_spent",
        "leave_queue",
    ),
    "lease": ("release", "renew", "save", "save_context"),
    "press": ("continue", "regenerate"),
    "quota": ("usage",),
    "rate": ("rate",),
    "repairs": ("claim_repair", "complete_repair", "report_late_writes"),
    "speakers": ("note_speakers",),
    "stop": ("stop", "stop_own", "stop_thread"),
    "take": ("take",),
    "turn": ("others_wait",),
}
_FILE_OF = {verb: file for file, verbs in VERBS.items() for verb in verbs}


def source_of(verb: str) -> str:
    """Return the script of a verb."""
    read = (_read(file) for file in files_of(_FILE_OF[verb]))
    return "\n".join([*read, f"return verbs.{verb}(unpack(ARGV, 3))"])


def files_of(file: str) -> list[str]:
    """Return the files of a script in their order: each behind those that it needs."""
    found = ["prelude"]

    def add(one: str) -> None:
        if one not in found:
            for needed in NEEDS[one]:
                add(needed)
            found.append(one)

    add(file)
    return found


@cache
def _read(file: str) -> str:
    return (files("bot.turns.scripts") / f"{file}.lua").read_text(encoding="utf-8")
