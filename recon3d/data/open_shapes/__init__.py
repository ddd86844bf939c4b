"""open_shapes: openly licensed CAD meshes in ShapeNet's categories, rebuilt from Debian packages.

Data flow: `catalogue` (which models) -> `packages` (fetch and unpack) -> `sources` and `readers` (files to triangles)
-> `cleaning` -> `grouping` (duplicates, families, splits) -> `build` (folder of meshes and metadata.csv).
"""

from recon3d.data.open_shapes.build import build_open_shapes
from recon3d.data.open_shapes.packages import fetch_packages

__all__ = ["build_open_shapes", "fetch_packages"]
