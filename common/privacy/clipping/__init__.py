"""Per-record gradients, each clipped, then summed: engines behind one protocol, and what models they accept."""
