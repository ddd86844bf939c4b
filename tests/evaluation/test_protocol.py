from __future__ import annotations

from recon3d.evaluation.convert import Conversion
from recon3d.evaluation.protocol import PROTOCOL
from recon3d.metrics.base import SampleMetric


def test_names_are_unique_and_every_representation_exists() -> None:
    names = [measure.name for measure in PROTOCOL]
    assert len(set(names)) == len(names)
    for measure in PROTOCOL:
        assert issubclass(measure.metric, SampleMetric)
        assert hasattr(Conversion, measure.pred)
        assert measure.version >= 1


def test_directions_are_those_of_the_field() -> None:
    lower = {measure.name for measure in PROTOCOL if not measure.higher_is_better}
    assert lower == {"chamfer", "components", "self_intersections", "degenerate_faces"}
