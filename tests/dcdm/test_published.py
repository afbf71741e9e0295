"""The published method: training set, loss, loop, and what the shipped weights reach."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from solvers.core import CheckpointError, SettingsError, ShapeError, Status, open_progress
from solvers.dcdm import (
    DeepConjugateDirection,
    DirectionNetwork,
    RitzVectors,
    TrainingSettings,
    direction_loss,
    lanczos,
    train_directions,
)
from solvers.dcdm import train as command
from solvers.linear import ConjugateGradient, DenseOperator, PoissonOperator, linear_solve


def box(n: int) -> PoissonOperator:
    return PoissonOperator.from_cells(torch.zeros(n, n, n), outside=2)


def white(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, n, dtype=torch.float64, generator=generator)


def small_network(seed: int = 0) -> DirectionNetwork:
    torch.manual_seed(seed)
    return DirectionNetwork(channels=4, before=2, coarse=2, after=2)


def test_ritz_pairs_at_the_ends_are_eigenpairs() -> None:
    A = box(8)
    values, vectors = lanczos(A, 120, generator=torch.Generator().manual_seed(0))
    exact = np.linalg.eigvalsh(A.to_scipy().toarray())
    assert values[0] == pytest.approx(exact[0], rel=1e-9)
    assert values[-1] == pytest.approx(exact[-1], rel=1e-9)
    gram = vectors.double() @ vectors.double().T
    assert torch.allclose(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-5)


def test_samples_have_norm_one_and_prefer_the_lower_half() -> None:
    ritz = RitzVectors(box(8), 100)
    r = ritz.sample(200, torch.Generator().manual_seed(0))
    assert torch.allclose(r.flatten(1).norm(dim=1), torch.ones(200), atol=1e-5)
    parts = (r.flatten(1) @ ritz.vectors.T).square().mean(0)
    assert float(parts[:55].sum() / parts.sum()) > 0.95


def test_the_loss_vanishes_for_the_inverse_at_any_scale() -> None:
    A = box(6)
    b = white(6)
    x = linear_solve(A, b).value
    unit = b / b.norm()
    assert float(direction_loss(A, unit, -3.0 * x)) < 1e-12
    # Along the residual itself it is the line search of steepest descent.
    Ar = A.apply(unit)
    alpha = (unit * unit).sum() / (unit * Ar).sum()
    expected = float((unit - alpha * Ar).square().sum())
    assert float(direction_loss(A, unit, unit)) == pytest.approx(expected)


class Scaled(DirectionNetwork):
    """Proposes the residual itself; the method is then conjugate gradients."""

    def forward(self, r: Tensor) -> Tensor:
        return r


def test_with_the_residual_as_direction_it_is_conjugate_gradients() -> None:
    A, b = box(8), white(8)
    network = Scaled(channels=1, before=2, coarse=2, after=2)
    ours = linear_solve(A, b, DeepConjugateDirection(network=network, rtol=1e-5))
    theirs = linear_solve(A, b, ConjugateGradient(rtol=1e-5))
    assert abs(int(ours.iterations) - int(theirs.iterations)) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_the_error_in_the_norm_of_the_matrix_never_grows(seed: int) -> None:
    A, b = box(8), white(8, seed)
    x = linear_solve(A, b).value
    last = torch.inf
    for steps in range(1, 8):
        solver = DeepConjugateDirection(
            network=small_network(seed), rtol=1e-12, max_iterations=steps
        )
        outcome = solver.prepare(A).run(b, None)
        if int(outcome.status) == Status.CONVERGED:
            break
        error = outcome.value - x
        energy = float((error * A.apply(error)).sum())
        # The item keeps its best iterate, which may be the start.
        assert energy <= max(last, float((x * b).sum())) * (1 + 1e-9)
        last = energy


def test_a_useless_network_stalls_and_says_so() -> None:
    class Constant(DirectionNetwork):
        def forward(self, r: Tensor) -> Tensor:
            return torch.ones_like(r)

    network = Constant(channels=1, before=2, coarse=2, after=2)
    solver = DeepConjugateDirection(network=network, kept=0, rtol=1e-6)
    solution = linear_solve(box(6), white(6), solver, on_failure="mask")
    assert int(solution.status) == Status.STALLED
    assert float(solution.residual_norm) <= 1.0


def test_the_shipped_weights_reach_one_percent_on_their_own_matrix() -> None:
    A = box(32)
    solver = DeepConjugateDirection(rtol=1e-2, max_iterations=60)
    for seed in (1, 2):
        b = white(32, seed)
        solution = linear_solve(A, b, solver)
        assert int(solution.iterations) <= 60
        r = b.numpy().ravel() - A.to_scipy() @ solution.value.numpy().ravel()
        assert np.linalg.norm(r) <= 1.001e-2 * float(b.norm())


def test_a_batch_is_the_loop_and_a_bad_item_stays_alone() -> None:
    A = box(8)
    b = torch.stack([white(8, 1), white(8, 2)])
    b[1, 0, 0, 0] = torch.nan
    solver = DeepConjugateDirection(network=small_network(), rtol=0.3, max_iterations=20)
    both = solver.prepare(A).run(b, None)
    alone = solver.prepare(A).run(b[0], None)
    assert int(both.status[1]) == Status.NON_FINITE
    assert int(both.iterations[0]) == int(alone.iterations)
    torch.testing.assert_close(both.value[0], alone.value, rtol=1e-4, atol=1e-4)


def test_the_implicit_gradient_is_that_of_the_solution() -> None:
    A = box(32)
    b = white(32).requires_grad_()
    x = linear_solve(A, b, DeepConjugateDirection(rtol=1e-4)).value
    x.square().sum().backward()
    exact = linear_solve(A, 2 * linear_solve(A, b.detach()).value).value
    assert b.grad is not None
    assert float((b.grad - exact).norm() / exact.norm()) < 1e-2


def test_training_learns_and_resumes_with_the_same_numbers(tmp_path: Path) -> None:
    A = box(6)
    settings = TrainingSettings(steps=12, batch=4, vectors=60, save_every=5)

    def train(network: DirectionNetwork, name: str, *, is_resumed: bool = False) -> list[float]:
        progress = open_progress(None, description="train", stream=io.StringIO())
        file = tmp_path / name
        return train_directions(
            A, network, settings, progress=progress, checkpoint=file, is_resumed=is_resumed
        )

    whole = small_network()
    losses = train(whole, "whole")
    assert len(losses) == 12
    part = small_network()

    class Stop(Exception):
        pass

    class Stopping:
        def __enter__(self) -> Stopping:
            return self

        def __exit__(self, *_: object) -> None: ...

        def note(self, text: str) -> None: ...

        def update(self, step: int, **fields: float | str) -> None:
            if step == 7:
                raise Stop

    with pytest.raises(Stop):
        train_directions(A, part, settings, progress=Stopping(), checkpoint=tmp_path / "part")
    fresh = small_network(seed=5)
    rest = train(fresh, "part", is_resumed=True)
    assert rest == pytest.approx(losses[5:], rel=1e-6)
    with pytest.raises(CheckpointError, match="channels"):
        train(DirectionNetwork(channels=2, before=2, coarse=2, after=2), "part", is_resumed=True)


def test_the_command_writes_weights_that_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.safetensors"
    arguments = [str(file), "--side", "6", "--steps", "2", "--vectors", "20", "--batch", "2"]
    assert command.main(arguments) == 0
    assert "wrote" in capsys.readouterr().out
    assert DirectionNetwork.load(file)(torch.ones(4, 4, 4)).shape == (4, 4, 4)
    assert command.main([*arguments, "--start", str(tmp_path / "none")]) == 2


def test_bad_input_is_named() -> None:
    with pytest.raises(SettingsError, match="three axes"):
        DeepConjugateDirection().prepare(DenseOperator(torch.eye(3)))
    with pytest.raises(SettingsError, match="kept"):
        DeepConjugateDirection(kept=-1)
    with pytest.raises(ShapeError, match="nx"):
        small_network()(torch.ones(4, 4))
    with pytest.raises(SettingsError, match="count"):
        lanczos(box(2), 9)
    with pytest.raises(FileNotFoundError):
        DirectionNetwork.load("nowhere.safetensors")
