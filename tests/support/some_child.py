"""A process as `bot.local.child_process` keeps them, which does what it is told: for tests."""

from __future__ import annotations

import json
import os
import socket
import sys
import time


def _main() -> None:
    print("A library greets on standard output.", 7, flush=True)
    print(8, flush=True)
    order = json.loads(sys.stdin.readline())
    if order["does"] == "die":
        sys.exit("this machine is too old")
    if order["does"] == "hang":
        time.sleep(600)
    sys.stderr.write(order["words"])
    sys.stderr.flush()
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", order["port"]))
    door.listen()
    told = {"port": door.getsockname()[1], "pid": os.getpid(), "names": [*os.environ]}
    print(json.dumps(told), flush=True)
    print(json.dumps({"later": "word"}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()
