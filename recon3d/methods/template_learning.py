"""Template learning of UMR: the mean shape of a category, from the network's own answers, or from another training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from recon3d.methods.loading import read_checkpoint
from recon3d.structures import ViewBatch

if TYPE_CHECKING:
    from recon3d.methods.texture_flow import TextureFlowMesh


@torch.no_grad()
def mean_offset(method: TextureFlowMesh, batches: Iterable[ViewBatch]) -> Tensor:
    """Mean offset (P + S, 3) from the template over a pass of training photographs, over all processes.

    UMR's code averages the shape codes and decodes their mean; the decoder is linear, so this is the same.
    """
    total = torch.zeros_like(method.template, dtype=torch.float64)
    count = total.new_zeros(1)
    training = method.training
    method.eval()
    for batch in batches:
        offset = method.shape(method.shape.shape_code(method.encoder(batch.inputs(method.in_channels))))
        total += offset.double().sum(dim=0)
        count += len(offset)
    method.train(training)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        distributed.all_reduce(count)
    return (total / count).to(method.template)


def read_template(checkpoint: Path, template: Tensor, labels: Tensor) -> None:
    """Copy template and vertex parts of a checkpoint of `AdaptiveTextureUMR` into buffers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no checkpoint, or one without them.
    """
    state = read_checkpoint(checkpoint)["state_dict"]
    found = {name: state.get(name) for name in ("template", "part_losses.labels")}
    wanted = {"template": template, "part_losses.labels": labels}
    for name, buffer in wanted.items():
        value = found[name]
        if value is None or value.shape != buffer.shape:
            raise ValueError(
                f"{checkpoint} has no {name} of shape {tuple(buffer.shape)}: expected a checkpoint of adaptive_texture "
                "or umr."
            )
        buffer.copy_(value)
