import pytest
import torch
from scipy.spatial.transform import Rotation

from recon3d.losses.pose import hindsight_loss, student_loss, winning
from recon3d.networks.pose import PoseEnsemble


def features(samples: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(samples, 32, generator=torch.Generator().manual_seed(seed))


def small(candidates: int, seed: int = 0) -> PoseEnsemble:
    torch.manual_seed(seed)
    return PoseEnsemble(code=32, candidates=candidates, hidden=8, features=64)


@pytest.mark.parametrize("candidates", [2, 4, 7])
def test_shapes(candidates):
    poses = small(candidates)(features())
    assert poses.candidates.shape == (6, candidates, 4)
    assert poses.student is not None and poses.student.shape == (6, 4)
    assert poses.answer is poses.student


def test_one_candidate_is_one_linear_layer_and_the_answer():
    network = small(1)
    poses = network(features())
    assert poses.candidates.shape == (6, 1, 4) and poses.student is None
    assert torch.equal(poses.answer, poses.candidates[:, 0])
    assert [type(layer) for layer in network.candidates] == [torch.nn.Linear]


def test_parameters_of_the_published_network():
    network = PoseEnsemble()
    branch = 1024 * 32 + 32 + 32 * 32 + 32 + 32 * 4 + 4
    assert sum(value.numel() for value in network.parameters()) == 1024 * 1024 + 1024 + 5 * branch


@pytest.mark.parametrize("seed", range(5))
def test_candidates_start_apart(seed):
    torch.manual_seed(seed)
    network = PoseEnsemble()
    quaternions = network(torch.randn(3, 1024).abs()).candidates.detach().numpy()
    for four in quaternions:
        turns = Rotation.from_quat(four, scalar_first=True)
        for index in range(4):
            apart = (turns[index].inv() * turns).magnitude()
            assert sorted(apart)[1] > 1.6  # radians, more than a quarter turn from the nearest other one


def test_candidates_share_nothing_but_the_features():
    network = small(4)
    network(features()).candidates[:, 2].sum().backward()
    assert all(value.grad.any() for value in network.candidates[2].parameters())
    others = [network.candidates[index] for index in (0, 1, 3)] + [network.student]
    grads = [value.grad for branch in others for value in branch.parameters()]
    assert all(grad is None or not grad.any() for grad in grads)
    assert network.features[0].weight.grad.any()


def test_same_seed_same_network():
    assert torch.equal(small(4)(features()).candidates, small(4)(features()).candidates)
    assert not torch.equal(small(4)(features()).candidates, small(4, seed=1)(features()).candidates)


def test_candidates_and_student_learn_the_poses_of_given_features():
    """Ensemble and student losses together make the student name rotations that are told only by their errors."""
    network, code = small(4), features(8)
    truth = torch.tensor(Rotation.random(8, random_state=0).as_quat(scalar_first=True)).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(250):
        poses = network(code)
        unit = torch.nn.functional.normalize(poses.candidates, dim=-1)
        error, winner = hindsight_loss(1 - (unit * truth[:, None]).sum(dim=-1).square())
        loss = error.mean() + student_loss(poses.answer, winning(poses.candidates, winner))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answer = Rotation.from_quat(network(code).answer.detach().numpy(), scalar_first=True)
    errors = (answer.inv() * Rotation.from_quat(truth.numpy(), scalar_first=True)).magnitude()
    assert errors.max() < 0.2


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="candidates 0"):
        PoseEnsemble(candidates=0)
