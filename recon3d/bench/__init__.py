"""Benchmark: configs to runs (runner), runs to Records (record), Records to tables (table)."""
