"""Fields of MATLAB's structs, from files written by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from recon3d.data.mat_structs import field, field_names, load_variable, number, numbers
from recon3d.data.npz import DataFileError


@pytest.fixture
def struct(tmp_path):
    path = tmp_path / "a.mat"
    content = {"name": "x", "one": 3, "row": np.array([1, 2], np.uint8), "none": np.zeros((0, 0)), "inner": {"b": 1}}
    scipy.io.savemat(path, {"record": content})
    return load_variable(path, "record", "Fetch it.")


def test_fields(struct):
    assert field_names(struct) == ["name", "one", "row", "none", "inner"]
    assert field(struct, "name", "a") == "x" and field(field(struct, "inner", "a"), "b", "a") == 1
    assert numbers(struct, "row", "a").tolist() == [1.0, 2.0] and numbers(struct, "row", "a").dtype == np.float64
    assert numbers(struct, "one", "a").tolist() == [3.0] and numbers(struct, "none", "a").tolist() == []
    assert number(struct, "one", "a", 7.0) == 3.0
    assert number(struct, "none", "a", 7.0) == 7.0 and number(struct, "absent", "a", 7.0) == 7.0


def test_what_is_no_struct_has_no_fields():
    assert field_names(np.zeros((0, 0))) == [] and number(np.zeros((0, 0)), "x", "a", 2.0) == 2.0


def test_errors_say_where(struct, tmp_path):
    with pytest.raises(
        DataFileError, match=r"a.mat, 3: expected a struct with a field 'other', the fields are \['name'"
    ):
        field(struct, "other", "a.mat, 3")
    with pytest.raises(DataFileError, match="here: expected numbers in name, got"):
        numbers(struct, "name", "here")
    with pytest.raises(DataFileError, match=r"here: expected one number in row, got \[1.0, 2.0\]"):
        number(struct, "row", "here", 0.0)
    with pytest.raises(DataFileError, match=r"b.mat: no such file. Fetch it."):
        load_variable(tmp_path / "b.mat", "record", "Fetch it.")
    with pytest.raises(DataFileError, match=r"expected a variable 'other', the file has none. Fetch it."):
        load_variable(tmp_path / "a.mat", "other", "Fetch it.")
    (tmp_path / "b.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(DataFileError, match=r"b.mat: not readable as a .mat file \(.*\). Fetch it."):
        load_variable(tmp_path / "b.mat", "record", "Fetch it.")
