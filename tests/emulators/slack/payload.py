"""The JSON objects that Slack and an app send each other."""

Payload = dict[str, object]
