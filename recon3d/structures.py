"""The contract between data, methods and evaluation: Camera, ViewBatch, Reconstruction.

Conventions of the whole project, written once, here:

- **World to view** (PyTorch3D): ``X_view = X_world @ R + T``; view axes +X left, +Y up, +Z into the scene. NDC in
  [-1, 1], +X left, +Y up. Quaternions have w first.
- **Pixels**: row 0 is the top; the centre of pixel (row i, column j) of an (H, W) image is
  NDC ``y = 1 - (2i+1)/H``, ``x = 1 - (2j+1)/W``.
- **Object frame**: right-handed, +Y up, bounding box centred at the origin, inside [-0.5, 0.5]^3. Scale by layout:
  longest side 1 (NMR layout, the default) or diagonal 1 (DPC layout); the data set says which, the Record keeps it.
  Relative to a ShapeNet .obj file's (X, Y, Z), the object frame is (-Z, Y, X), a proper rotation: it is the frame of
  the NMR data set with z negated, because NMR's screen is left-handed and PyTorch3D's is not. Fronts face +X.
- **Voxels**: bool grids indexed **[y, x, z]** of the object frame, R = 32; cell of a coordinate v is
  ``floor((R-1) v + R/2)``. This is the index order of the NMR ground-truth files.
- **Images**: float32 RGB in [0, 1], not normalised; renders have a black background, photographs their own, and white
  where a crop leaves the picture. **Masks**: float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from pytorch3d.renderer.mesh.textures import TexturesBase
from pytorch3d.structures import Meshes
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A batch of cameras of any leading shape (...), in the convention of this module.

    A point p of the world projects to NDC ``focal * (x, y) / z + center`` (perspective) or
    ``focal * (x, y) + center`` (orthographic), with (x, y, z) = p @ R + T.

    Attributes:
        R: (..., 3, 3) rotation, row-vector convention.
        T: (..., 3) translation.
        focal: (..., 2) focal length in NDC units; ``1 / tan(half field of view)``.
        center: (..., 2) principal point in NDC.
        orthographic: one flag for the whole batch; weak perspective is orthographic with its scale in `focal`.
    """

    R: Tensor
    T: Tensor
    focal: Tensor
    center: Tensor
    orthographic: bool = False

    def __post_init__(self) -> None:
        lead = self.T.shape[:-1]
        expected = {"R": (*lead, 3, 3), "T": (*lead, 3), "focal": (*lead, 2), "center": (*lead, 2)}
        came = {name: tuple(getattr(self, name).shape) for name in expected}
        if came != expected:
            raise ValueError(f"Camera: expected shapes {expected}, got {came}.")

    @property
    def shape(self) -> torch.Size:
        """Leading shape (...)."""
        return self.T.shape[:-1]

    def _map(self, function: Any) -> Self:
        return replace(
            self, R=function(self.R), T=function(self.T), focal=function(self.focal), center=function(self.center)
        )

    def __getitem__(self, index: Any) -> Self:
        """Index the leading dimensions."""
        index = index if isinstance(index, tuple) else (index,)
        return self._map(lambda value: value[index])

    def flatten(self) -> Self:
        """Cameras (N,) from any leading shape."""
        n = len(self.shape)
        return self._map(lambda value: value.reshape(-1, *value.shape[n:]))

    def to(self, device: Any = None, **kwargs: Any) -> Self:
        """Move as `torch.Tensor.to`."""
        return self._map(lambda value: value.to(device, **kwargs))

    def pin_memory(self) -> Self:
        """Copy to pinned memory."""
        return self._map(lambda value: value.pin_memory())

    def clone(self) -> Self:
        """Copy."""
        return self._map(lambda value: value.clone())

    @classmethod
    def cat(cls, cameras: Sequence[Camera]) -> Camera:
        """Concatenate along the first leading dimension."""
        if len({camera.orthographic for camera in cameras}) != 1:
            raise ValueError("Camera.cat: perspective and orthographic cameras cannot share a batch.")
        joined = {
            name: torch.cat([getattr(camera, name) for camera in cameras]) for name in ("R", "T", "focal", "center")
        }
        return cls(**joined, orthographic=cameras[0].orthographic)


