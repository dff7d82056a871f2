"""Matrix: rooms of any homeserver, heard and written over the client-server API."""
