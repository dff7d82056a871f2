"""`python -m bot init` at a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from tests.support.process import ROOT
from tests.support.terminal import at_terminal


def test_ctrl_c_at_a_secret_keeps_the_file_and_gives_the_echo_back(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DISCORD_TOKEN=old\n")
    terminal, ours = pty.openpty()
    with subprocess.Popen(
        at_terminal(sys.executable, "-m", "bot", "init"),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=ours,
        stdout=ours,
        stderr=ours,
    ) as process:
        shown = b""
        while b"takes it away): " not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, b"secret\x03")
        status = process.wait(20)
        os.set_blocking(terminal, False)
        shown += os.read(terminal, 4096)
    echoes = termios.tcgetattr(ours)[3] & termios.ECHO
    os.close(ours)
    os.close(terminal)

    assert b"last question" in shown
    assert status == 130
    assert echoes
    assert b"secret" not in shown
    assert (tmp_path / ".env").read_text() == "DISCORD_TOKEN=old\n"
    assert [it.name for it in tmp_path.iterdir()] == [".env"]
