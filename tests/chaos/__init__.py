"""Many bot processes under everything that can go wrong, judged by what stands on the screens.

    python -m tests.chaos [--seconds 60] [--faults SIGKILL --most 1000] [--seed 7]

- `talks.py`: conversations in DMs and threads of Discord and Slack.
- `people.py`: those who ask in them, and edit and delete; some events come twice.
- `fleet.py`: the processes, each of which is started again when it ends, and their Redis.
- `../support/outage.py`: the ways to everything, which can be cut.
- `faults.py`: what goes wrong, by name.
- `judge.py`: what must hold afterwards, seen from outside.
- `run.py`: one run of all that.
"""
