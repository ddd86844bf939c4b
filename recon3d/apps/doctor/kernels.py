"""Runs every backend of every kernel on a small input and compares it, with its gradients, to the reference.

Operations and backends come from `recon3d.kernels.listing`; imported where torch is known to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

import torch
from packaging.requirements import Requirement
from torch import Tensor

from recon3d.apps.doctor.finding import Finding, first_line
from recon3d.apps.doctor.packages import PROJECT, python_command
from recon3d.geometry.templates import icosphere
from recon3d.kernels.dispatch import ENVIRONMENT_VARIABLE, choose_backend, environment_backend
from recon3d.kernels.listing import backends
from recon3d.kernels.neural_rasterize import neural_rasterize
from recon3d.kernels.pairwise_repulsion import pairwise_repulsion
from recon3d.kernels.soft_face_pixels import soft_face_pixels
from recon3d.kernels.soft_rgb import soft_rgb
from recon3d.kernels.soft_silhouette import soft_silhouette
from recon3d.kernels.voxelize import voxelize
from recon3d.kernels.zbuffer import zbuffer

SIZE = 16  # pixels
TOLERANCE = 1e-3  # relative to the largest value; PyTorch3D computes in single precision
CLEAR_CACHE = "find recon3d -name '*.nb[ci]' -delete  # numba's compiled files; they are made again"

Run = Callable[[torch.device, str], list[Tensor]]


def _sphere(device: torch.device) -> Tensor:
    """Corners (1, F, 3, 3) of a sphere before the camera: NDC x, NDC y, z."""
    verts, faces = icosphere(1, 0.6)
    corners = verts[faces] + torch.tensor([0.05, 0.02, 2.0])
    return corners[None].to(device)


def _with_gradients(inputs: list[Tensor], run: Callable[..., Tensor]) -> list[Tensor]:
    """The result, and the gradient of its weighted sum into every input."""
    inputs = [value.clone().requires_grad_() for value in inputs]
    result = run(*inputs)
    weights = torch.linspace(0.5, 1.5, result.numel(), device=result.device).reshape(result.shape)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), inputs)]


def _zbuffer(device: torch.device, backend: str) -> list[Tensor]:
    seen = zbuffer(_sphere(device), SIZE, backend=backend)
    return [seen.face_index.float(), seen.depth.nan_to_num(posinf=0)]


def _soft_silhouette(device: torch.device, backend: str) -> list[Tensor]:
    return _with_gradients(
        [_sphere(device)[..., :2]], lambda xy: soft_silhouette(xy.contiguous(), SIZE, 1e-2, backend=backend)
    )


def _soft_rgb(device: torch.device, backend: str) -> list[Tensor]:
    corners = _sphere(device)
    colors = torch.linspace(0, 1, corners.numel(), device=device).reshape(corners.shape)
    return _with_gradients(
        [corners, colors], lambda verts, rgb: soft_rgb(verts, rgb, SIZE, 1e-2, gamma=1e-2, backend=backend)
    )


def _soft_face_pixels(device: torch.device, backend: str) -> list[Tensor]:
    return list(soft_face_pixels(_sphere(device), SIZE, 1e-2, gamma=1e-2, backend=backend))


def _neural_rasterize(device: torch.device, backend: str) -> list[Tensor]:
    return _with_gradients([_sphere(device)], lambda verts: neural_rasterize(verts, SIZE, backend=backend).mask)


def _pairwise_repulsion(device: torch.device, backend: str) -> list[Tensor]:
    xy = _sphere(device)[0, :, 0, :2].contiguous()[None]
    weight = torch.linspace(0.5, 1, xy.shape[1], device=device)[None]
    return _with_gradients(
        [xy, weight, 0.1 * weight], lambda p, w, b: pairwise_repulsion(p, w, b, 0.1, backend=backend)
    )


def _voxelize(device: torch.device, backend: str) -> list[Tensor]:
    verts, faces = (value.to(device) for value in icosphere(1, 0.4))
    return [voxelize(verts, faces, SIZE, backend=backend).float()]


CASES: Mapping[str, Run] = {
    "neural_rasterize": _neural_rasterize,
    "pairwise_repulsion": _pairwise_repulsion,
    "soft_face_pixels": _soft_face_pixels,
    "soft_rgb": _soft_rgb,
    "soft_silhouette": _soft_silhouette,
    "voxelize": _voxelize,
    "zbuffer": _zbuffer,
}


def check_kernels(
    cases: Mapping[str, Run] = CASES, table: Mapping[str, Mapping[str, list[str]]] | None = None
) -> Iterator[Finding]:
    """A line for each kernel and device: the backends that agree with the reference, and those that do not work.

    Args:
        cases: what to run, by the name of the kernel.
        table: kernel to device to backends, the default first; None asks `listing.backends`.
    """
    table = backends() if table is None else table
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name, by_device in table.items():
        for device in devices:
            if by_device.get(device):
                yield from _check(name, torch.device(device), by_device[device], cases[name])


def _check(name: str, device: torch.device, names: list[str], run: Run) -> Iterator[Finding]:
    subject = f"{name} ({device.type})"
    try:
        chosen = choose_backend(name, device, {one: (device.type,) for one in names})
    except ValueError as error:
        remedy = f"unset {ENVIRONMENT_VARIABLE}"
        yield Finding("kernels", subject, "problem", first_line(error), remedy, device.type == "cpu")
        chosen = names[0]
    reference: list[Tensor] | None = None
    works = []
    # The reference first: all others are compared with it.
    for backend in sorted(names, key=lambda one: one != "reference"):
        essential = device.type == "cpu" and backend == chosen
        try:
            result = run(device, backend)
        except Exception as error:  # whatever a compiled library throws, the report goes on
            text = f"{backend} fails: {first_line(error)}"
            yield Finding("kernels", subject, "problem", text, _remedy(error, names, backend), essential)
            continue
        if backend == "reference":
            reference = result
        elif reference is not None and (gap := _difference(result, reference)) > TOLERANCE:
            text = f"{backend} differs from the reference by {gap:.2g} of the largest value"
            remedy = CLEAR_CACHE if backend == "numba" else f"export {ENVIRONMENT_VARIABLE}=reference"
            yield Finding("kernels", subject, "problem", text, remedy, essential)
            continue
        works.append(backend)
    if works:
        listed = ", ".join(f"{one} (default)" if one == chosen else one for one in names if one in works)
        asked = f"; {ENVIRONMENT_VARIABLE} asks for {chosen}" if environment_backend() else ""
        yield Finding("kernels", subject, "ok", f"{listed}{asked}")


def _difference(result: list[Tensor], reference: list[Tensor]) -> float:
    """Largest difference of any output or gradient, relative to the largest value of that output."""
    gaps = []
    for ours, theirs in zip(result, reference, strict=True):
        scale = float(theirs.abs().max().clamp_min(1e-6))
        gaps.append(float((ours - theirs).abs().max()) / scale)
    return float("inf") if any(gap != gap for gap in gaps) else max(gaps)


def _remedy(error: Exception, names: list[str], backend: str) -> str:
    """The command that brings a backend back, or the way around it."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if missing:
        distributions = metadata.packages_distributions().get(missing, [missing])
        wanted = [Requirement(line) for line in metadata.requires(PROJECT) or []]
        # A module whose distribution is gone is not in that list; our dependencies' names contain the module's.
        fits = [one for one in wanted if one.name in distributions or missing.lower() in one.name.lower()]
        asked = f"{fits[0].name}{fits[0].specifier}" if fits else missing
        return f"{python_command()} -m pip install '{asked}'"
    if backend == "numba":
        return CLEAR_CACHE
    others = [one for one in names if one != backend]
    return f"export {ENVIRONMENT_VARIABLE}={others[0]}" if others else "report it with this text"
