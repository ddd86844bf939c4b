from __future__ import annotations

from recon3d.evaluation.convert import Conversion
from recon3d.evaluation.protocol import PROTOCOL
from recon3d.metrics.base import SampleMetric, SetMetric


def test_names_are_unique_and_every_representation_exists() -> None:
    names = [measure.name for measure in PROTOCOL]
    assert len(set(names)) == len(names)
    for measure in PROTOCOL:
        assert issubclass(measure.metric, SampleMetric | SetMetric)
        assert hasattr(Conversion, measure.pred)
        assert measure.version >= 1


def test_directions_are_those_of_the_field() -> None:
    lower = {measure.name for measure in PROTOCOL if not measure.higher_is_better}
    distances, counts = {"chamfer", "chamfer_best", "chamfer_diagonal"}, {"self_intersections", "degenerate_faces"}
    assert lower == distances | counts | {"components", "pose_error", "fid", "fid_plain"}


def test_the_best_of_views_is_measured_as_the_mean_over_them_and_in_its_unit() -> None:
    measures = {measure.name: measure for measure in PROTOCOL}
    mean, best = measures["chamfer"], measures["chamfer_best"]
    assert (best.metric, best.pred, best.target, best.unit) == (mean.metric, mean.pred, mean.target, mean.unit)
    assert [measure.name for measure in PROTOCOL if measure.best_of_views] == ["chamfer_best"]
