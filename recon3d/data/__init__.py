"""Data modules: each turns files on disk into ViewBatch, and knows no method."""
