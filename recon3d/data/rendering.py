"""Folders of meshes to data sets in the NMR or the DPC layout: `recon3d data render`, and data modules on top.

Mesh files are found and read by `recon3d.data.meshes`, made into views by `recon3d.data.object_views`, joined by
`recon3d.data.building`, and read back by `recon3d.data.shapenet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from recon3d.data.building import Failure, RenderReport, Source, build_dataset, content_hash
from recon3d.data.meshes import MeshFile, Scale, find_meshes, read_mesh
from recon3d.data.nmr_layout import canonical_category
from recon3d.data.object_views import SETTINGS, Layout


def render_dataset(
    src: Path,
    out: Path,
    *,
    layout: Layout = "nmr",
    views: int | None = None,
    image_size: int | None = None,
    categories: Sequence[str] | None = None,
    split_file: Path | None = None,
    workers: int | None = None,
    n_points: int = 10_000,
    scale: Scale | None = None,
    name: str | None = None,
    seed: int = 0,
    timeout: float = 600.0,
) -> RenderReport:
    """Renders a folder of meshes to the NMR or the DPC layout, with points and voxels.

    Runs in parallel, continues where an earlier run was interrupted, and does nothing where it had finished. A mesh
    that cannot be read or rendered is listed with its reason in ``OUT/failures.csv`` and left out.

    Args:
        src: meshes, see `recon3d.data.meshes.find_meshes`; +Y up, front -Z.
        out: folder of the result.
        layout: ``nmr`` (`nmr_layout`) or ``dpc`` (`dpc_layout`).
        views: NMR: 24 (elevation 30 degrees) or 120 (elevations -60 to 60); None is 24. DPC: in any number of random
            directions, see `recon3d.data.object_views.DPCRenderSettings`; None is 5.
        image_size: pixels; None is 64 (NMR) or 128 (DPC).
        categories: names or synset ids to render; None: all there are.
        split_file: see `find_meshes`.
        workers: processes; None: the cores this process may use.
        n_points: surface samples per object.
        scale: what becomes 1: the longest side of the bounding box (None in NMR) or its diagonal (None in DPC).
        name: of the data set; None: the name of `out`.
        seed: of the surface samples and random directions.
        timeout: seconds allowed per mesh.

    Raises:
        FileNotFoundError: no meshes, or no such split file.
        ValueError: a category that is not there, a wrong split file, or `out` holds another data set.
    """
    given: dict[str, Any] = {"views": views, "image_size": image_size, "scale": scale}
    chosen = {option: value for option, value in given.items() if value is not None}
    settings = SETTINGS[layout](n_points=n_points, seed=seed, **chosen)
    meshes = find_meshes(src, split_file)
    if categories is not None:
        wanted = {canonical_category(category) for category in categories}
        present = sorted({mesh.category for mesh in meshes})
        if absent := sorted(wanted.difference(present)):
            raise ValueError(f"{src} has no {', '.join(absent)}; its categories are {', '.join(present)}.")
        meshes = [mesh for mesh in meshes if mesh.category in wanted]
    listed = [mesh for mesh in meshes if mesh.split is not None]
    with ThreadPoolExecutor(workers) as pool:  # hashing and reading both release the interpreter
        sources = list(pool.map(_source, listed))
    return build_dataset(
        sources,
        Path(out),
        settings,
        name=name or Path(out).resolve().name,
        origin=f"meshes of {Path(src).resolve().name}",
        skipped=[
            Failure(mesh.category, mesh.id, str(mesh.path), "the split file does not list it")
            for mesh in meshes
            if mesh.split is None
        ],
        workers=workers,
        timeout=timeout,
    )


def _source(mesh: MeshFile) -> Source:
    files = [mesh.path, *sorted(mesh.path.parent.glob("*.mtl"))]  # materials colour the views
    return Source(
        category=mesh.category,
        id=mesh.id,
        split=mesh.split or "",
        load=partial(read_mesh, mesh.path),
        content=content_hash(*(path.read_bytes() for path in files)),
        origin=str(mesh.path),
    )
