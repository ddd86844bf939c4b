"""Hard rendering for data sets and for evaluation, the same for all methods: masks, shaded colours, depth.

Nothing here is differentiable; methods train through `renderers.soft` and its siblings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.kernels.zbuffer import zbuffer
from recon3d.structures import Camera

AMBIENT, DIFFUSE = 0.5, 0.5  # NMR's default light intensities (Kato et al. 2018)
# Direction to the light in view space (+X left, +Y up, +Z into the scene): over the viewer's left shoulder, so that
# every view shows the same cue from shading.
TO_LIGHT = (0.4, 0.8, -0.6)
GREY = 0.7  # colour of a mesh that has none


class HardRender(NamedTuple):
    """Images of B cameras.

    Attributes:
        mask: (B,1,H,W) coverage in [0, 1]; only 0 and 1 without anti-aliasing.
        image: (B,3,H,W) straight colours (not multiplied by the mask), 0 where the mask is 0.
        depth: (B,1,H,W) view-space z of the nearest surface in a pixel, +inf where the mask is 0.
    """

    mask: Tensor
    image: Tensor
    depth: Tensor


def gather_faces(values: Tensor, faces: Tensor) -> Tensor:
    """Per-vertex values (B,V,C) at the corners of faces (F,3) or (B,F,3): (B,F,3,C).

    Faces with a negative index are padding and give zeros, a face of no area.
    """
    faces = faces.expand(len(values), *faces.shape[-2:])
    b, f = faces.shape[:2]
    index = faces.clamp(min=0).reshape(b, 3 * f, 1).expand(-1, -1, values.shape[-1])
    corners = values.gather(1, index).reshape(b, f, 3, values.shape[-1])
    return corners.masked_fill((faces < 0).any(dim=-1)[..., None, None], 0.0)


def render_hard(
    verts: Tensor,
    faces: Tensor,
    camera: Camera,
    image_size: int,
    face_colors: Tensor | None = None,
    anti_alias: int = 1,
    backend: str | None = None,
) -> HardRender:
    """Render B meshes, mesh b in camera b, two-sided, flat shaded.

    Colour is ``face colour * (0.5 + 0.5 max(0, n . l))`` with the face normal n turned towards the viewer and the light
    l fixed to the camera.

    Args:
        verts: (B, V, 3) in the world.
        faces: (F, 3) shared, or (B, F, 3) padded with -1.
        camera: leading shape (B,).
        image_size: S, of the square result.
        face_colors: RGB in [0, 1]: (F, 3) or (B, F, 3) per face, or (B, F, 3, 3) per corner (interpolated); None is
            grey.
        anti_alias: rasterise at this multiple of S and average (coverage and premultiplied colours).
        backend: see `recon3d.kernels.zbuffer`.

    Returns:
        HardRender at S x S, on the device of `verts`.

    Raises:
        ValueError: orthographic cameras, whose depth is not that of the perspective-correct z-buffer.
    """
    if camera.orthographic:
        raise ValueError("render_hard: expected perspective cameras, got orthographic ones.")
    with torch.no_grad():
        size = image_size * anti_alias
        view = verts @ camera.R + camera.T.unsqueeze(-2)
        seen = zbuffer(gather_faces(project(camera, verts), faces), size, backend=backend)
        hit = seen.face_index >= 0
        # (B,F,...) -> (B,S,S,...): the face that each pixel sees.
        index = seen.face_index.clamp(min=0).flatten(1)

        def of_face(values: Tensor) -> Tensor:
            flat = values.flatten(2)
            picked = flat.gather(1, index.unsqueeze(-1).expand(-1, -1, flat.shape[-1]))
            return picked.reshape(*hit.shape, *values.shape[2:])

        b, f = len(verts), faces.shape[-2]
        if f == 0:
            image = verts.new_zeros(b, 3, image_size, image_size)
            return HardRender(image[:, :1], image, torch.full_like(image[:, :1], torch.inf))
        if face_colors is None:
            colors = verts.new_full((*hit.shape, 3), GREY)
        elif face_colors.ndim == 4:
            colors = (of_face(face_colors) * seen.barycentric.unsqueeze(-1)).sum(dim=-2)
        else:
            colors = of_face(face_colors.expand(b, f, 3))
        corners = gather_faces(view, faces)
        normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
        normals = F.normalize(normals, dim=-1, eps=1e-12)
        # The viewer sits at the origin of view space: a normal along the line of sight points away from it.
        away = (normals * corners.mean(dim=2)).sum(dim=-1, keepdim=True) > 0
        normals = torch.where(away, -normals, normals)
        light = F.normalize(verts.new_tensor(TO_LIGHT), dim=0)
        shade = AMBIENT + DIFFUSE * (normals @ light).clamp(min=0)  # (B,F)
        colors = (colors * of_face(shade.unsqueeze(-1))).clamp(0, 1)

        mask = hit.unsqueeze(1).to(verts.dtype)
        image = colors.permute(0, 3, 1, 2) * mask
        depth = seen.depth.unsqueeze(1)
        if anti_alias > 1:
            mask = F.avg_pool2d(mask, anti_alias)
            image = F.avg_pool2d(image, anti_alias) / mask.clamp(min=1e-6)
            depth = -F.max_pool2d(-depth, anti_alias)
        return HardRender(mask, image, depth)
