"""The protocol: what is measured, on which representation, in which version. The same for every method and data set.

What is measured on what: `voxel_iou` on solids at 32^3 (a mesh is voxelised, a cloud becomes a mesh by Poisson
reconstruction first), the point measures on surface points (a cloud as the method gives it, at most `N_POINTS`; else as
many samples of the mesh), masks and the health of the mesh on the mesh, which a cloud gets by Poisson, too.
`surface_iou` and `filled_iou` compare clouds in a grid: they depend on the number of points, so a method that gives
2,000 is not on one scale with a mesh of 10,000 samples, and they are no `voxel_iou`.

`mask_iou` compares masks of 0 and 1, `mask_iou_soft` the coverage of the pixels with the mask of the data as it is (the
papers on birds and cars). `ssim` and `fid` compare the render of the texture, without light, with the input image; both
lie on black, which raises `ssim` (a black background agrees), so `ssim_inside` is the mean inside the true mask. The
`_plain` ones are of the texture without what a method adds for the sake of training. `pck_flow` and `pck_camera` carry
key points between images. `fid` is of the network that the note of its result names, and of no other.

Changing what a measure computes, its sampling or its resolution bumps its `version`; tables never mix versions.

Point measures compare two random samplings, so a perfect prediction is not at 0 or 1: the exact mesh against 10,000
ground-truth points scores on synthetic airplanes / cars / chairs (5 each) a Chamfer distance of 0.78 / 1.56 / 1.26 and
an F-score of 0.99 / 0.73 / 0.86, `chamfer_diagonal` 0.0065 / 0.0155 / 0.0105, `surface_iou` 0.94 / 0.90 / 0.92 and
`filled_iou` 0.97 / 0.98 / 0.96; a perfect cloud of 2,000 points has 0.83 / 0.53 / 0.63 and 0.90 / 0.68 / 0.75 of the
last two. Differences near these bounds say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recon3d.metrics.base import SampleMetric, SetMetric
from recon3d.metrics.chamfer import ChamferDiagonal, ChamferDistance
from recon3d.metrics.fid import FrechetDistance
from recon3d.metrics.fscore import FScore
from recon3d.metrics.image import SSIM, SSIMInside
from recon3d.metrics.iou import MaskIoU, SoftMaskIoU, VoxelIoU
from recon3d.metrics.keypoints import CameraTransfer, FlowTransfer
from recon3d.metrics.mesh_health import Components, DegenerateFaces, Manifold, SelfIntersections, Watertight
from recon3d.metrics.point_iou import FilledIoU, SurfaceIoU
from recon3d.metrics.pose import PoseAccuracy, PoseError

N_POINTS = 10_000  # samples of a predicted surface, at most so many points of a predicted cloud
VOXEL_RESOLUTION = 32
SEED = 0  # of surface samples and bootstrap intervals

Representation = Literal[
    "points", "mesh", "voxels", "input_mask", "soft_input_mask", "novel_masks", "input_camera", "input_image",
    "plain_image", "image_features", "plain_image_features", "flow", "vertices", "keypoints",
]  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """One column of a table.

    Attributes:
        name: in logs, Records and tables.
        metric: what computes it.
        pred: representation of the prediction, see `recon3d.evaluation.convert.Conversion`.
        target: representation of the ground truth; None for a measure that needs none.
        unit: "1" for a fraction in [0, 1], "x100" for a hundredth of an object unit, "count",
            "degrees", "%".
        version: of the definition.
        in_validation: also measured at every validation of a training run, where time matters.
        best_of_views: of the samples of one object (its input views) only the best counts; `n` is then of objects.
    """

    name: str
    metric: type[SampleMetric] | type[SetMetric]
    pred: Representation
    target: Representation | None
    unit: str
    version: int
    in_validation: bool = False
    best_of_views: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Direction of the ranking."""
        return bool(self.metric.higher_is_better)


PROTOCOL: tuple[Measure, ...] = (
    Measure("voxel_iou", VoxelIoU, "voxels", "voxels", unit="1", version=1, in_validation=True),
    # Papers report the mean (DPC) or the best (DRWR) over the input views. These three share one search of neighbours.
    Measure("chamfer", ChamferDistance, "points", "points", unit="x100", version=1, in_validation=True),
    Measure("chamfer_best", ChamferDistance, "points", "points", unit="x100", version=1, best_of_views=True),
    Measure("f_score", FScore, "points", "points", unit="1", version=1),
    Measure("chamfer_diagonal", ChamferDiagonal, "points", "points", unit="1", version=1),
    Measure("surface_iou", SurfaceIoU, "points", "points", unit="1", version=1),
    Measure("filled_iou", FilledIoU, "points", "points", unit="1", version=1),
    Measure("mask_iou", MaskIoU, "input_mask", "input_mask", unit="1", version=1, in_validation=True),
    Measure("mask_iou_novel", MaskIoU, "novel_masks", "novel_masks", unit="1", version=1),
    Measure("mask_iou_soft", SoftMaskIoU, "soft_input_mask", "input_mask", unit="1", version=1, in_validation=True),
    Measure("ssim", SSIM, "input_image", "input_image", unit="1", version=1),
    Measure("ssim_inside", SSIMInside, "input_image", "input_image", unit="1", version=1),
    Measure("ssim_plain", SSIM, "plain_image", "input_image", unit="1", version=1),
    Measure("ssim_inside_plain", SSIMInside, "plain_image", "input_image", unit="1", version=1),
    Measure("fid", FrechetDistance, "image_features", "image_features", unit="1", version=1),
    Measure("fid_plain", FrechetDistance, "plain_image_features", "image_features", unit="1", version=1),
    Measure("pck_flow", FlowTransfer, "flow", "keypoints", unit="1", version=1),
    Measure("pck_camera", CameraTransfer, "vertices", "keypoints", unit="1", version=1),
    # Of `pose_error` the papers report the median; here it is the mean over the samples, which are in samples.csv.
    Measure("pose_accuracy", PoseAccuracy, "input_camera", "input_camera", unit="%", version=1),
    Measure("pose_error", PoseError, "input_camera", "input_camera", unit="degrees", version=1),
    Measure("watertight", Watertight, "mesh", None, unit="1", version=1),
    Measure("manifold", Manifold, "mesh", None, unit="1", version=1),
    Measure("components", Components, "mesh", None, unit="count", version=1),
    Measure("self_intersections", SelfIntersections, "mesh", None, unit="count", version=1),
    Measure("degenerate_faces", DegenerateFaces, "mesh", None, unit="count", version=1),
)
