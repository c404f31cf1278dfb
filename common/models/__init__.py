"""Architectures by name; each is built from its settings and a seed."""
