"""Losses as pure functions, one family per file."""
