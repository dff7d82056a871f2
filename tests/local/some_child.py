"""A process for the tests of `bot.local.child_process`, which does what it is asked for."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time


def _main() -> None:
    print("A library greets on standard output.", 7, flush=True)
    print(8, flush=True)
    request = json.loads(sys.stdin.readline())
    if request["does"] == "die":
        sys.exit("this machine is too old")
    if request["does"] == "run out of memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if request["does"] == "hang":
        time.sleep(600)
    sys.stderr.write(request["errors"])
    sys.stderr.flush()
    if request["does"] == "fail":
        sys.exit(1)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", request["port"]))
    server.listen()
    report = {"port": server.getsockname()[1], "pid": os.getpid(), "variables": [*os.environ]}
    print(json.dumps(report), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()
