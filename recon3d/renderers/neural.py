"""The Neural 3D Mesh Renderer (Kato et al. 2018) as a renderer: meshes, textures, lights, cameras in; images out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recon3d.geometry.cameras import camera_centers, project
from recon3d.kernels import NeuralRaster, neural_rasterize
from recon3d.kernels.neural_rasterize import GradientRule
from recon3d.structures import Camera


@dataclass(frozen=True)
class Lights:
    """An ambient and a directional light: ``ambient + directional * max(0, n . direction)`` (Kato et al. 2018, 3.5).

    Gradients flow into every field that is a tensor. Fields broadcast over the leading shape (...) of the render.
    The defaults are those of the authors' code.

    Attributes:
        ambient: intensity, float or (...).
        directional: intensity, float or (...).
        ambient_color: RGB, three floats or (..., 3).
        directional_color: RGB, three floats or (..., 3).
        direction: towards the light, in the world; three floats or (..., 3), of any length but 0.
        clamp: False is the formula as printed, which darkens faces turned away from the light; True, as in the code,
            leaves them to the ambient light.
    """

    ambient: float | Tensor = 0.5
    directional: float | Tensor = 0.5
    ambient_color: Sequence[float] | Tensor = (1.0, 1.0, 1.0)
    directional_color: Sequence[float] | Tensor = (1.0, 1.0, 1.0)
    direction: Sequence[float] | Tensor = (0.0, 1.0, 0.0)
    clamp: bool = True

    def on_faces(self, normals: Tensor) -> Tensor:
        """Light (..., F, 3) on faces with unit normals (..., F, 3)."""

        def as_tensor(value: float | Sequence[float] | Tensor) -> Tensor:
            return torch.as_tensor(value, dtype=normals.dtype, device=normals.device)

        direction = as_tensor(self.direction)
        if bool((direction == 0).all(dim=-1).any()):
            raise ValueError("Lights: expected a direction towards the light, got (0, 0, 0).")
        direction = F.normalize(direction, dim=-1)
        cosine = (normals * direction.unsqueeze(-2)).sum(dim=-1, keepdim=True)
        cosine = cosine.relu() if self.clamp else cosine
        ambient = as_tensor(self.ambient).unsqueeze(-1) * as_tensor(self.ambient_color)
        directional = as_tensor(self.directional).unsqueeze(-1) * as_tensor(self.directional_color)
        return ambient.unsqueeze(-2) + directional.unsqueeze(-2) * cosine


def render_neural_silhouette(
    verts: Tensor,
    faces: Tensor,
    camera: Camera,
    image_size: int,
    anti_alias: int = 2,
    eps: float = 1e-4,
    gradient: GradientRule = "code",
    backend: str | None = None,
) -> Tensor:
    """Silhouettes of meshes that share `faces`, with the approximate gradient.

    Args:
        verts: (..., V, 3); leading dimensions broadcast against the camera's.
        faces: (F, 3).
        camera: leading shape (...), perspective.
        image_size: S.
        anti_alias: see `recon3d.kernels.neural_rasterize`; 2 in the paper.
        eps: see `recon3d.kernels.neural_rasterize`.
        gradient: see `recon3d.kernels.neural_rasterize`.
        backend: see `recon3d.kernels.neural_rasterize`.

    Returns:
        (..., S, S) in [0, 1].

    Raises:
        ValueError: as `recon3d.kernels.neural_rasterize`, or orthographic cameras.
    """
    _refuse_orthographic(camera)
    projected = project(camera, verts)
    corners = projected.reshape(-1, *projected.shape[-2:])[:, faces]
    raster = neural_rasterize(corners, image_size, anti_alias=anti_alias, eps=eps, gradient=gradient, backend=backend)
    return raster.mask.reshape(*projected.shape[:-2], image_size, image_size)


def render_neural(
    verts: Tensor,
    faces: Tensor,
    textures: Tensor,
    camera: Camera,
    image_size: int,
    lights: Lights | None = None,
    background: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    anti_alias: int = 2,
    eps: float = 1e-3,
    gradient: GradientRule = "code",
    with_depth: bool = False,
    backend: str | None = None,
) -> NeuralRaster:
    """Lit, textured images of meshes that share `faces`, seen from both sides.

    Every face is lit as a whole, by its normal on the side that the camera sees; gradients flow through the light into
    the vertices as well.

    Args:
        verts: (..., V, 3) in the world.
        faces: (F, 3).
        textures: (..., F, T, T, T, 3) RGB in [0, 1], see `recon3d.kernels.neural_rasterize`.
        camera: leading shape (...), perspective. All leading dimensions broadcast, those of lights and background too.
        image_size: S.
        lights: None is `Lights()`.
        background: RGB, three floats or (..., 3).
        anti_alias: see `recon3d.kernels.neural_rasterize`; 2 in the paper.
        eps: see `recon3d.kernels.neural_rasterize`; 1e-3 for colours in the code.
        gradient: see `recon3d.kernels.neural_rasterize`.
        with_depth: also render depth.
        backend: see `recon3d.kernels.neural_rasterize`.

    Returns:
        NeuralRaster of mask (..., S, S), image (..., 3, S, S) and depth (..., S, S) or None.

    Raises:
        ValueError: as `recon3d.kernels.neural_rasterize`, or orthographic cameras.
    """
    _refuse_orthographic(camera)
    if textures.ndim < 5 or textures.shape[-5] != len(faces):
        raise ValueError(
            f"render_neural: expected textures (..., {len(faces)}, T, T, T, 3) for {len(faces)} faces, got "
            f"{tuple(textures.shape)}."
        )
    projected = project(camera, verts)
    background = torch.as_tensor(background, dtype=verts.dtype, device=verts.device)
    corners = verts[..., faces, :]
    normals = torch.linalg.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    normals = F.normalize(normals, dim=-1, eps=1e-12)
    towards_eye = camera_centers(camera).unsqueeze(-2) - corners[..., 0, :]
    facing = (normals * towards_eye).sum(dim=-1, keepdim=True)
    normals = torch.where(facing < 0, -normals, normals)
    light = (lights or Lights()).on_faces(normals)[..., None, None, None, :]
    lit = textures * light
    lead = torch.broadcast_shapes(projected.shape[:-2], lit.shape[:-5], background.shape[:-1])

    def flat(value: Tensor, n: int) -> Tensor:
        """Leading shape (...) to one dimension, before the last n."""
        shape = value.shape[value.ndim - n :]
        return value.expand(*lead, *shape).reshape(-1, *shape)

    raster = neural_rasterize(
        flat(projected, 2)[:, faces],
        image_size,
        textures=flat(lit, 5),
        background=flat(background, 1),
        with_depth=with_depth,
        anti_alias=anti_alias,
        eps=eps,
        gradient=gradient,
        backend=backend,
    )
    return NeuralRaster(
        raster.mask.reshape(*lead, image_size, image_size),
        raster.image.reshape(*lead, 3, image_size, image_size) if raster.image is not None else None,
        raster.depth.reshape(*lead, image_size, image_size) if raster.depth is not None else None,
    )


def _refuse_orthographic(camera: Camera) -> None:
    if camera.orthographic:
        raise ValueError("render_neural: expected perspective cameras, got orthographic ones.")
