"""Where pictures, meshes and tables go: one sink for each kind of logger that can show them.

`evaluation.media` decides what is shown and when. Loggers that know numbers only, such as the CSV log, have no sink.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from recon3d.evaluation.sample_views import SampleView, Surface
from recon3d.geometry.gltf import GREY, glb, object_to_gltf


class MediaSink(ABC):
    """Shows samples in one logger."""

    @abstractmethod
    def show(self, stage: str, views: Sequence[SampleView], step: int) -> None:
        """Pictures, predicted and true shapes of the same samples at each step.

        Args:
            stage: ``val`` or ``test``; the first part of every key.
            views: the samples.
            step: of training.
        """

    @abstractmethod
    def show_worst(self, views: Sequence[SampleView], scores: pd.DataFrame, step: int) -> None:
        """A table of samples.

        Args:
            views: a row for each.
            scores: their scores, a row for each and a column for each measure.
            step: of training.
        """


class WandbSink(MediaSink):
    """Images, 3D objects and tables of W&B: `<stage>/pictures`, `meshes`, `clouds`, `truth`, and `test/worst`."""

    def __init__(self, logger: WandbLogger) -> None:
        self._logger = logger

    def show(self, stage: str, views: Sequence[SampleView], step: int) -> None:  # noqa: D102
        import wandb

        content: dict[str, list[object]] = {
            f"{stage}/pictures": [wandb.Image(view.picture, caption=view.sample_id) for view in views]
        }
        with TemporaryDirectory() as folder:  # W&B copies the files as it logs them
            for index, view in enumerate(views):
                shapes = {"meshes": view.mesh, "clouds": view.cloud, "truth": view.truth}
                for kind, shape in shapes.items():
                    if shape is None:
                        continue
                    path = Path(folder) / f"{kind}-{index}.glb"
                    if isinstance(shape, Surface):
                        path.write_bytes(glb(shape.verts, shape.faces, shape.colors))
                        item = wandb.Object3D(str(path), caption=view.sample_id)
                    else:
                        item = wandb.Object3D(object_to_gltf(shape).numpy(), caption=view.sample_id)
                    content.setdefault(f"{stage}/{kind}", []).append(item)
            self._logger.log_metrics(content, step)

    def show_worst(self, views: Sequence[SampleView], scores: pd.DataFrame, step: int) -> None:  # noqa: D102
        import wandb

        rows = [
            [view.sample_id, view.category, wandb.Image(view.picture), *values]
            for view, values in zip(views, scores.to_numpy().tolist(), strict=True)
        ]
        self._logger.log_table("test/worst", ["sample_id", "category", "picture", *scores.columns], rows, step=step)


class TensorBoardSink(MediaSink):
    """Images, meshes and texts of TensorBoard, under `<stage>_<kind>/<sample>`."""

    def __init__(self, logger: TensorBoardLogger) -> None:
        self._logger = logger

    def show(self, stage: str, views: Sequence[SampleView], step: int) -> None:  # noqa: D102
        writer = self._logger.experiment
        for view in views:
            writer.add_image(f"{stage}_pictures/{view.sample_id}", np.asarray(view.picture), step, dataformats="HWC")
            for kind, shape in (("meshes", view.mesh), ("clouds", view.cloud), ("truth", view.truth)):
                if shape is not None:
                    points, colors, faces = _buffers(shape)
                    writer.add_mesh(
                        f"{stage}_{kind}/{view.sample_id}", points, colors=colors, faces=faces, global_step=step
                    )

    def show_worst(self, views: Sequence[SampleView], scores: pd.DataFrame, step: int) -> None:  # noqa: D102
        writer = self._logger.experiment
        lines = [["sample_id", "category", *scores.columns]]
        lines.append(["---"] * len(lines[0]))
        for view, values in zip(views, scores.to_numpy().tolist(), strict=True):
            lines.append([view.sample_id, view.category, *(f"{value:.4g}" for value in values)])
            writer.add_image(f"test_worst/{view.sample_id}", np.asarray(view.picture), step, dataformats="HWC")
        writer.add_text("test_worst/table", "\n".join(f"| {' | '.join(line)} |" for line in lines), step)


def sink_of(logger: Logger) -> MediaSink | None:
    """What shows media in a logger; None if it cannot."""
    if isinstance(logger, WandbLogger):
        return WandbSink(logger)
    if isinstance(logger, TensorBoardLogger):
        return TensorBoardSink(logger)
    return None


def _buffers(shape: Surface | Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Points (1, N, 3), colours 0 to 255 and faces as TensorBoard takes them; a mesh without colours is grey."""
    if isinstance(shape, Tensor):
        return object_to_gltf(shape)[None], None, None
    colors = torch.full_like(shape.verts, GREY) if shape.colors is None else shape.colors
    return object_to_gltf(shape.verts)[None], (255 * colors.clamp(0, 1)).round().int()[None], shape.faces[None].int()
