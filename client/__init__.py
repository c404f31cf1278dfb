"""One site: what leaves it is decided here."""