@dataclass(frozen=True)
class ViewBatch:
    """B objects, each seen in V views; view 0 is the input of the reconstruction.

    A field is present for a whole data set, or None for all of it.

    Attributes:
        images: (B, V, 3, H, W).
        masks: (B, V, 1, H, W).
        cameras: leading shape (B, V).
        points: (B, P, 3) ground-truth surface samples in the object frame.
        normals: (B, P, 3) unit normals of `points`.
        voxels: (B, R, R, R) bool.
        keypoints: (B, V, K, 3): x, y in NDC, visibility 0 or 1; x and y are 0 where it is 0.
        parts: (B, V, C, H, W) part probabilities in [0, 1]; channel 0 is the background.
        sample_id: B unique names, such as ``car/0007/v03``.
        category: B category names.
    """

    images: Tensor
    masks: Tensor
    sample_id: tuple[str, ...]
    category: tuple[str, ...]
    cameras: Camera | None = None
    points: Tensor | None = None
    normals: Tensor | None = None
    voxels: Tensor | None = None
    keypoints: Tensor | None = None
    parts: Tensor | None = None

    def __post_init__(self) -> None:
        b, v, _, h, w = self.images.shape if self.images.ndim == 5 else (-1,) * 5
        if self.images.ndim != 5 or self.images.shape[2] != 3 or self.masks.shape != (b, v, 1, h, w):
            raise ValueError(
                "ViewBatch: expected images (B,V,3,H,W) and masks (B,V,1,H,W), got "
                f"{tuple(self.images.shape)} and {tuple(self.masks.shape)}."
            )
        if len(self.sample_id) != b or len(self.category) != b:
            raise ValueError(
                f"ViewBatch: {b} objects, {len(self.sample_id)} sample ids, {len(self.category)} categories."
            )
        if self.cameras is not None and self.cameras.shape != (b, v):
            raise ValueError(f"ViewBatch: expected cameras of shape {(b, v)}, got {tuple(self.cameras.shape)}.")
        for name in ("points", "normals", "voxels", "keypoints", "parts"):
            value = getattr(self, name)
            if value is not None and len(value) != b:
                raise ValueError(f"ViewBatch: {name} has {len(value)} objects, images have {b}.")

    def __len__(self) -> int:
        return len(self.images)

    def inputs(self, channels: int, views: int = 1) -> Tensor:
        """What a method sees: the first `views` views as (B*views, C, H, W), object by object.

        C is 3 (RGB), or 4 (RGB and mask).
        """
        if channels not in (3, 4):
            raise ValueError(f"ViewBatch.inputs: a method reads 3 (RGB) or 4 (RGB + mask) channels, not {channels}.")
        image = self.images[:, :views]
        if channels == 4:
            image = torch.cat([image, self.masks[:, :views]], dim=2)
        return image.flatten(0, 1)

    def _map(self, method: str, *args: Any, **kwargs: Any) -> Self:
        moved = {
            field.name: getattr(value, method)(*args, **kwargs)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor | Camera)
        }
        return replace(self, **moved)

    def to(self, device: Any, **kwargs: Any) -> Self:
        """Move every tensor to `device`."""
        return self._map("to", device, **kwargs)

    def pin_memory(self) -> Self:
        """Copy every tensor to pinned memory (called by DataLoader)."""
        return self._map("pin_memory")

    def singles(self) -> Iterator[Self]:
        """Its objects, each as a batch of one with memory of its own.

        What is computed of such a batch depends on the object alone; in a larger one the last digit depends on the
        others, and on where in memory it lies.
        """
        for index in range(len(self)):
            values = {field.name: getattr(self, field.name) for field in fields(self)}
            own = {name: value[index : index + 1] for name, value in values.items() if value is not None}
            yield replace(self, **own)._map("clone")

    @classmethod
    def collate(cls, batches: Sequence[ViewBatch]) -> ViewBatch:
        """Join batches (data sets return batches of one object) along B.

        Raises:
            ValueError: a field is present in some and missing in others.
        """
        joined: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(batch, field.name) for batch in batches]
            present = [value for value in values if value is not None]
            if present and len(present) != len(values):
                absent = [batch.sample_id for batch in batches if getattr(batch, field.name) is None]
                raise ValueError(f"ViewBatch.collate: field {field.name!r} is missing for {absent}.")
            if not present:
                joined[field.name] = None
            elif isinstance(present[0], Tensor):
                joined[field.name] = torch.cat(present)
            elif isinstance(present[0], Camera):
                joined[field.name] = Camera.cat(present)
            else:
                joined[field.name] = tuple(name for value in present for name in value)
        return cls(**joined)


@dataclass(frozen=True)
class Reconstruction:
    """What a method answers for B images, in the object frame. At least one of mesh, points, voxels is present.

    A method that needs more for its losses subclasses this with typed fields; evaluation reads these fields only.

    Attributes:
        mesh: batch of B meshes; colour or texture in `mesh.textures`, which needs no light.
        points: (B, N, 3).
        voxels: (B, R, R, R) bool, index order [y, x, z].
        camera: predicted camera of the input view, leading shape (B,).
        plain_textures: of the same mesh, without what the method adds to its texture for the sake of training.
        flow: (B, F, K, 2) where each face took its texture: K points of the input image, in NDC.
    """

    mesh: Meshes | None = None
    points: Tensor | None = None
    voxels: Tensor | None = None
    camera: Camera | None = None
    plain_textures: TexturesBase | None = None
    flow: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mesh is None and self.points is None and self.voxels is None:
            raise ValueError("Reconstruction: expected a mesh, points or voxels, got none of them.")

    def __len__(self) -> int:
        shape = next(value for value in (self.mesh, self.points, self.voxels) if value is not None)
        return len(shape)
