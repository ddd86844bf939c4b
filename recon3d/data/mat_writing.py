"""MATLAB files of structs, written such that the same content is the same bytes: the counterpart of `mat_structs`.

Under the writers of synthetic photographs in the layouts of CUB, Pascal3D+ and CMR.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from recon3d.files import write_whole

_HEADER = b"MATLAB 5.0 MAT-file, recon3d".ljust(116)  # SciPy writes the time there


def struct_array(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """MATLAB's 1xN array of structs with the fields of the first record; values may be structs (dicts) themselves.

    Raises:
        ValueError: no records, or records of different fields.
    """
    if len({tuple(record) for record in records}) != 1:
        raise ValueError(
            f"struct_array: expected records of one set of fields, got {len(records)} that differ or none."
        )
    array = np.empty((1, len(records)), dtype=[(name, object) for name in records[0]])
    for k, record in enumerate(records):
        for name, value in record.items():
            array[0, k][name] = value
    return array


def write_mat(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes variables to a compressed .mat file (version 5), folders included; appears whole or not at all."""
    stream = io.BytesIO()
    scipy.io.savemat(stream, dict(variables), do_compression=True, oned_as="row")  # type: ignore[arg-type]
    content = stream.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _HEADER + content[len(_HEADER) :])
