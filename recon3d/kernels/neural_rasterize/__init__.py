"""The Neural 3D Mesh Renderer's rasteriser: a z-buffer forward, and an approximate gradient that moves edges."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recon3d.kernels.checks import check_faces
from recon3d.kernels.dispatch import choose_backend
from recon3d.kernels.neural_rasterize.depth import visible_depth
from recon3d.kernels.zbuffer import zbuffer

BACKENDS = {"numba": ("cpu",), "reference": ("cuda", "cpu")}
GradientRule = Literal["code", "paper"]


class NeuralRaster(NamedTuple):
    """Images of B meshes, row 0 at the top.

    Attributes:
        mask: (B,S,S) coverage in [0, 1]; only 0 and 1 without anti-aliasing.
        image: (B,3,S,S) colours on the background, or None without textures.
        depth: (B,S,S) view-space z, 100 where no face is, or None if not asked for.
    """

    mask: Tensor
    image: Tensor | None
    depth: Tensor | None


def neural_rasterize(
    face_verts: Tensor,
    image_size: int,
    textures: Tensor | None = None,
    background: Tensor | None = None,
    with_depth: bool = False,
    anti_alias: int = 1,
    eps: float = 1e-4,
    gradient: GradientRule = "code",
    backend: str | None = None,
) -> NeuralRaster:
    """Rasterise triangles, with the approximate gradient of Kato et al. 2018 (arXiv 1711.07566, section 3).

    **Forward** is that of `recon3d.kernels.zbuffer`: hard, both windings. The colour of a pixel is its face's texture
    cube at the coordinates ``w_k (T - 1)``, w the perspective-correct weights of the corners (section 3.4),
    interpolated trilinearly; coordinates stay below ``T - 1 - eps``.

    **Backward to x and y** (section 3.2, 3.3; the rules of the authors' code). In units of pixels, for every edge
    (a, b) of a face f, every row and column u that it crosses at v_x, with i the pixel just inside the edge and o the
    one just outside, and V the rendered channels (colours and mask) with incoming gradient g:

    - outside: if f is what i shows, each pixel q from o to the image's border could become V_i;
      ``d = sum_k (V_qk - V_ik) g_qk``;
    - inside: each pixel q of the row between the edge and the opposite one that shows f could become V_o;
      ``d = sum_k (V_qk - V_ok) g_qk``.

    Where d > 0 (eq. 1: the change lowers the loss), the gradient of corner a along the row loses ``d / delta``, with
    delta the NDC distance by which a alone has to move to bring the crossing onto the centre of q, eps longer; b the
    same.
    The third corner gets nothing, and z nothing from colours or mask.

    **Exact gradients**: to textures and background; of depth to x, y and z (inside faces; its jumps at edges give
    none).

    `gradient="paper"` differs from the code in two points: every channel is gated on its own, ``d = sum_k max(0,
    d_k)``; and a crossing counts as visible for corner a, outside and inside, if the face that i shows has a corner
    exactly where a is (section 3.3: "surfaces not including v_i" occlude), be it f or another; the inside sweep of the
    code asks for no visible crossing.

    Args:
        face_verts: (B, F, 3, 3): NDC x (left), NDC y (up), view-space z of each corner; F may be 0.
        image_size: S, of the square result.
        textures: (B, F, T, T, T, 3) colours, axis k for corner k, T >= 2; lighting is multiplied in beforehand.
        background: (3,) or (B, 3) RGB; None is black. Only used with textures.
        with_depth: also render depth.
        anti_alias: rasterise at this multiple of S and average; depth averages its background of 100 in, as NMR does.
        eps: see above, in (0, 1); the code has 1e-4 for masks and 1e-3 for colours.
        gradient: `code` or `paper`.
        backend: `numba` (CPU) or `reference` (torch, its forward PyTorch3D's); None asks RECON3D_BACKEND, then the
            device.

    Returns:
        NeuralRaster in the dtype of `face_verts`. On the CPU the gradient is deterministic.

    Raises:
        ValueError: wrong shapes or dtypes, NaN or inf, an unknown rule or an unavailable backend.
    """
    check_faces("neural_rasterize", "face_verts", face_verts, 3, image_size)
    _check(face_verts, textures, background, anti_alias, eps, gradient)
    name = choose_backend("neural_rasterize", face_verts.device, BACKENDS, backend)
    compiled: ModuleType
    if name == "numba":
        from recon3d.kernels.neural_rasterize import numba_cpu as compiled
    else:
        from recon3d.kernels.neural_rasterize import reference as compiled
    size = image_size * anti_alias
    seen = zbuffer(face_verts, size, backend=name)
    channels = (seen.face_index >= 0).to(face_verts.dtype).unsqueeze(1)
    if textures is not None:
        if background is None:
            background = face_verts.new_zeros(3)
        behind = background.expand(len(face_verts), 3)[..., None, None]
        colors = compiled.sample_textures(textures, seen.face_index, seen.barycentric, eps)
        channels = torch.cat([torch.where(seen.face_index.unsqueeze(1) >= 0, colors, behind), channels], dim=1)
    channels = _EdgeGradient.apply(channels, face_verts, seen.face_index, eps, gradient == "paper", compiled)
    depth = visible_depth(face_verts, seen.face_index) if with_depth else None
    if anti_alias > 1:
        channels = F.avg_pool2d(channels, anti_alias)
        depth = F.avg_pool2d(depth.unsqueeze(1), anti_alias).squeeze(1) if depth is not None else None
    return NeuralRaster(channels[:, -1], channels[:, :3] if textures is not None else None, depth)


class _EdgeGradient(torch.autograd.Function):
    """The identity on the channels, whose backward also moves the corners of the faces."""

    @staticmethod
    def forward(
        ctx: Any, channels: Tensor, face_verts: Tensor, index: Tensor, eps: float, paper: bool, compiled: ModuleType
    ) -> Tensor:
        ctx.save_for_backward(channels, face_verts, index)
        ctx.eps, ctx.paper, ctx.compiled = eps, paper, compiled
        return channels.view_as(channels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        channels, face_verts, index = ctx.saved_tensors
        grad_verts = None
        if ctx.needs_input_grad[1]:
            grad_xy = ctx.compiled.edge_gradient(face_verts, index, channels, grad, ctx.eps, ctx.paper)
            grad_verts = F.pad(grad_xy, (0, 1)).to(face_verts.dtype)
        return grad, grad_verts, None, None, None, None


def _check(
    face_verts: Tensor, textures: Tensor | None, background: Tensor | None, anti_alias: int, eps: float, gradient: str
) -> None:
    b, f = face_verts.shape[:2]
    for name, value in (("textures", textures), ("background", background)):
        if value is not None and (value.dtype, value.device) != (face_verts.dtype, face_verts.device):
            raise ValueError(
                f"neural_rasterize: expected {name} as {face_verts.dtype} on {face_verts.device}, as face_verts; got "
                f"{value.dtype} on {value.device}."
            )
    if textures is not None:
        size = textures.shape[2] if textures.ndim == 6 else 0
        if size < 2 or textures.shape != (b, f, size, size, size, 3):
            raise ValueError(
                f"neural_rasterize: expected textures of shape ({b}, {f}, T, T, T, 3) with T >= 2, got "
                f"{tuple(textures.shape)}."
            )
        if not bool(torch.isfinite(textures).all()):
            raise ValueError("neural_rasterize: textures hold NaN or inf.")
    if background is not None:
        if background.shape not in ((3,), (b, 3)):
            raise ValueError(f"neural_rasterize: expected background (3,) or ({b}, 3), got {tuple(background.shape)}.")
        if not bool(torch.isfinite(background).all()):
            raise ValueError("neural_rasterize: background holds NaN or inf.")
    if anti_alias < 1 or not 0 < eps < 1:
        raise ValueError(f"neural_rasterize: expected anti_alias >= 1 and eps in (0, 1), got {anti_alias} and {eps}.")
    if gradient not in get_args(GradientRule):
        raise ValueError(
            f"neural_rasterize: expected gradient to be one of {get_args(GradientRule)}, got {gradient!r}."
        )
