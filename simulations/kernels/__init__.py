"""Ways to train all sites of a round in one process: as fast as the machine allows, equal to the local loop."""
