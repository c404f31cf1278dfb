"""Whom a guarantee protects, against whom, and what counts as neighbouring data."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """What one epsilon protects. Figures of different units are never added or compared."""

    RECORD = "record"  # one row of one site's data
    PERSON = "person"  # all rows of one person, at most a declared number of them
    SITE = "site"  # all data of one site


class Relation(StrEnum):
    """When two data sets are neighbours. Replacing one record costs 1.2 to 2.2 times more; the two never mix."""

    ADD_OR_REMOVE_ONE = "add-or-remove-one"


class Adversary(StrEnum):
    """Who may see what leaves a site without learning more than epsilon allows."""

    OUTSIDE_THE_SITE = "outside-the-site"  # server, other sites and every user of the model, together
    MODEL_USERS = "model-users"  # users of the models; not the coordinator, which sees sums without noise
    SERVER_AND_COLLUDERS = "server-and-colluders"  # server, users, and at most the stated number of sites
    NONE = "none"  # nothing is hidden from anybody
