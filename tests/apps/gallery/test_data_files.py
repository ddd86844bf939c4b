from __future__ import annotations

import json
import subprocess
from shutil import which

import pytest

from recon3d.apps.gallery.data_files import packed, script, unpacked, write_script

HOSTILE = ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", 'a"b\\', "é 🐦", "${1}`", "&lt;"]


def test_text_survives_and_cannot_end_a_script():
    text = script("key", HOSTILE)
    assert text.isascii() and not set("<>&") & set(text) and text.count("\n") == 1
    assert json.loads(text[len("recon3dGallery.receive(") : -3].split(",", 1)[1]) == HOSTILE


def test_a_javascript_engine_reads_the_same():
    if which("node") is None:
        pytest.skip("needs node (package nodejs)")
    program = "let got; const recon3dGallery = {receive: (key, value) => { got = value; }};" + script("k", HOSTILE)
    out = subprocess.run(["node", "-e", program + "console.log(JSON.stringify(got))"], capture_output=True, check=True)
    assert json.loads(out.stdout) == HOSTILE


def test_what_is_not_finite_becomes_null():
    assert '"a":[null,null,1.5]' in script("k", {"a": (float("nan"), float("inf"), 1.5)})


def test_a_mesh_comes_back_and_is_the_same_twice(tmp_path):
    content = bytes(range(256)) * 9
    write_script(tmp_path / "deep" / "m.js", "set/0000/m", packed(content))
    assert unpacked((tmp_path / "deep" / "m.js").read_text()) == content
    assert packed(content) == packed(content)
    with pytest.raises(ValueError, match="script of a mesh"):
        unpacked("nothing")
