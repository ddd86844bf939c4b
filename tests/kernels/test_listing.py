import inspect

import recon3d.kernels
from recon3d.kernels.listing import backends


def test_every_public_operation_is_listed_with_a_reference_on_each_device():
    table = backends()
    public = {name for name, value in vars(recon3d.kernels).items() if inspect.isfunction(value)}
    assert set(table) == public
    for operation, devices in table.items():
        assert set(devices) == {"cpu", "cuda"}
        assert all("reference" in names for names in devices.values()), operation


def test_the_first_name_is_the_default_of_the_device():
    table = backends()
    assert all(devices["cpu"][0] == "numba" and "numba" not in devices["cuda"] for devices in table.values())
    assert table["soft_silhouette"] == {"cpu": ["numba", "pytorch3d", "reference"], "cuda": ["pytorch3d", "reference"]}
