"""Strategies as values: what the sites do differently, how updates become one, how one becomes the next model."""
