"""3D DeepDream: the objective and its views.

[1] Kato, Ushiku, Harada 2018, Neural 3D Mesh Renderer, sections 4.2.2 and 5.2.1; [2] the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recon3d.apps.editing.views import Views, random_cameras
from recon3d.renderers.neural import Lights

LAYERS = ("inception_4c",)  # of GoogLeNet, [1]
DISTANCE, ELEVATIONS = 2.5, (-10.0, 30.0)  # [2]


class DreamObjective:
    """Minus the mean squared feature of the renders, plus a term that keeps edges of one length.

    Deviation: [1] prints ``-|f|_F^2``, the sum, and has no edge term. Both the mean and the edge term are of [2]. With
    weight 0 the loss differs from that of [1] by a constant factor, on which Adam's updates do not depend (its epsilon
    aside); with another weight that factor is part of the balance between the two terms.

    Deviation: [2] balances them with 1e-4 for Caffe's GoogLeNet on BGR pixels of 0 to 255 less their mean. `features`
    is another network (torchvision's, with batch normalisation, on RGB of -1 to 1), so that the same weight is another
    balance.

    Args:
        features: of `LAYERS`; RGB images (B, 3, H, W) in [0, 1] to feature maps by name.
        faces: (F, 3).
        edge_weight: of `edge_length_variance`; 0 is [1], 1e-4 the number in [2].
    """

    def __init__(self, features: nn.Module, faces: Tensor, edge_weight: float) -> None:
        self.features, self.faces, self.edge_weight = features, faces, edge_weight

    def views(self, batch: int, generator: torch.Generator) -> Views:
        """Random views ([2]): no shading, one random grey behind the whole batch."""
        cameras = random_cameras(batch, DISTANCE, ELEVATIONS, generator)
        grey = torch.rand(1, generator=generator).expand(3).to(self.faces.device)
        return Views(cameras, Lights(ambient=1.0, directional=0.0), grey)

    def terms(self, images: Tensor, mask: Tensor, verts: Tensor) -> dict[str, Tensor]:
        """Weighted terms of renders (B, 3, S, S) and the vertices (V, 3); the mask is not needed."""
        (feature,) = self.features(images).values()
        return {
            "features": -feature.square().mean(),
            "edges": self.edge_weight * edge_length_variance(verts, self.faces),
        }


def edge_length_variance(verts: Tensor, faces: Tensor) -> Tensor:
    """F times the variance of the lengths of the 3F face edges ([2]); edges inside the surface count twice.

    Args:
        verts: (V, 3).
        faces: (F, 3).
    """
    corners = verts[faces]
    lengths = (corners - corners.roll(1, dims=1)).norm(dim=-1)
    return len(faces) * lengths.var(unbiased=False)
