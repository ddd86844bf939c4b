"""Small files in the packages' own layouts, made on the spot: no mesh is stored in the repository."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from recon3d.data.open_shapes.catalogue import Model

FURNITURE = "usr/share/sweethome3d/furniture"
CARS = "usr/share/games/torcs/cars"
AIRCRAFT = "usr/share/games/flightgear/AI/Aircraft"


def obj_text(mesh):
    lines = [f"v {x} {y} {z}" for x, y, z in mesh.vertices] + [
        f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in mesh.faces + 1
    ]
    return "# made by a test\n" + "\n".join(lines) + "\n"


def ac3d_object(name, verts, surfaces, kids="", kid_count=0, transform="", shape="0x10"):
    lines = ["OBJECT poly", f'name "{name}"', "data 5", "a", "bcd", transform, f"numvert {len(verts)}"]
    lines += [" ".join(map(str, vert)) for vert in verts]
    lines.append(f"numsurf {len(surfaces)}")
    for surface in surfaces:
        lines += [f"SURF {shape}", "mat 0", f"refs {len(surface)}", *(f"{index} 0 0" for index in surface)]
    return "\n".join(line for line in [*lines, f"kids {kid_count}", kids] if line) + "\n"


def ac3d_text(*objects):
    material = 'MATERIAL "" rgb 1 1 1 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 10 trans 0'
    return f"AC3Db\n{material}\nOBJECT world\nkids {len(objects)}\n" + "".join(objects)


def ac3d_mesh(name, mesh):
    return ac3d_object(name, mesh.vertices.tolist(), mesh.faces.tolist())


def car_setup(ride_height=100):
    wheel = (
        '<section name="{0} {1} Wheel">\n<attnum name="ypos" unit="m" val="{2}"/>\n'
        '<attnum name="rim diameter" unit="in" val="18"/>\n<attnum name="tire width" unit="mm" min="1" val="200"/>\n'
        '<attnum name="tire height-width ratio" val="0.5"/>\n'
        '<attnum val="{3}" unit="mm" name="ride height"/>\n</section>\n'
    )
    axle = '<section name="{0} Axle">\n<attnum name="xpos" min="-9" max="9" val="{1}"/>\n</section>\n'
    parts = [axle.format("Front", 1.5), axle.format("Rear", -1.25)]
    parts += [
        wheel.format(a, s, y, ride_height) for a in ("Front", "Rear") for s, y in (("Right", -0.75), ("Left", 0.75))
    ]
    return '<!DOCTYPE params SYSTEM "params.dtd" [<!ENTITY all SYSTEM "all.xml">]>\n<params>&all;\n' + "".join(parts)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def packages(tmp_path):
    """Unpacked packages with two pieces of furniture, their twins, one car and two aircraft."""
    root = tmp_path / "packages"
    folders = {name: root / name for name in ("sweethome3d-furniture", "torcs-data", "flightgear-data-ai")}
    archive = folders["sweethome3d-furniture"] / FURNITURE / "BlendSwap-CC-0.sh3f"
    archive.parent.mkdir(parents=True)
    stool = trimesh.creation.cone(0.2, 0.6, sections=24)  # points to +Z: the catalogue's rotation sets it upright
    chair = trimesh.util.concatenate([trimesh.creation.box((0.5, 0.1, 0.5)), trimesh.creation.box((0.1, 0.9, 0.5))])
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "PluginFurnitureCatalog.properties",
            "id=tests\nname#1=Stool\nmodel#1=/free/stool/stool.obj\nmodelRotation#1=1 0 0 0 0 1 0 -1 0\n"
            "name#2=Chair\nmodel#2=/free/chair/chair.obj\nwidth#2=50\n"
            "name#3=Stool again\nmodel#3=/free/stool/stool.obj\n",
        )
        file.writestr("free/stool/stool.obj", obj_text(stool))
        file.writestr("free/chair/chair.obj", obj_text(chair))
        file.writestr("free/twin/twin.obj", obj_text(chair.subdivide()))  # another triangulation of the same chair
        file.writestr("free/bad/bad.obj", "v 0 0 0\nf 1 2 3\n")
    write(
        folders["torcs-data"] / CARS / "one/one.acc", ac3d_text(ac3d_mesh("body", trimesh.creation.box((4, 0.8, 1.6))))
    )
    write(folders["torcs-data"] / CARS / "one/one.xml", car_setup())
    hull = ac3d_mesh("fuselage", trimesh.creation.box((8, 1, 1)))
    disc = ac3d_mesh("PropDisc", trimesh.creation.box((0.1, 9, 9)))
    write(folders["flightgear-data-ai"] / AIRCRAFT / "x/x.ac", ac3d_text(hull, disc))
    return folders


@pytest.fixture
def models():
    """Catalogue rows for the files of `packages`."""
    furniture = "BlendSwap-CC-0.sh3f:free/{0}/{0}.obj"
    rows = [
        ("a-x", "airplane", "flightgear-data-ai", "AI/Aircraft/x/x.ac", ""),
        ("t-one", "car", "torcs-data", "cars/one/one.acc", ""),
        ("b-bad", "chair", "sweethome3d-furniture", furniture.format("bad"), ""),
        ("b-chair", "chair", "sweethome3d-furniture", furniture.format("chair"), ""),
        ("b-gone", "chair", "sweethome3d-furniture", furniture.format("gone"), ""),
        ("b-ugly", "chair", "sweethome3d-furniture", furniture.format("chair"), "not a chair"),
        ("b-stool", "chair", "sweethome3d-furniture", furniture.format("stool"), ""),
        ("b-twin", "chair", "sweethome3d-furniture", furniture.format("twin"), ""),
    ]
    return [
        Model(key, cat, key, package, path, "tests", "CC0-1.0", 0.0, "", why) for key, cat, package, path, why in rows
    ]


@pytest.fixture
def extent():
    return lambda mesh: np.ptp(mesh.verts, axis=0)
