import time

import numpy as np
import pytest
import scipy.io

from recon3d.data.mat_writing import struct_array, write_mat

RECORDS = [
    {"rel_path": "a/b.jpg", "bbox": {"x1": 1.0, "y1": 2.0}, "mask": np.eye(3, dtype=np.uint8), "rot": np.eye(3)},
    {"rel_path": "c.jpg", "bbox": {"x1": 5.0, "y1": 6.0}, "mask": np.ones((2, 4), np.uint8), "rot": 2 * np.eye(3)},
]


def test_scipy_reads_structs_and_arrays_back(tmp_path):
    path = tmp_path / "new/folder/a.mat"
    write_mat(path, {"images": struct_array(RECORDS), "S": np.arange(6.0).reshape(3, 2)})
    assert [file.name for file in path.parent.iterdir()] == ["a.mat"]
    found = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
    for struct, record in zip(found["images"], RECORDS, strict=True):
        assert struct.rel_path == record["rel_path"]
        assert (struct.bbox.x1, struct.bbox.y1) == tuple(record["bbox"].values())
        assert struct.mask.dtype == np.uint8 and np.array_equal(struct.mask, record["mask"])
        assert np.array_equal(struct.rot, record["rot"])
    assert np.array_equal(found["S"], np.arange(6.0).reshape(3, 2))


def test_the_same_content_is_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    write_mat(tmp_path / "a.mat", {"images": struct_array(RECORDS)})
    monkeypatch.setattr(time, "asctime", lambda *_: "Fri Jan  1 00:00:00 1999")
    write_mat(tmp_path / "b.mat", {"images": struct_array(RECORDS)})
    assert (tmp_path / "a.mat").read_bytes() == (tmp_path / "b.mat").read_bytes()


def test_records_of_different_fields_are_refused():
    for records in ([], [{"a": 1}, {"b": 1}]):
        with pytest.raises(ValueError, match="one set of fields"):
            struct_array(records)
