"""One finished run as one page, one model card and one table of numbers."""
