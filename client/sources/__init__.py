"""Readers of the data that a site holds: files in, records out, and never a value in a message."""
