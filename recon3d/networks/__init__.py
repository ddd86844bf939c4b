"""Network blocks used by two or more methods; each normalises its own input."""
