import re
from collections import Counter

import pytest

from recon3d.data.open_shapes.catalogue import load_catalogue
from recon3d.data.open_shapes.packages import PACKAGES

LICENCES = {
    "CC0-1.0",
    "CC-BY-3.0",
    "CC-BY-3.0-US",
    "GPL-2.0-or-later",
    "Free-Art-License",
    "BSD-3-Clause (SAVAGE) / GPL-2.0-or-later",
}


def test_every_model_can_be_found_and_credited():
    models = load_catalogue()
    assert len({model.instance_id for model in models}) == len(models) == 470
    assert len({(model.source_package, model.original_file) for model in models}) == len(models)
    for model in models:
        assert model.source_package in PACKAGES
        assert model.licence in LICENCES and model.author and "\ufffd" not in model.author
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", model.instance_id), model.instance_id  # a folder name anywhere
        re.compile(model.leave_out)
    assert [(m.category, m.instance_id) for m in models] == sorted((m.category, m.instance_id) for m in models)


def test_categories():
    counts = Counter(model.category for model in load_catalogue())
    assert counts == {
        "airplane": 141, "bench": 7, "cabinet": 56, "car": 32, "chair": 72, "display": 10,
        "lamp": 39, "sofa": 25, "table": 55, "vessel": 33,
    }  # fmt: skip
    assert load_catalogue("lamp") == [model for model in load_catalogue() if model.category == "lamp"]
    with pytest.raises(ValueError, match=r"airplane, bench.*got 'rifle'"):
        load_catalogue("rifle")
