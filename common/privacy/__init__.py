"""What leaves a site, what it reveals about one record, and what may be said about it."""
