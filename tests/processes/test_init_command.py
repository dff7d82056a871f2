"""`python -m bot init` at a terminal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.process import ROOT, press_at_prompt


def test_ctrl_c_at_a_secret_keeps_the_file_and_gives_the_echo_back(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DISCORD_TOKEN=old\n")
    shown, status, echoes = press_at_prompt(
        *("-m", "bot", "init"), folder=tmp_path, prompt=b"takes it away): ", keys=b"secret\x03"
    )

    assert b"last question" in shown
    assert status == 130
    assert echoes
    assert b"secret" not in shown
    assert (tmp_path / ".env").read_text() == "DISCORD_TOKEN=old\n"
    assert [it.name for it in tmp_path.iterdir()] == [".env"]


def test_a_proxy_in_the_file_is_used_by_the_checks(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        (tmp_path / ".env").write_text(f"HTTP_PROXY=http://127.0.0.1:{proxy.getsockname()[1]}\n")
        names = {"MODEL_URL": "http://model.example/v1", "MODEL_ID": "m"}
        with subprocess.Popen(
            [sys.executable, "-m", "bot", "init", "--yes"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **names},
            stdout=subprocess.DEVNULL,
        ) as process:
            proxy.settimeout(20)
            connection, _ = proxy.accept()
            with connection:
                asked = connection.recv(1024)
            process.kill()

    assert b"model.example" in asked
