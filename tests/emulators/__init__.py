"""Servers on loopback that stand in for Discord, Slack and a model, strict and nasty.

What all three have in common, so that a test knows its way in each:

- `async with Emulator() as it` runs it. Leaving fails the test by what stands in `unknown` (calls
  that are not emulated) or `violations` (what breaks the platform's rules, or the emulator's own
  failure), and by a fault that no call met; who does it on purpose empties the list, or heals.
- `fail(call, how, …)` lets calls go wrong and `heal()` ends that: faults.py has the words.
- `latency` is in seconds per call, half of them before the work is done; settable at any time.
- `requests` are the calls in order, each with `at`, `status` (None without an answer) and
  `limited` (it was answered 429). All recorded times are real monotonic seconds.
- Discord and Slack tell what a person sees, `screen(channel)`, and when it changed,
  `timeline(channel)`; with the model's `deltas` that makes a `freshness` (bench/freshness.py).
- Discord's and Slack's limits, expiry and retries go by `clock`: advance it instead of sleeping.

A method exists when the bot calls it. To add one: in Discord a handler and its line in routes.py;
in Slack a handler in its module's `METHODS`, and what it takes and refuses in methods.py; for the
model a constant in model/servers.py, with the `endpoints` of the servers that have it. Where there
is an official description, calls and answers are held against it from then on.
"""
