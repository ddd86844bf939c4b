"""Gradient-based editing of a mesh: 2D-to-3D style transfer and 3D DeepDream (Kato et al. 2018, section 4.2)."""
