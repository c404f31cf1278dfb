"""What private training reaches on public data, beside the figures that others have published."""
