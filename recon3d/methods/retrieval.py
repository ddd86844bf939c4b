"""Retrieval: answers with the training object that was seen in the most similar image, a test of memory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from recon3d.methods.base import Paper, ReconstructionMethod
from recon3d.networks.imagenet import vgg16_features
from recon3d.structures import Reconstruction, ViewBatch

ROWS = 65_536  # training images that are compared at once: 1 GiB of fc6 in single precision
ROUNDING = 1e-5  # more than the error of a squared distance of unit vectors by matrix product
SAME_NETWORK = 1e-2  # features of one image on two devices differ by less, those of two networks by much more


class Retrieval(ReconstructionMethod):
    """The voxels of the training image nearest to the input in the feature space of a fixed VGG-16.

    Nearest is by the Euclidean distance of features divided by their length, which orders as their cosine does; the
    papers do not name a distance. Of equally near images, the object whose name sorts first answers, so that the order
    of training, the batch size and the number of processes do not matter. The answer is voxels, never a mesh, because
    voxels are what batches hold of the ground truth. It reads RGB: the network has no channel for a mask, and a
    background that is black already shows it.

    Source: Kato et al. 2018, section 5.1.1 and Table 1, who take it from Yan et al. 2016.

    Args:
        layer: of `vgg16_features`; fc6 in the paper. Feature maps are compared position by position.
        image_size: pixels to which images are resized; 224 is what the network was made for.
        weights: torchvision's ImageNet weights of VGG-16, as in the paper. None: random, which still keeps apart what
            looks different. Checkpoints name the file and do not contain it.
        seed: of random weights.
        views: of each training object, all of them in the paper.
    """

    paper: Paper | None = Paper(
        "Perspective Transformer Nets: Learning Single-View 3D Object Reconstruction without 3D Supervision",
        2016,
        "https://arxiv.org/abs/1612.00814",
    )
    needs: frozenset[str] = frozenset({"voxels"})

    features: Tensor
    owners: Tensor

    def __init__(
        self,
        layer: str = "fc6",
        image_size: int = 224,
        weights: Path | None = None,
        seed: int = 0,
        views: int = 24,
    ) -> None:
        super().__init__()
        if image_size < 1 or views < 1:
            raise ValueError(f"Retrieval: expected image_size and views of at least 1, got {image_size} and {views}.")
        self.hparams["weights"] = None if weights is None else str(weights)  # a Path could not be loaded safely
        self.automatic_optimization = False
        self.min_views = views
        self.layer, self.image_size = layer, image_size
        self.network = vgg16_features([layer], None if weights is None else Path(weights), seed)
        self.names: list[str] = []  # objects, sorted
        self.register_buffer("features", torch.empty(0, 0, dtype=torch.half), persistent=False)  # (N, D) of N images
        self.register_buffer("owners", torch.empty(0, dtype=torch.long), persistent=False)  # (N,) index into names
        self._views: dict[str, Tensor] = {}  # object -> half (V, D)
        self._shapes: dict[str, Tensor] = {}  # object -> bits of its voxels, uint8 (R^3 / 8)
        self._resolution = 0

    def forward(self, image: Tensor) -> Reconstruction:
        """The voxels of the nearest training image of each of B images (B, 3, H, W)."""
        with torch.autocast(image.device.type, enabled=False):  # as the features that are kept
            objects, _ = self.nearest(image)
        bits = torch.stack([self._shapes[self.names[index]] for index in objects.tolist()])
        r = self._resolution
        voxels = np.unpackbits(bits.numpy(), axis=1, count=r**3).reshape(-1, r, r, r)
        return Reconstruction(voxels=torch.from_numpy(voxels).bool().to(image.device))

    def nearest(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Index into `names` of the object of the nearest training image, (B,), and the distance to it, (B,)."""
        if not len(self.features):
            raise RuntimeError("Retrieval has no training images yet: fit it, or load a checkpoint.")
        queries = self._describe(image).float()
        squared = []  # up to the length of the query, which is the same for all rows
        for rows in self.features.split(ROWS):
            single = rows.float()
            squared.append(single.square().sum(dim=1) - 2 * queries @ single.T)
        found, distances = [], []
        for query, approximate in zip(queries, torch.cat(squared, dim=1), strict=True):
            # A product of matrices rounds equal rows differently; what may be nearest is compared once more.
            close = (approximate <= approximate.min() + ROUNDING).nonzero().flatten()
            exact = (self.features[close].float() - query).square().sum(dim=1)
            first = exact.argmin()  # of equal ones the first
            found.append(self.owners[close[first]])
            distances.append(exact[first].sqrt())
        return torch.stack(found), torch.stack(distances)

    def training_step(self, batch: ViewBatch, batch_idx: int) -> None:
        """Keep the features of all views, and each object's voxels once."""
        self._check(batch)
        assert batch.voxels is not None
        self._resolution = batch.voxels.shape[-1]
        # An object at a time: its features do not depend on the others of the batch, nor the memory on their number.
        with torch.autocast(self.device.type, enabled=False):  # a fixed network, whose answers are compared
            for sample_id, images, voxels in zip(batch.sample_id, batch.images, batch.voxels.cpu(), strict=True):
                bits = torch.from_numpy(np.packbits(voxels.numpy()))
                self._keep(sample_id.rpartition("/")[0], self._describe(images).cpu(), bits)

    def on_validation_start(self) -> None:
        """Answer with what was seen so far."""
        self._fit()

    def on_train_epoch_end(self) -> None:
        """Make all that was seen ready for the search, before the checkpoint is written."""
        self._fit()

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was seen, in the middle of an epoch too; a run that goes on adds to it."""
        super().on_save_checkpoint(checkpoint)
        self._fit()
        checkpoint["retrieval"] = self._memory() | {"probe": self._describe(self._probe()).cpu()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            ValueError: the network, which the checkpoint does not contain, is not the one of the features.
        """
        kept = checkpoint["retrieval"]
        difference = float((self._describe(self._probe()).cpu().float() - kept["probe"].float()).norm())
        if not difference < SAME_NETWORK:
            source = self.hparams["weights"] or "a seed"
            raise ValueError(
                f"The features were made with another network than the one from {source}: an image that should have "
                f"the same features is {difference:.3g} away. Put the weights back, or fit again."
            )
        self._views.clear()
        self._merge(kept)
        self._arrange()

    def _describe(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, 3, H, W), of length 1.

        Rounded to half precision, queries as well as what is kept, so that a training image is 0 away from itself.
        """
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return normalize(self.network(images)[self.layer].flatten(1)).half()

    def _probe(self) -> Tensor:
        """An image that tells networks apart."""
        size = self.image_size
        return torch.linspace(0, 1, 3 * size * size, device=self.device).reshape(1, 3, size, size)

    def _keep(self, name: str, views: Tensor, bits: Tensor) -> None:
        """Add views of an object to those there are, each once and sorted.

        Runs of several processes repeat some objects, and the order of the views is random.
        """
        known = self._views.get(name)
        views = views if known is None else torch.cat([known, views])
        views = views.unique(dim=0)
        self._views[name], self._shapes[name] = views, bits

    def _fit(self) -> None:
        """Arrange what was seen, by all processes."""
        self._arrange()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[dict[str, Any]] = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, self._memory())
            for memory in gathered:
                self._merge(memory)
            self._arrange()

    def _memory(self) -> dict[str, Any]:
        """All that was arranged, as few tensors: M objects, N images of D features."""
        return {
            "names": self.names,
            "features": self.features.cpu(),
            "owners": self.owners.cpu(),
            "shapes": torch.stack([self._shapes[name] for name in self.names]) if self.names else None,
            "resolution": self._resolution,
        }

    def _merge(self, memory: dict[str, Any]) -> None:
        """Add the `_memory` of a checkpoint or of another process."""
        if memory["names"]:
            counts = torch.bincount(memory["owners"]).tolist()
            rows = memory["features"].split(counts)
            for name, views, bits in zip(memory["names"], rows, memory["shapes"], strict=True):
                self._keep(name, views, bits)
            self._resolution = memory["resolution"]

    def _arrange(self) -> None:
        """Sort by name and join."""
        if not self._views:
            return
        self.names = sorted(self._views)
        counts = [len(self._views[name]) for name in self.names]
        joined = torch.cat([self._views[name] for name in self.names])
        self._views = dict(zip(self.names, joined.split(counts), strict=True))  # parts of it: not a second copy
        self.features = joined.to(self.device)
        self.owners = torch.repeat_interleave(torch.tensor(counts)).to(self.device)
