"""Many bot processes under everything that can go wrong, judged by what stands on the screens.

    python -m tests.chaos [--seconds 60] [--faults SIGKILL --most 1000] [--seed 7]

- `talks.py`: the people, who ask in DMs and threads of Discord and Slack, and some events twice.
- `fleet.py`: the processes, each of which is started again when it ends.
- `server.py`: the Redis that they share, and the way to it.
- `../outage.py`: the ways to everything, which can be cut.
- `faults.py`: what goes wrong, by name.
- `judge.py`: what must hold afterwards, seen from outside.
- `run.py`: one run of all that.
"""
