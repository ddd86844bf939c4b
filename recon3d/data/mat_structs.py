"""Structs of MATLAB files, read with checks: the one place that meets what `scipy.io.loadmat` makes of them.

Under the readers of annotated photographs. A struct comes as a `mat_struct`, an empty field as an empty array, an array
of one element as that element; nothing that is read is executed or opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError, mat_struct

from recon3d.data.npz import DataFileError


def load_variable(path: Path, name: str, advice: str) -> Any:
    """One variable of a .mat file.

    Args:
        path: the file.
        name: of the variable.
        advice: what to do where the file is missing or damaged; ends the message.

    Raises:
        DataFileError: no such file, not readable, or without the variable.
    """
    if not path.is_file():
        raise DataFileError(f"{path}: no such file. {advice}")
    try:
        content = scipy.io.loadmat(path, variable_names=[name], struct_as_record=False, squeeze_me=True)
    # loadmat reports a damaged file as whatever it stumbled on.
    except (MatReadError, ValueError, TypeError, OSError, EOFError, KeyError, NotImplementedError) as error:
        raise DataFileError(f"{path}: not readable as a .mat file ({error}). {advice}") from error
    if name not in content:
        raise DataFileError(f"{path}: expected a variable {name!r}, the file has none. {advice}")
    return content[name]


def field_names(struct: Any) -> list[str]:
    """Names of the fields of a struct; none for anything else, such as the empty array of an absent one."""
    return list(getattr(struct, "_fieldnames", ())) if isinstance(struct, mat_struct) else []


def field(struct: Any, name: str, where: object) -> Any:
    """A field of a struct; `where` opens the message of the DataFileError where there is none."""
    if name not in (names := field_names(struct)):
        raise DataFileError(f"{where}: expected a struct with a field {name!r}, the fields are {names}.")
    return getattr(struct, name)


def numbers(struct: Any, name: str, where: object) -> np.ndarray:
    """A field as a vector of float64, empty where it is; DataFileError if it holds no numbers."""
    value = np.asarray(field(struct, name, where))
    if value.dtype.kind not in "fiub":
        raise DataFileError(f"{where}: expected numbers in {name}, got {value.dtype}.")
    return value.astype(np.float64).reshape(-1)


def number(struct: Any, name: str, where: object, default: float) -> float:
    """A field that is one number, `default` where it is absent or empty."""
    if name not in field_names(struct) or not len(value := numbers(struct, name, where)):
        return default
    if len(value) > 1:
        raise DataFileError(f"{where}: expected one number in {name}, got {value.tolist()}.")
    return float(value[0])
