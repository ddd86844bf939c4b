"""A folder of meshes as a data module: rendered to the NMR layout on first use, then read like any other set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recon3d.data.base import DATA_VARIABLE, resolve_root
from recon3d.data.description import read_description
from recon3d.data.npz import DataFileError
from recon3d.data.rendering import render_dataset
from recon3d.data.shapenet import ShapeNetDataModule


class MeshFolderDataModule(ShapeNetDataModule):
    """Loaders of a folder of meshes, such as open_shapes, ShapeNetCore or one's own.

    All categories are rendered, whichever are in use, so that one rendered set serves every choice.

    Args:
        root: folder of the rendered set; None is ``<name>-nmr<views>`` below $RECON3D_DATA (else ``./datasets``).
        name: of the data set, in Records and tables.
        meshes: folder of the meshes, see `recon3d.data.meshes.find_meshes`; None is ``<name>`` below $RECON3D_DATA
            (else ``./datasets``). Not needed once the set is rendered.
        views: 24 or 120, see `recon3d.geometry.cameras.nmr_cameras`.
        image_size: pixels.
        workers: processes that render; None: the cores this process may use.
        kwargs: see `recon3d.data.shapenet.ShapeNetDataModule`.
    """

    def __init__(
        self,
        root: Path | None = None,
        name: str = "open_shapes",
        meshes: Path | None = None,
        views: int = 24,
        image_size: int = 64,
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=resolve_root(root, f"{name}-nmr{views}"), name=name, **kwargs)
        self.meshes = resolve_root(meshes, name)
        self.views = views
        self.image_size = image_size
        self.workers = workers

    def data_hash(self) -> str:
        """Hash of the meshes, their splits and the rendering, equal on every machine where pixels may not be."""
        description = read_description(self.root)
        return super().data_hash() if description is None else description.version

    def prepare_data(self) -> None:
        """Render the meshes, unless that is done.

        Raises:
            DataFileError: neither a rendered set nor meshes, or a rendered set of another size.
        """
        description = read_description(self.root)
        if description is None:
            if not self.meshes.is_dir():
                raise DataFileError(
                    f"Neither a rendered set in {self.root} nor meshes in {self.meshes}. {_how_to_get(self.name)} "
                    f"Or point {DATA_VARIABLE}, `root` or `meshes` to where they are."
                )
            render_dataset(
                self.meshes,
                self.root,
                views=self.views,
                image_size=self.image_size,
                workers=self.workers,
                name=self.name,
            )
        elif (description.n_views, description.image_size) != (self.views, self.image_size):
            raise DataFileError(
                f"{self.root} holds {description.n_views} views of {description.image_size} pixels, not {self.views} "
                f"of {self.image_size}. Change `views` and `image_size`, or give another `root`."
            )
        super().prepare_data()


def _how_to_get(name: str) -> str:
    if name == "open_shapes":
        return "Make the meshes with `recon3d data open-shapes`."
    return "Put them there as <category>/<id>/model.obj."
