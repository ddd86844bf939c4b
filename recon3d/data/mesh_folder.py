"""A folder of meshes as a data module: rendered to a layout on first use, then read like any other set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from recon3d.data.base import DATA_VARIABLE, resolve_root
from recon3d.data.description import read_description
from recon3d.data.multiview import MultiViewDataModule
from recon3d.data.npz import DataFileError
from recon3d.data.object_views import Layout
from recon3d.data.rendering import render_dataset
from recon3d.data.shapenet import ShapeNetDataModule
from recon3d.data.shapenet_points import ShapeNetPointsDataModule


class _MeshFolder(MultiViewDataModule):
    """Renders the set on first use; in front of the module that reads its layout."""

    layout: ClassVar[Layout]

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
        meshes_name = name.removesuffix("_points")
        folder = f"{meshes_name}-{self.layout}{views}" + (f"-{image_size}" if self.layout == "dpc" else "")
        super().__init__(root=resolve_root(root, folder), name=name, **kwargs)
        self.meshes = resolve_root(meshes, meshes_name)
        self.views = views
        self.render_size = image_size
        self.workers = workers

    def data_hash(self) -> str:
        """Hash of the meshes, their splits and the rendering, equal on every machine where pixels may not be."""
        description = read_description(self.root)
        if description is not None:
            return description.version
        return super().data_hash()  # type: ignore[safe-super]  # of the layout's module, which comes next

    def prepare_data(self) -> None:
        """Render the meshes, unless that is done.

        Raises:
            DataFileError: neither a rendered set nor meshes, or a rendered set of another size.
        """
        description = read_description(self.root)
        if description is None:
            if not self.meshes.is_dir():
                raise DataFileError(
                    f"Neither a rendered set in {self.root} nor meshes in {self.meshes}. "
                    f"{_how_to_get(self.meshes.name)} Or point {DATA_VARIABLE}, `root` or `meshes` to where they are."
                )
            render_dataset(
                self.meshes,
                self.root,
                layout=self.layout,
                views=self.views,
                image_size=self.render_size,
                workers=self.workers,
                name=self.name,
            )
        elif (description.n_views, description.image_size) != (self.views, self.render_size):
            raise DataFileError(
                f"{self.root} holds {description.n_views} views of {description.image_size} pixels, not {self.views} "
                f"of {self.render_size}. Change `views` and `image_size`, or give another `root`."
            )
        super().prepare_data()


class MeshFolderDataModule(_MeshFolder, ShapeNetDataModule):
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

    layout: ClassVar[Layout] = "nmr"


class MeshFolderPointsDataModule(_MeshFolder, ShapeNetPointsDataModule):
    """The same in the DPC layout: views in random directions, the diagonal is 1.

    Args:
        root: folder of the rendered set; None is ``<meshes>-dpc<views>-<image_size>``, below $RECON3D_DATA (else
            ``./datasets``), with ``<meshes>`` the name without ``_points``.
        name: of the data set, in Records and tables.
        meshes: as in `MeshFolderDataModule`; None is the name without ``_points``, below the same folder.
        views: of each object.
        image_size: pixels of the views as they are rendered.
        workers: processes that render; None: the cores this process may use.
        kwargs: see `recon3d.data.shapenet_points.ShapeNetPointsDataModule`.
    """

    layout: ClassVar[Layout] = "dpc"

    def __init__(
        self,
        root: Path | None = None,
        name: str = "open_shapes_points",
        meshes: Path | None = None,
        views: int = 5,
        image_size: int = 64,
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, meshes, views, image_size, workers, **kwargs)


def _how_to_get(name: str) -> str:
    if name == "open_shapes":
        return "Make the meshes with `recon3d data open-shapes`."
    return "Put them there as <category>/<id>/model.obj."
