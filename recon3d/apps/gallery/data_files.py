"""Files of the page's data, in a form that a browser loads from a folder as well as from a server.

Browsers refuse `fetch` on file://, so data are scripts: ``recon3dGallery.receive(key, value)``. JSON is written so that
no text in it can end the script or mean anything else than text; meshes are GLB, gzip, base64.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def script(key: str, value: Any) -> str:
    """A script that hands `value` to the page as `key`.

    ``<``, ``>``, ``&`` and all that is not ASCII are written as escapes; numbers that are not finite become null.
    """
    text = json.dumps(_finite(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"recon3dGallery.receive({json.dumps(key)},{text});\n"


def write_script(path: Path, key: str, value: Any) -> None:
    """Write `script` to a file in a folder that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(key, value), encoding="ascii")


def packed(glb: bytes) -> str:
    """A GLB as text: gzip, then base64. The same bytes give the same text."""
    return base64.b64encode(gzip.compress(glb, compresslevel=9, mtime=0)).decode("ascii")


def unpacked(script_text: str) -> bytes:
    """The GLB in a script written by `write_script` from `packed`.

    Raises:
        ValueError: the text is none.
    """
    try:
        _, value = json.loads(f"[{script_text.removeprefix('recon3dGallery.receive(').strip().removesuffix(');')}]")
        return gzip.decompress(base64.b64decode(value, validate=True))
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"expected a script of a mesh, got {script_text[:60]!r}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
