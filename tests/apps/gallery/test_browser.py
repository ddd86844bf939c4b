"""The page in a real browser, from file://: Debian's Chromium with WebGL in software, driven by playwright."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from recon3d.apps.gallery import building
from recon3d.bench.runner import Cell, run
from tests.apps.gallery.conftest import METHODS, Board, value

pytestmark = pytest.mark.slow

HOSTILE = ("a<script>window.hacked=1</script>&\"'%2F", "<img/src=x/onerror=window.hacked=1>")
QUIET = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 120.0  # seconds: WebGL in software on a busy core


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "needs Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as opened:
        yield opened


def launch(driver: Playwright, *arguments: str) -> Browser:
    return driver.chromium.launch(executable_path=chromium(), args=[*QUIET, *arguments])


@pytest.fixture(scope="module")
def chrome(driver) -> Iterator[Browser]:
    opened = launch(driver, *SOFTWARE)
    yield opened
    opened.close()


class Tab:
    """A page, and all that went wrong in it or left for the network."""

    def __init__(self, browser: Browser, width: int = 1200, height: int = 900) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": height})
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url[:200]}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def go(self, folder: Path, address: str = "#/") -> None:
        self.page.goto(f"{(folder / 'index.html').as_uri()}{address}")
        self.page.wait_for_selector("h1")

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait without rAF and eval, which a busy page is slow with and its policy forbids."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"waited {PATIENCE:g} s for {what}; the page said {self.wrong}"
            time.sleep(0.1)

    def loaded(self, *models: str) -> None:
        for name in models:
            stage = self.page.locator(f"figure[data-model='{name}'] .stage")
            stage.scroll_into_view_if_needed()
            self.until(lambda stage=stage: "ready" in (stage.get_attribute("class") or ""), f"the mesh of {name}")

    def orbit(self, name: str) -> tuple[float, float]:
        found = self.page.evaluate(
            "name => { const {theta, phi} = document.querySelector(`[data-model='${name}'] model-viewer`)"
            ".getCameraOrbit(); return [theta, phi]; }",
            name,
        )
        return found[0], found[1]

    def pixels(self, name: str) -> np.ndarray:
        shot = self.page.locator(f"figure[data-model='{name}'] .stage").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def drag(self, name: str, by: int) -> None:
        box = self.page.locator(f"figure[data-model='{name}'] model-viewer").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + by, y, steps=6)
        self.page.mouse.up()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def clean(self) -> None:
        assert self.wrong == []
        assert {url.split(":")[0] for url in self.requests} <= {"file", "blob", "data"}


@pytest.fixture
def tab(chrome) -> Iterator[Tab]:
    opened = Tab(chrome)
    yield opened
    opened.page.close()


def sample_ids(tab: Tab) -> list[str]:
    return [str(card.get_attribute("data-id")) for card in tab.page.locator(".grid a").all()]


def test_every_page_loads_without_errors_or_network(tab, page):
    tab.go(page)
    assert tab.texts(".set h2") == ["tiny tiny"]
    tab.page.locator(".set").click()
    tab.page.wait_for_selector(".grid a")
    assert len(sample_ids(tab)) == 4
    tab.page.locator(".grid a").first.click()
    tab.page.wait_for_selector(".tiles")
    tab.loaded("ground-truth-points", "ground-truth-voxels", *METHODS)
    natural = tab.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert natural and tab.page.title().startswith(tab.texts("h1")[0])
    tab.clean()


@pytest.mark.parametrize("column", ["voxel_iou", "chamfer", "parameters", "method"])
def test_tables_sort_both_ways_and_say_so(tab, page, column):
    tab.go(page, "#/tiny-tiny")
    heads = tab.page.locator(".scroll").first.locator("thead th")
    names = [text.split(" ")[0].split("\n")[0] for text in heads.all_inner_texts()]
    index = names.index(column)

    def values() -> list[str]:
        rows = tab.page.locator(".scroll").first.locator("tbody tr").all()
        return [row.locator("th, td").nth(index).inner_text() for row in rows]

    seen = []
    for _ in range(2):
        heads.nth(index).locator("button").click()
        direction = heads.nth(index).get_attribute("aria-sort")
        shown = values()
        keys = shown if column == "method" else [float(text.split(" ")[0]) for text in shown if text[0].isdigit()]
        assert keys == sorted(keys, reverse=direction == "descending") and len(shown) == len(METHODS)
        assert all(not text[0].isdigit() for text in shown[len(keys) :])  # missing values last
        seen.append(direction)
    assert sorted(seen) == ["ascending", "descending"]
    others = [head.get_attribute("aria-sort") for place, head in enumerate(heads.all()) if place != index]
    assert set(others) == {"none"}
    shown = values()
    heads.nth(names.index("seeds")).locator("button").click()  # one everywhere: a stable sort changes nothing
    assert values() == shown
    tab.clean()


def test_samples_are_filtered_searched_and_ordered(tab, page):
    tab.go(page, "#/tiny-tiny")
    everything = sample_ids(tab)
    tab.page.get_by_label("Category").select_option("lamp")
    assert sample_ids(tab) == [name for name in everything if name.startswith("lamp")] != []
    assert "2 of 4" in tab.texts(".count")[0]
    tab.page.get_by_label("Category").select_option("")
    tab.page.get_by_label("Search").fill("LAMP/B")
    assert sample_ids(tab) == [name for name in everything if "lamp/b" in name] and len(sample_ids(tab)) == 1
    tab.page.get_by_label("Search").fill("")
    tab.page.get_by_label("of method").select_option("template")

    def scores() -> list[float]:
        return [float(text) for text in tab.texts(".scores .chosen .value")]

    for measure, higher in (("voxel_iou", True), ("chamfer", False)):
        tab.page.get_by_label("by measure").select_option(measure)
        tab.page.get_by_label("Order").select_option("worst")
        worst = scores()
        assert worst == sorted(worst, reverse=not higher) and len(set(worst)) > 1
        tab.page.get_by_label("Order").select_option("best")
        assert scores() == sorted(worst, reverse=higher)
        tab.page.get_by_label("Order").select_option("median")
        assert scores()[0] == sorted(worst)[2 if not higher else 1] or len(set(worst)) < 4
    tab.page.locator(".grid a").first.click()
    tab.page.wait_for_selector(".tiles")
    tab.page.go_back()
    tab.page.wait_for_selector(".grid a")
    assert tab.page.get_by_label("Order").input_value() == "median"  # filters are kept
    tab.clean()


def test_a_model_turns_by_the_mouse_and_its_neighbours_with_it(tab, page):
    tab.go(page, "#/tiny-tiny/car/a/v00")
    tab.loaded("softras", "ground-truth-voxels")
    for name in ("softras", "ground-truth-voxels"):
        assert tab.pixels(name).std() > 5  # a mesh is to be seen
    before = {name: (tab.orbit(name), tab.pixels(name)) for name in ("softras", "ground-truth-voxels")}
    tab.drag("softras", 70)
    tab.until(lambda: abs(tab.orbit("softras")[0] - before["softras"][0][0]) > 0.2, "the model to turn")
    tab.until(
        lambda: tab.orbit("ground-truth-voxels") == pytest.approx(tab.orbit("softras"), abs=0.02), "the neighbour"
    )
    time.sleep(1.0)  # the last frames
    for name, (_, pixels) in before.items():
        assert (np.abs(tab.pixels(name) - pixels).max(axis=2) > 20).mean() > 0.01
    # Not together: the neighbour stays.
    tab.page.get_by_label("turn together").uncheck()
    stays = tab.orbit("ground-truth-voxels")
    turned = tab.orbit("softras")[0]
    tab.drag("softras", 60)
    tab.until(lambda: abs(tab.orbit("softras")[0] - turned) > 0.2, "the model to turn")
    assert tab.orbit("ground-truth-voxels") == stays
    # Back to the input view, and by the keyboard.
    tab.page.get_by_role("button", name="Input view").click()
    tab.until(lambda: tab.orbit("softras") == pytest.approx(before["softras"][0], abs=0.02), "the input view")
    for _ in range(20):  # the button has the focus
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.closest('figure')?.dataset.model") == "softras":
            break
    assert tab.page.evaluate("document.activeElement.localName") == "model-viewer"
    tab.page.keyboard.press("ArrowRight")
    tab.until(lambda: abs(tab.orbit("softras")[0] - before["softras"][0][0]) > 0.05, "the model to turn by a key")
    assert "/car/a/v00" in tab.page.url  # the key was the viewer's
    tab.clean()


def test_the_viewer_shows_the_input_view(tab, page):
    """The silhouette of the ground truth in the viewer is the mask, up to the resolution of both."""
    tab.go(page, "#/tiny-tiny/car/a/v00")
    tab.loaded("ground-truth-voxels")
    time.sleep(1.0)
    shot = tab.pixels("ground-truth-voxels")
    seen = np.abs(shot - shot[2, 2]).max(axis=2) > 25
    samples = value(page / "data/tiny-tiny/set.js")["samples"]
    (folder,) = (sample["folder"] for sample in samples if sample["id"] == "car/a/v00")
    mask = Image.open(page / "data/tiny-tiny" / folder / "mask.png")
    true = np.asarray(mask.resize(seen.shape[::-1])) > 127
    assert (seen & true).sum() / (seen | true).sum() > 0.8


def test_keys_alone_lead_through_the_page(tab, page):
    tab.go(page)
    keys = tab.page.keyboard

    def focused() -> str:
        return str(tab.page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))

    for _ in range(3):
        keys.press("Tab")
        if "card set" in focused():
            break
    assert "card set" in focused()
    keys.press("Enter")
    tab.page.wait_for_selector(".grid a")
    names = sample_ids(tab)
    keys.press("/")
    assert 'id="search"' in focused()
    keys.type(names[1])
    assert sample_ids(tab) == [names[1]]
    keys.press("Escape")  # empties the search
    tab.until(lambda: sample_ids(tab) == names, "the search to be empty")
    tab.page.locator(".grid a").nth(1).focus()
    keys.press("Enter")
    for step, name in (("", names[1]), ("ArrowRight", names[2]), ("ArrowLeft", names[1]), ("ArrowLeft", names[0])):
        if step:
            keys.press(step)
        tab.until(lambda name=name: tab.texts("h1") == [name], f"the sample {name}")
    keys.press("ArrowLeft")  # there is none before
    keys.press("Escape")
    tab.page.wait_for_selector(".grid a")
    assert tab.page.evaluate("document.activeElement.dataset.id") == names[0]
    keys.press("Escape")
    tab.page.wait_for_selector(".sets")
    tab.clean()


@pytest.mark.parametrize("address", ["#/", "#/tiny-tiny", "#/tiny-tiny/car/a/v00", "#/tiny-tiny/none"])
def test_nothing_is_wider_than_a_phone(chrome, page, address):
    tab = Tab(chrome, width=360, height=740)
    tab.go(page, address)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = tab.page.evaluate(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll') &&"
        " e.getBoundingClientRect().right > 360.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    tab.clean()
    tab.page.close()


def test_an_address_that_leads_nowhere_says_so(tab, page):
    for address in ("#/nothing", "#/tiny-tiny/nobody", "#/%"):
        tab.go(page, address)
        tab.until(lambda: tab.texts("h1") == ["Not found"], f"the answer to {address}")
    tab.clean()


def test_the_downloaded_file_is_the_mesh(tab, page):
    tab.go(page, "#/tiny-tiny/car/a/v00")
    with tab.page.expect_download() as download:
        tab.page.locator("figure[data-model='softras'] button.link").click()
    assert download.value.suggested_filename == "car_a_v00-softras.glb"
    assert Path(download.value.path()).read_bytes()[:4] == b"glTF"


def test_without_webgl_there_are_previews_and_a_word(driver, page):
    opened = launch(driver, "--disable-3d-apis")
    tab = Tab(opened)
    tab.go(page, "#/tiny-tiny/car/a/v00")
    assert "no WebGL 2" in tab.texts(".notice")[0]
    assert tab.page.locator("model-viewer").count() == 0
    posters = tab.page.locator(".tile:not(.picture) .poster")
    assert posters.count() == 2 + len(METHODS)
    assert tab.pixels("ground-truth-voxels").std() > 5
    tab.clean()
    opened.close()


def test_a_failure_is_shown_in_its_place(tab, board, build, tmp_path, monkeypatch):
    real = building.predicted_model

    def fail(title, method, batch):
        if title == "softras":
            raise RuntimeError("out of <b>luck</b>")
        return real(title, method, batch)

    monkeypatch.setattr(building, "predicted_model", fail)
    assert build(tmp_path / "gallery", board, n_samples=1) == 0
    tab.go(tmp_path / "gallery", "#/tiny-tiny")
    tab.page.locator(".grid a").first.click()
    tab.page.wait_for_selector(".tiles")
    assert tab.texts("figure[data-model='softras'] .failure") == ["No mesh: RuntimeError: out of <b>luck</b>."]
    tab.loaded("mean_shape")
    tab.clean()


def test_a_file_that_is_missing_is_said_in_its_place(tab, page, tmp_path):
    shutil.copytree(page, tmp_path / "gallery")
    for path in (tmp_path / "gallery").glob("data/*/*/softras.js"):
        path.unlink()
    tab.go(tmp_path / "gallery", "#/tiny-tiny/car/a/v00")
    failure = tab.page.locator("figure[data-model='softras'] .failure")
    tab.until(lambda: failure.count() == 1, "the failure")
    assert "softras.js is missing" in failure.inner_text()
    tab.loaded("mean_shape")


def test_it_is_served_as_well(tab, page):
    """From a web server, as on GitHub Pages: nothing is asked for elsewhere."""

    class Silent(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(page))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        home = f"http://127.0.0.1:{server.server_port}/"
        tab.page.goto(f"{home}#/tiny-tiny/car/a/v00")
        tab.loaded("softras")
        assert tab.wrong == []
        assert all(url.startswith((home, f"blob:{home}", "data:")) for url in tab.requests)
    finally:
        server.shutdown()
        server.server_close()


def test_hostile_names_do_not_run(tab, nmr_root, tiny_configs, build, tmp_path):
    root = tmp_path / "nmr"
    shutil.copytree(nmr_root, root)
    for path in root.glob("*_test_ids.txt"):
        path.write_text("".join(f"{name}\n" for name in HOSTILE))
    board = Board(tiny_configs, tmp_path / "leaderboard", tmp_path / "runs")
    cell = Cell(
        method="template",
        data="tiny",
        preset="tiny",
        configs=tiny_configs,
        results=board.leaderboard / "results",
        runs=board.runs,
        overrides=("--data.init_args.root", str(root)),
    )
    assert run(cell).error is None
    assert build(tmp_path / "gallery", board) == 0
    tab.go(tmp_path / "gallery", "#/tiny-tiny")
    names = sample_ids(tab)
    assert sorted(names) == sorted(f"{category}/{name}/v00" for category in ("car", "lamp") for name in HOSTILE)
    for name in names:
        tab.page.locator(".grid a").nth(names.index(name)).click()
        tab.page.wait_for_selector(".tiles")
        assert tab.texts("h1") == [name]
        tab.page.reload()  # the same by its address
        tab.page.wait_for_selector(".tiles")
        assert tab.texts("h1") == [name]
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector(".grid a")
    assert tab.page.evaluate("window.hacked") is None
    tab.clean()
