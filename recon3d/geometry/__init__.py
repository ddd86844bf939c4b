"""Geometry that is computed, not learned: cameras, templates, surface sampling, procedural shapes."""
