"""Studies: one scenario in many variants and over many seeds, resumable, with intervals instead of single numbers."""
