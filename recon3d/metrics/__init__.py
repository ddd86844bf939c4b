"""Metrics: pure functions first, torchmetrics classes that keep per-sample values second."""
