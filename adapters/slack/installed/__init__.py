"""Serves each workspace that has installed the app: its tokens, how they come and how they go."""
