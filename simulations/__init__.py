"""A whole federation in one process, and what is asked of it."""
