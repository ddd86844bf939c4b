"""Applications on trained methods."""
