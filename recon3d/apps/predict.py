"""`recon3d predict`: photographs to mesh files and previews, with a trained method."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch3d.renderer import TexturesUV, TexturesVertex
from pytorch3d.structures import Meshes
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from recon3d.apps.background import background_remover
from recon3d.apps.mesh_files import (
    FORMATS,
    TEXTURED_FORMATS,
    texture_map,
    textured_mesh_files,
    write_mesh,
    write_textured_mesh,
)
from recon3d.apps.photo import Photo, read_photo
from recon3d.apps.preview import preview
from recon3d.evaluation.convert import Conversion
from recon3d.files import replace_file
from recon3d.geometry.gltf import object_to_gltf, vertex_colors
from recon3d.methods.base import ReconstructionMethod
from recon3d.methods.loading import load_method
from recon3d.metrics.mesh_health import is_watertight
from recon3d.structures import Reconstruction, ViewBatch

logger = logging.getLogger(__name__)

IMAGE_SIZE = 64  # of methods that name none: all training sets of the suite have it by default


class FailedMeshError(ValueError):
    """The method ran, and its answer is no surface: empty, without area, or not finite, its colours included."""


@dataclass(frozen=True)
class _Targets:
    """The files written for one image."""

    mesh: Path
    preview: Path

    def files(self) -> tuple[Path, ...]:
        """All that may be written."""
        textured = self.mesh.suffix.removeprefix(".") in TEXTURED_FORMATS
        return (*(textured_mesh_files(self.mesh) if textured else (self.mesh,)), self.preview)


def main(
    images: Sequence[Path],
    checkpoint: Path,
    out: Path,
    format: str,
    masks: Sequence[Path] | None = None,
    remover: Path | None = None,
) -> int:
    """Reconstruct every image; writes ``OUT/<stem>.<format>`` and the preview ``OUT/<stem>.png``, prints a table.

    A mesh with a UV map becomes a GLB with the texture inside, an OBJ with ``<stem>.mtl`` and ``<stem>-texture.png`` or
    a PLY with the map's colours at its vertices.

    All inputs are read and checked before anything is computed or written. Every file appears whole or not at all. An
    image for which the method gives no surface is listed as failed, and does not stop the others.

    Args:
        images: see `recon3d.apps.photo.read_photo`.
        checkpoint: see `recon3d.methods.loading.load_method`.
        out: folder; made if it is not there.
        format: `glb`, `obj` or `ply`; their axes: `recon3d.apps.mesh_files`.
        masks: one for each image, in their order, or None.
        remover: network that finds the object in images without a mask, see `recon3d.apps.background`; not with masks.

    Returns:
        Exit status: 0, or 1 if an image failed.

    Raises:
        FileNotFoundError: an image, a mask, the checkpoint or the network is not there.
        RuntimeError: a network is given, and what runs it is not installed.
        ValueError: an input that cannot be used; the message names the file and says what to do.
    """
    if masks is not None and remover is not None:
        raise ValueError("predict: --mask and --remove-background exclude each other.")
    targets = _targets(images, masks, out, format)
    method = load_method(checkpoint)
    size = int(method.hparams.get("image_size", IMAGE_SIZE))
    mask_of: Sequence[Path | None] = masks or [None] * len(images)
    remove = background_remover(remover) if remover is not None else None
    photos = [
        read_photo(image, size, mask, method.photographs, remove) for image, mask in zip(images, mask_of, strict=True)
    ]
    for photo in photos:
        _check_mask(method, photo)
    console = Console()
    table = Table(title=type(method).__name__)
    table.add_column("file", overflow="fold")
    for title in ("vertices", "faces", "texture", "watertight", "seconds"):
        table.add_column(title, justify="right")
    failed = False
    for photo, target in zip(track(photos, "Reconstructing", console=console, transient=True), targets, strict=True):
        start = time.perf_counter()
        try:
            recon = predict(method, photo)
        except FailedMeshError as error:
            failed = True
            table.add_row(f"{escape(str(photo.path))}: [red]failed, {error}[/red]")
            continue
        seconds = time.perf_counter() - start
        _write(photo, recon, target)
        assert recon.mesh is not None
        verts, faces = recon.mesh.get_mesh_verts_faces(0)
        watertight = "yes" if is_watertight(faces.numpy()) else "no"
        table.add_row(
            escape(str(target.mesh)), str(len(verts)), str(len(faces)), _texture(recon), watertight, f"{seconds:.3f}"
        )
    console.print(table)
    console.print(
        "seconds: from the image in memory to the mesh. Peak memory of the process: "
        f"{_peak_memory() / 2**20:,.0f} MiB. Previews are beside the meshes, as .png."
    )
    return int(failed)


def predict(method: ReconstructionMethod, photo: Photo) -> Reconstruction:
    """The method's answer for one photo, with a mesh whatever its representation.

    Voxels become a mesh by marching cubes, points by Poisson reconstruction (`recon3d.geometry.poisson`).

    Args:
        method: on the CPU, in eval mode, as `load_method` gives it.
        photo: at the method's image size.

    Returns:
        Reconstruction of one object: mesh in the object frame with its vertex colours or UV map if the method gives
        any, and the predicted camera if there is one.

    Raises:
        FailedMeshError: the answer has no faces or no area, or it or its colours are not finite.
        ValueError: the method reads a mask and the photo has none.
    """
    _check_mask(method, photo)
    mask = photo.mask if photo.mask is not None else torch.ones_like(photo.image[:1])
    batch = ViewBatch(photo.image[None, None], mask[None, None], sample_id=(str(photo.path),), category=("",))
    with torch.inference_mode():
        # Not `reconstruct`, which may look at the category: nobody knows that of a photo.
        recon = method(batch.inputs(method.in_channels))
        mesh = Conversion(recon, batch).mesh
    if len(mesh.faces_list()[0]) == 0:
        raise FailedMeshError(f"{type(method).__name__} gave no surface (empty, without area, or not finite)")
    textures = recon.mesh.textures if recon.mesh is not None else None
    if isinstance(textures, TexturesVertex | TexturesUV):
        values = textures.maps_padded() if isinstance(textures, TexturesUV) else textures.verts_features_packed()
        if not bool(values.isfinite().all()):
            raise FailedMeshError(f"{type(method).__name__} gave colours that are not finite")
    if isinstance(textures, TexturesVertex):
        mesh = Meshes(mesh.verts_list(), mesh.faces_list(), TexturesVertex(textures.verts_features_list()))
    elif isinstance(textures, TexturesUV):
        mesh = Meshes(mesh.verts_list(), mesh.faces_list(), textures.detach())
    elif textures is not None:
        logger.warning("%s: a %s cannot be written, the mesh has no colours.", photo.path, type(textures).__name__)
    return Reconstruction(mesh=mesh, camera=recon.camera)


def _targets(images: Sequence[Path], masks: Sequence[Path] | None, out: Path, format: str) -> list[_Targets]:
    """Where every image goes; refuses what would be overwritten or lost."""
    if format not in FORMATS:
        raise ValueError(f"predict: expected one of the formats {', '.join(FORMATS)}, got {format!r}.")
    if masks is not None and len(masks) != len(images):
        raise ValueError(f"predict: {len(images)} images and {len(masks)} masks; give one mask for each, in order.")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; --out expects a folder.")
    targets = [_Targets(out / f"{image.stem}.{format}", out / f"{image.stem}.png") for image in images]
    inputs = {path.resolve() for path in (*images, *(masks or ()))}
    owner: dict[str, Path] = {}
    for image, target in zip(images, targets, strict=True):
        for path in target.files():
            if path.resolve() in inputs:
                raise ValueError(f"{path} is an input and would be overwritten; choose another --out.")
            # Without regard to case, as some file systems are.
            if (other := owner.setdefault(path.name.casefold(), image)) is not image:
                raise ValueError(f"{other} and {image} would both become {path}; rename one of them.")
    return targets


def _check_mask(method: ReconstructionMethod, photo: Photo) -> None:
    if method.in_channels == 4 and photo.mask is None:
        raise ValueError(
            f"{photo.path} has no mask, and {type(method).__name__} reads one. Give an RGBA image whose background is "
            "transparent, a mask file with --mask (white is the object), or a network that finds the object with "
            "--remove-background MODEL.onnx (docs/predict.md)."
        )


def _write(photo: Photo, recon: Reconstruction, target: _Targets) -> None:
    assert recon.mesh is not None
    picture = preview(photo, recon)
    verts, faces = recon.mesh.get_mesh_verts_faces(0)
    textures = recon.mesh.textures
    target.mesh.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:  # both or, on a full disk, neither
        picture.save(temporary, format="png")
        if not isinstance(textures, TexturesUV):
            write_mesh(target.mesh, verts, faces, textures.verts_features_list()[0] if textures is not None else None)
        elif target.mesh.suffix == ".ply":
            write_mesh(target.mesh, verts, faces, vertex_colors(textures, faces, len(verts)))
        else:
            write_textured_mesh(target.mesh, object_to_gltf(verts), faces, *texture_map(textures), unlit=True)

    replace_file(target.preview, write)


def _texture(recon: Reconstruction) -> str:
    """Width and height of the UV map, for the table."""
    if recon.mesh is None or not isinstance(recon.mesh.textures, TexturesUV):
        return "-"
    height, width = recon.mesh.textures.maps_padded().shape[1:3]
    return f"{width}x{height}"


def _peak_memory() -> int:
    """Bytes; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
