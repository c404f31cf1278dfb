"""Ways to compute what the sites of a round compute; all give the same updates."""
