"""Lying sites as values: what they do to their records, or to their updates, and how well it worked."""
