"""The hand-reviewed list of models in open_shapes: first stop of the build.

Every row of catalogue.csv was looked at once, as were its licence and author in the package. `reject` says why a model
is left out although its file is usable, `leave_out` names parts of one file that are not the object (a refuelling
probe, a light sprite), `yaw` corrects models whose front differs from the rest of their package.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import pandas as pd


@dataclass(frozen=True)
class Model:
    """One row of the catalogue.

    Attributes:
        instance_id: unique name, also the folder name in the set.
        original_file: path below the package's root (`packages.PACKAGES`); "archive:member" inside an archive.
        licence: SPDX identifier or its nearest equivalent.
        yaw: turn about +Y in degrees, after the package's own turn, that brings the front to -Z.
        leave_out: regular expression of further AC3D object names to leave out, or "".
        reject: why the model is not used, or "".
    """

    instance_id: str
    category: str
    name: str
    source_package: str
    original_file: str
    author: str
    licence: str
    yaw: float
    leave_out: str
    reject: str


def load_catalogue(category: str | None = None) -> list[Model]:
    """Models of the catalogue, ordered by category and instance id.

    Args:
        category: only this category; None for all.

    Raises:
        ValueError: unknown category.
    """
    with resources.files(__package__).joinpath("catalogue.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=dict.fromkeys(["name", "leave_out", "reject"], str), keep_default_na=False)
    table["yaw"] = pd.to_numeric(table["yaw"]).fillna(0.0)
    categories = sorted(set(table["category"]))
    if category is not None:
        if category not in categories:
            raise ValueError(f"expected a category out of {', '.join(categories)}; got {category!r}")
        table = table[table["category"] == category]
    table = table.sort_values(["category", "instance_id"])
    return [Model(**{str(key): value for key, value in row.items()}) for row in table.to_dict("records")]
