"""Hard rendering for data sets and for evaluation, the same for all methods: masks, colours, depth.

Nothing here is differentiable; methods train through `renderers.soft` and its siblings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pytorch3d.renderer.mesh.rasterizer import Fragments
from pytorch3d.renderer.mesh.textures import TexturesBase, TexturesVertex
from pytorch3d.structures import Meshes
from torch import Tensor

from recon3d.geometry.cameras import project
from recon3d.kernels.zbuffer import ZBuffer, zbuffer
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
    *,
    lit: bool = True,
    textures: TexturesBase | None = None,
) -> HardRender:
    """Render B meshes, mesh b in camera b, two-sided, flat shaded.

    Colour is ``surface colour * (0.5 + 0.5 max(0, n . l))`` with the face normal n turned towards the viewer and the
    light l fixed to the camera. Orthographic cameras have no place: they see all that lies along their axis, in
    depth's order, and depth is linear within a face.

    Args:
        verts: (B, V, 3) in the world.
        faces: (F, 3) shared, or (B, F, 3) padded with -1.
        camera: leading shape (B,).
        image_size: S, of the square result.
        face_colors: RGB in [0, 1]: (F, 3) or (B, F, 3) per face, or (B, F, 3, 3) per corner (interpolated); None is
            grey.
        anti_alias: rasterise at this multiple of S and average (coverage and premultiplied colours).
        backend: see `recon3d.kernels.zbuffer`.
        lit: shade; False gives the surface colour as it is, for textures that hold their light.
        textures: RGB of PyTorch3D instead of `face_colors`: of the vertices, a UV map or an atlas, for these verts and
            faces (padding left out, as in `Meshes`). Colours are cut to [0, 1].

    Returns:
        HardRender at S x S, on the device of `verts`.

    Raises:
        ValueError: both `face_colors` and `textures`, or textures that do not have three channels.
    """
    if face_colors is not None and textures is not None:
        raise ValueError("render_hard: expected face_colors or textures, got both; a surface has one colour.")
    with torch.no_grad():
        size = image_size * anti_alias
        b, f = len(verts), faces.shape[-2]
        if f == 0:
            image = verts.new_zeros(b, 3, image_size, image_size)
            return HardRender(image[:, :1], image, torch.full_like(image[:, :1], torch.inf))
        seen = _nearest(verts, faces, camera, size, backend)
        hit = seen.face_index >= 0
        # (B,F,...) -> (B,S,S,...): the face that each pixel sees.
        index = seen.face_index.clamp(min=0).flatten(1)

        def of_face(values: Tensor) -> Tensor:
            flat = values.flatten(2)
            picked = flat.gather(1, index.unsqueeze(-1).expand(-1, -1, flat.shape[-1]))
            return picked.reshape(*hit.shape, *values.shape[2:])

        if isinstance(textures, TexturesVertex):
            face_colors = gather_faces(textures.verts_features_padded(), faces)
        if textures is not None and face_colors is None:
            colors = _sample_textures(textures, seen, verts, faces)
        elif face_colors is None:
            colors = verts.new_full((*hit.shape, 3), GREY)
        elif face_colors.ndim == 4:
            colors = (of_face(face_colors) * seen.barycentric.unsqueeze(-1)).sum(dim=-2)
        else:
            colors = of_face(face_colors.expand(b, f, 3))
        if colors.shape[-1] != 3:
            raise ValueError(f"render_hard: expected colours of 3 channels, got {colors.shape[-1]}.")
        if lit:
            colors = colors * of_face(_shade(verts, faces, camera))

        mask = hit.unsqueeze(1).to(verts.dtype)
        image = colors.clamp(0, 1).permute(0, 3, 1, 2) * mask
        depth = seen.depth.unsqueeze(1)
        if anti_alias > 1:
            mask = F.avg_pool2d(mask, anti_alias)
            image = F.avg_pool2d(image, anti_alias) / mask.clamp(min=1e-6)
            depth = -F.max_pool2d(-depth, anti_alias)
        return HardRender(mask, image, depth)


def _nearest(verts: Tensor, faces: Tensor, camera: Camera, size: int, backend: str | None) -> ZBuffer:
    """The z-buffer of a perspective or an orthographic camera; depth is +inf where nothing is."""
    projected = project(camera, verts)
    if not camera.orthographic:
        return zbuffer(gather_faces(projected, faces), size, backend=backend)
    # The z-buffer interpolates 1/z. It is given 1/z = 1 + t with t linear in the depth, 1 at the nearest vertex of a
    # mesh and 0 at the farthest, so that order and interpolation are those of the depth itself.
    depth = projected[..., 2:]
    farthest = depth.amax(dim=1, keepdim=True)
    span = farthest - depth.amin(dim=1, keepdim=True)
    span = torch.where(span > 0, span, 1.0)
    harmonic = 1 / (1 + (farthest - depth) / span)
    corners = gather_faces(torch.cat([projected[..., :2], harmonic], dim=-1), faces)
    seen = zbuffer(corners, size, backend=backend)
    # Its weights are w_k / z_k over their sum; what is wanted are the w_k.
    corner_z = corners[..., 2].gather(1, seen.face_index.clamp(min=0).reshape(len(verts), -1, 1).expand(-1, -1, 3))
    weights = seen.barycentric * corner_z.reshape(seen.barycentric.shape)
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    linear = farthest - span * (1 / seen.depth - 1)  # (B,1,1) of a mesh
    return ZBuffer(seen.face_index, weights, torch.where(seen.face_index >= 0, linear, torch.inf))


def _shade(verts: Tensor, faces: Tensor, camera: Camera) -> Tensor:
    """Lambert's factor of the faces, (B,F,1)."""
    corners = gather_faces(verts @ camera.R + camera.T.unsqueeze(-2), faces)
    normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normals = F.normalize(normals, dim=-1, eps=1e-12)
    # The line of sight: from the origin of view space, or along its axis. A normal along it points away.
    sight = verts.new_tensor([0.0, 0.0, 1.0]) if camera.orthographic else corners.mean(dim=2)
    away = (normals * sight).sum(dim=-1, keepdim=True) > 0
    normals = torch.where(away, -normals, normals)
    light = F.normalize(verts.new_tensor(TO_LIGHT), dim=0)
    return AMBIENT + DIFFUSE * (normals @ light).clamp(min=0).unsqueeze(-1)


def _sample_textures(textures: TexturesBase, seen: ZBuffer, verts: Tensor, faces: Tensor) -> Tensor:
    """Colours (B,S,S,C) of what is seen, by PyTorch3D."""
    valid = (faces >= 0).all(dim=-1).expand(len(verts), -1)
    own = [corners[kept] for corners, kept in zip(faces.expand(len(verts), -1, 3), valid, strict=True)]
    # Meshes writes its counts into the textures that it gets; detach makes a new object around the same tensors.
    meshes = Meshes(list(verts), own, textures=textures.detach())
    # PyTorch3D numbers faces through the whole batch, without padding.
    packed = (valid.flatten().cumsum(0) - 1).reshape(valid.shape)
    index = packed.gather(1, seen.face_index.clamp(min=0).flatten(1)).reshape(seen.face_index.shape)
    index = torch.where(seen.face_index >= 0, index, -1).unsqueeze(-1)
    fragments = Fragments(
        pix_to_face=index,
        zbuf=seen.depth.unsqueeze(-1),
        bary_coords=seen.barycentric.unsqueeze(-2),
        dists=torch.zeros_like(seen.depth).unsqueeze(-1),
    )
    return meshes.sample_textures(fragments).squeeze(-2)
