"""2D-to-3D style transfer: the objective, its views, and the style image.

[1] Kato, Ushiku, Harada 2018, Neural 3D Mesh Renderer, sections 4.2.1 and 5.2.1; [2] the authors' code.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from recon3d.apps.editing.views import Views, random_cameras, uniform
from recon3d.data.picture_files import open_image
from recon3d.losses.style import gram_matrix, style_loss, total_variation
from recon3d.renderers.neural import Lights

LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3")  # [1] prints conv2_3, which VGG-16 does not have; [2] has these
DISTANCE, ELEVATIONS = 2.732, (20.0, 40.0)  # [2]
LIGHT_TILT = 30.0  # degrees between the light and +Y, [2]


class StyleObjective:
    """The weighted terms of [1]: ``L = lambda_c L_c + lambda_s L_s + lambda_t L_t``, means over the batch.

    ``L_c`` is the sum over vertices of the squared displacement in the editing frame. ``L_t`` is the total variation.
    ``L_s`` is the squared distance of Gram matrices, and here it is divided by ``sum_l |G_l|^2`` of the style image: it
    is 1 for an image without features and 0 for the style.

    Deviation: [1] does not divide, and [2] feeds a Caffe VGG with pixels of 0 to 255. Features a times as large give
    losses a^4 times as large, so weights for one set of network weights would mean nothing for another (Caffe's,
    torchvision's, random ones). The division takes a^4 out and leaves the minimum of each term where it is.

    Args:
        features: of `LAYERS`; RGB images (B, 3, H, W) in [0, 1] to feature maps by name.
        style: (3, S, S).
        start: vertices (V, 3) of the content, in the editing frame.
        content_weight: lambda_c.
        style_weight: lambda_s.
        tv_weight: lambda_t.

    Raises:
        ValueError: a style image without any features, such as a black one.
    """

    def __init__(
        self,
        features: nn.Module,
        style: Tensor,
        start: Tensor,
        content_weight: float,
        style_weight: float,
        tv_weight: float,
    ) -> None:
        self.features, self.start = features, start
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.background = style.mean(dim=(1, 2))
        with torch.no_grad():
            self.targets = {layer: gram_matrix(value) for layer, value in features(style[None]).items()}
        self.scale = float(sum(target.square().sum() for target in self.targets.values()))
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"The features of the style image have the squared norm {self.scale}; take another image.")

    def views(self, batch: int, generator: torch.Generator) -> Views:
        """Random views ([2]): light from 30 degrees beside +Y at any azimuth, the style's mean colour behind."""
        cameras = random_cameras(batch, DISTANCE, ELEVATIONS, generator)
        turn, tilt = uniform(0, 2 * math.pi, batch, generator), math.radians(LIGHT_TILT)
        up = torch.full_like(turn, math.cos(tilt))
        direction = torch.stack([math.sin(tilt) * turn.sin(), up, math.sin(tilt) * turn.cos()], dim=1)
        lights = Lights(ambient=0.5, directional=0.5, direction=direction.to(self.background))
        return Views(cameras, lights, self.background)

    def terms(self, images: Tensor, mask: Tensor, verts: Tensor) -> dict[str, Tensor]:
        """Weighted terms of renders (B, 3, S, S), their masks (B, 1, S, S) and the vertices (V, 3)."""
        grams = {layer: gram_matrix(value, mask) for layer, value in self.features(images).items()}
        return {
            "content": self.content_weight * (verts - self.start).square().sum(),
            "style": self.style_weight / self.scale * style_loss(grams, self.targets).mean(),
            "variation": self.tv_weight * total_variation(images, mask).mean(),
        }


def read_style_image(path: Path, size: int) -> Tensor:
    """Read an image as RGB (3, size, size) in [0, 1], stretched to a square as in [2].

    EXIF rotation is applied; what is transparent becomes white.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or a damaged or too large one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No style image at {path}.")
    rgba = open_image(path).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    pixels = np.asarray(opaque.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
