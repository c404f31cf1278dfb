"""Measurements of what this software costs, beside what others cost for the same work."""
