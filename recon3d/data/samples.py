"""The objects of a split one at a time, alike for every layout: what the data doctor examines.

Between the layouts on disk and `split_checks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recon3d.data import dpc_layout
from recon3d.data.dpc_layout import ModelFiles
from recon3d.data.nmr_layout import SplitArrays
from recon3d.data.npz import DataFileError
from recon3d.geometry.cameras import dpc_cameras, nmr_cameras
from recon3d.structures import Camera


@dataclass(frozen=True)
class Sample:
    """One object of a data set in any layout.

    Attributes:
        id: of the object.
        images: (V, 4, S, S) uint8 RGBA.
        cameras: leading shape (V,); None where the layout has none for so many views.
        voxels: (32, 32, 32) bool, index [y, x, z] of the object frame, or None.
        points: (P, 3) in the object frame, or None.
        normals: (P, 3) of `points`, or None.
    """

    id: str
    images: np.ndarray
    cameras: Camera | None
    voxels: np.ndarray | None = None
    points: np.ndarray | None = None
    normals: np.ndarray | None = None


@dataclass(frozen=True)
class NMRSamples:
    """Objects of a split in the NMR layout."""

    arrays: SplitArrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, row: int) -> Sample:
        arrays = self.arrays
        n_views = arrays.images.shape[1]
        return Sample(
            id=arrays.ids[row],
            images=arrays.images.open()[row],
            cameras=nmr_cameras(n_views) if n_views in (24, 120) else None,
            voxels=arrays.voxels.open()[row],
            points=None if arrays.points is None else arrays.points.open()[row],
            normals=None if arrays.normals is None else arrays.normals.open()[row],
        )


@dataclass(frozen=True)
class DPCSamples:
    """Objects of a split in the DPC layout; reading one that is damaged raises a `DataFileError`."""

    models: tuple[ModelFiles, ...]
    n_views: int

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, row: int) -> Sample:
        model = self.models[row]
        files = dpc_layout.view_files(model.folder, self.n_views)
        images = [dpc_layout.read_image(image) for image, _ in files]
        if len({image.shape for image in images}) != 1:
            raise DataFileError(f"{model.folder}: expected views of one size, got {[i.shape[-1] for i in images]}.")
        positions = np.stack([dpc_layout.read_position(camera) for _, camera in files])
        return Sample(
            id=model.id,
            images=np.stack(images),
            cameras=dpc_cameras(torch.from_numpy(positions)),
            voxels=dpc_layout.read_voxels(model.folder),
            points=None if model.cloud is None else dpc_layout.read_cloud(model.cloud),
        )


Samples = NMRSamples | DPCSamples
