"""Renderers: a shape and a Camera in, masks and images out."""
