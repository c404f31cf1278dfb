"""The words both sides of a federation share; imports nothing of the other wings."""
