"""The web page: HTTP and server-sent events, replies in the streams of their threads."""
