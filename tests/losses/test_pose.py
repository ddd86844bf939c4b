import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from recon3d.losses.pose import hindsight_loss, student_loss, winning


def quaternions(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_only_the_winner_has_a_gradient():
    errors = torch.tensor([[3.0, 1.0, 2.0], [0.5, 4.0, 0.6]], requires_grad=True)
    loss, winner = hindsight_loss(errors)
    assert loss.tolist() == [1.0, 0.5] and winner.tolist() == [1, 0]
    loss.sum().backward()
    assert errors.grad.tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_leading_shapes(lead):
    errors = torch.rand(*lead, 4, generator=torch.Generator().manual_seed(0))
    loss, winner = hindsight_loss(errors)
    np.testing.assert_array_equal(loss, errors.numpy().min(axis=-1))
    np.testing.assert_array_equal(winner, errors.numpy().argmin(axis=-1))
    candidates = quaternions(*lead, 4)
    expected = np.take_along_axis(candidates.numpy(), errors.numpy().argmin(-1)[..., None, None], axis=-2)[..., 0, :]
    np.testing.assert_array_equal(winning(candidates, winner), expected)


def test_a_nan_is_not_hidden():
    loss, winner = hindsight_loss(torch.tensor([1.0, float("nan"), 0.0]))
    assert loss.isnan() and winner == 1


def test_student_loss_is_the_squared_sine_of_half_the_angle():
    student, teacher = quaternions(50), quaternions(50, seed=1)
    turns = [Rotation.from_quat(value.numpy(), scalar_first=True) for value in (student, teacher)]
    angles = (turns[0].inv() * turns[1]).magnitude()
    assert student_loss(student, teacher).item() == pytest.approx(np.mean(np.sin(angles / 2) ** 2), abs=1e-12)


def test_student_loss_closed_forms():
    one = torch.tensor([1.0, 0, 0, 0])
    half_turn = torch.tensor([0.0, 0, 1, 0])
    quarter_turn = torch.tensor([1.0, 0, 1, 0])  # not of length 1
    assert student_loss(one, one).item() == 0
    assert student_loss(one, half_turn).item() == 1
    assert student_loss(one, quarter_turn).item() == pytest.approx(0.5)
    assert student_loss(torch.stack([one, one]), torch.stack([one, half_turn])).item() == 0.5


def test_sign_and_length_do_not_matter():
    student, teacher = quaternions(7), quaternions(7, seed=1)
    value = student_loss(student, teacher)
    scales = torch.tensor([-1.0, 2.0, -0.1, 1.0, 30.0, -5.0, 1.0])[:, None]
    torch.testing.assert_close(student_loss(scales * student, teacher), value)
    torch.testing.assert_close(student_loss(student, -scales * teacher), value)


def test_teacher_is_constant_and_gradients_are_right():
    student, teacher = quaternions(2, 3).requires_grad_(), quaternions(2, 3, seed=1).requires_grad_()
    student_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad is not None
    assert torch.autograd.gradcheck(lambda value: student_loss(value, teacher), (student,))
    errors = torch.rand(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: hindsight_loss(value)[0], (errors,))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        hindsight_loss(torch.zeros(2, 0))
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2,\)"):
        winning(torch.zeros(3, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(3, 4\)"):
        student_loss(torch.zeros(2, 4), torch.zeros(3, 4))
