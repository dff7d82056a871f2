"""The process that reads one file: its bytes come in, and JSON arrays go out, one per line."""

from __future__ import annotations

import json
import mimetypes
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from bot.files.formats import MOST_CHARACTERS, Unreadable, parts_of
from bot.files.problem import Problem
from bot.text.sanitize import strip_controls, whole_characters

_MOST_PARTS = 80  # pages, slides or sheets
# By RLIMIT_…: in bytes, files and seconds of a CPU. No size: nothing can be written to a file.
_LIMITS = {"AS": 300_000_000, "CPU": 10, "FSIZE": 0, "NOFILE": 32, "CORE": 0}
# The libraries use these if they are there, and do without them; numpy alone exceeds the memory.
_UNUSED = ("numpy", "pandas", "lxml", "PIL")
_REFUSED = ("socket.", "subprocess.", "shutil.", "os.")
_USED = ("os.listdir", "os.scandir")  # to find modules
_MODULES = (".py", ".pyc", ".so")


def prepare() -> None:
    """Hide what the libraries must not import; call this before they are imported."""
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]
    mimetypes.init(())  # openpyxl would open the system's list


def main() -> None:
    """Report what was read of standard input.

    Its first line is empty, or has "html" and the charset of a web page, if that was told.
    """
    prepare()
    kind, _, charset = sys.stdin.buffer.readline().strip().decode().partition(" ")
    data = sys.stdin.buffer.read()
    _limit()
    sys.addaudithook(_refuse)
    for report in read(data, html=charset if kind else None):
        sys.stdout.write(f"{json.dumps(report)}\n")
        sys.stdout.flush()


def read(data: bytes, *, html: str | None = None) -> Iterator[Sequence[str | int]]:
    """Yield for each part its text, whether it is cut, the unit and the total; last the problem."""
    try:
        unit, total, texts = parts_of(data, html=html)
        room = MOST_CHARACTERS
        for text in islice(texts, _MOST_PARTS):
            whole = strip_controls(whole_characters(text)).strip()
            yield whole[:room], len(whole) > room, unit, total
            room -= len(whole)
            if room <= 0:
                break
        problem = Problem.EMPTY
    except Unreadable as error:
        problem = error.args[0]
    except ImportError:
        problem = Problem.MISSING
    except MemoryError:
        problem = Problem.HEAVY
    # No library tells what a hostile file may bring it to raise.
    except Exception:
        problem = Problem.DAMAGED
    yield [problem.name]


def _limit() -> None:
    """Limit this process as far as its system can: macOS does not limit memory."""
    for name, most in _LIMITS.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse connections, processes, changes, and to read any file but a module of Python."""
    is_read = event == "open" and arguments[1] in ("r", "rb")
    is_refused = event == "open" or (event.startswith(_REFUSED) and event not in _USED)
    if is_refused and not (is_read and str(arguments[0]).endswith(_MODULES)):
        raise PermissionError(event)


if __name__ == "__main__":
    main()
