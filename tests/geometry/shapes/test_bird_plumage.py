import numpy as np
import pytest

from recon3d.geometry.shapes.bird_plumage import Plumage
from recon3d.geometry.shapes.draws import Draws

EYE = np.array([0.1, 0.4, -0.5])


@pytest.fixture
def plain():
    plumage = Plumage.drawn(Draws(1000, 1, {"back": "blue", "belly": "white", "breast": "red", "cap": "black"}))
    return Plumage(plumage.tones, plumage.colors, dict.fromkeys(plumage.marks, 0.0))


def marked(plumage, *names):
    return Plumage(plumage.tones, plumage.colors, plumage.marks | dict.fromkeys(names, 1.0))


def trunk(plumage, station, angle, centre=(0.1, 0.2, 0.0)):
    return plumage.trunk(np.array([station]), np.array([angle]), np.array([centre]), EYE, 0.15)[0]


def test_backs_bellies_and_breasts_have_their_colours(plain):
    assert np.allclose(trunk(plain, 3.0, 0.2), plain.colors["back"], atol=0.12)
    assert np.allclose(trunk(plain, 3.0, np.pi), plain.colors["belly"])
    assert np.allclose(trunk(marked(plain, "breast"), 5.5, np.pi), plain.colors["breast"])
    assert np.allclose(trunk(plain, 5.5, np.pi), plain.colors["belly"])


def test_marks_of_the_head_are_where_they_belong(plain):
    above, eye = (0.05, 0.52, -0.45), (0.12, 0.4, -0.5)
    assert np.allclose(trunk(marked(plain, "cap"), 10.0, 0.3, above), plain.colors["cap"])
    assert not np.allclose(trunk(plain, 10.0, 0.3, above), plain.colors["cap"], atol=0.1)
    assert np.allclose(trunk(marked(plain, "eye_ring"), 10.0, 1.3, eye), plain.colors["belly"])
    assert np.allclose(trunk(marked(plain, "eye_line"), 10.0, 1.3, eye), plain.colors["mark"])


def test_left_and_right_are_painted_alike(plain):
    marks = marked(plain, *plain.marks)
    angle = np.linspace(0.05, 3.1, 40)
    station = np.linspace(0.0, 12.0, 40)
    right = np.stack([np.full(40, 0.1), np.linspace(0.0, 0.5, 40), np.linspace(0.5, -0.6, 40)], 1)
    left = right * np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(
        marks.trunk(station, angle, right, EYE, 0.15),
        marks.trunk(station, 2 * np.pi - angle, left, EYE, 0.15),
        atol=1e-9,
    )


def test_wing_bars_and_tips(plain):
    along, down = np.array([0.29, 0.95]), np.array([0.02, 0.5])
    bare, barred = plain.wing(along, down), marked(plain, "wing_bars").wing(along, down)
    assert np.abs(barred[0] - plain.colors["belly"]).max() < np.abs(bare[0] - plain.colors["belly"]).max() - 0.1
    assert np.all(bare[1] <= plain.colors["wing"]), "tips of the flight feathers are dark"
    tip = marked(plain, "tail_tip").tail(np.array([0.98]), np.array([0.1]))[0]
    assert np.abs(tip - plain.colors["belly"]).max() < 0.3


def test_individuals_vary_a_little(plain):
    other = plain.varied(Draws(1001, 5))
    for place, color in plain.colors.items():
        assert not np.array_equal(other.colors[place], color)
        assert np.abs(other.colors[place] - color).max() < 0.2
