"""The multigrid cycle: symmetry, size-independence, both forms alike, hard coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.core import InfeasibleError, NonFiniteError, PerformanceWarning, SettingsError, Status
from solvers.linear import ConjugateGradient, Multigrid, PoissonOperator, linear_solve

Scene = Callable[..., tuple[PoissonOperator, torch.Tensor]]
Residual = Callable[[PoissonOperator, torch.Tensor, torch.Tensor], float]
SCENES = ("smoke", "water", "jumps", "mass")
BACKENDS = ("reference", "kernel")


def solver(backend: str = "auto", **options: object) -> ConjugateGradient:
    cycle = options.pop("cycle", "W")
    threads = options.pop("threads", 1)
    multigrid = Multigrid(backend=backend, cycle=cycle, threads=threads)  # type: ignore[arg-type]
    return ConjugateGradient(preconditioner=multigrid, **options)  # type: ignore[arg-type]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("shape", [(17, 12, 20), (1, 24, 31), (40, 33), (300,), (9, 30, 5)])
@pytest.mark.parametrize("cycle", ["V", "W"])
def test_both_forms_take_the_same_iterations(
    build_scene: Scene, residual_of: Residual, kind: str, shape: tuple[int, ...], cycle: str
) -> None:
    A, b = build_scene(kind, shape)
    reference, compiled = (linear_solve(A, b, solver(be, cycle=cycle)) for be in BACKENDS)
    assert abs(int(reference.iterations) - int(compiled.iterations)) <= 1
    scale = float(reference.value.abs().max())
    assert float((reference.value - compiled.value).abs().max()) < 1e-5 * scale
    for solution in (reference, compiled):
        assert residual_of(A, solution.value, b) <= 1.01e-8


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    kind=st.sampled_from(SCENES),
    seed=st.integers(0, 10**6),
)
def test_any_size_solves_to_a_true_residual(
    residual_of: Residual, shape: list[int], kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cells = (rng.random(shape) < 0.25).astype(int)
    if kind == "water":
        cells[rng.random(shape) < 0.2] = 2
    cells.flat[0] = 0
    density = np.exp(rng.normal(size=shape) * 2) if kind == "jumps" else np.ones(shape)
    A = PoissonOperator.from_cells(
        cells,
        density=torch.from_numpy(density),
        mass=0.1 if kind == "mass" else None,
        outside=2 if kind == "smoke" else 1,
    )
    b = torch.from_numpy(rng.normal(size=shape))
    free = A.null_space()
    b = b if free is None else free.remove(A.mask(b))
    if not bool(A.active.any()) or float(A.mask(b).norm()) < 1e-10:
        return
    solution = linear_solve(A, b, solver("kernel"))
    assert residual_of(A, solution.value, b) <= 1.01e-8
    assert abs(float(solution.residual_norm) - residual_of(A, solution.value, b)) < 1e-9


@pytest.mark.parametrize("kind", ["smoke", "water", "jumps"])
def test_iterations_do_not_grow_with_the_size(build_scene: Scene, kind: str) -> None:
    counts = [
        int(linear_solve(*build_scene(kind, (n, n, n), seed=n), solver("kernel")).iterations)
        for n in (16, 32, 64)
    ]
    assert max(counts) <= (18 if kind == "jumps" else 12)


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cycle_is_symmetric_and_positive(build_scene: Scene, kind: str, backend: str) -> None:
    A, _ = build_scene(kind, (12, 9, 14))
    cycle = Multigrid(backend=backend).prepare(A)  # type: ignore[arg-type]
    u, v = A.mask(randn(12, 9, 14)), A.mask(randn(12, 9, 14, seed=1))
    Bu, Bv = cycle.apply(u), cycle.apply(v)
    tolerance = 1e-12 if backend == "reference" else 1e-6
    assert abs(float((u * Bv).sum() - (v * Bu).sum())) <= tolerance * float(u.norm() * Bv.norm())
    assert float((u * Bu).sum()) > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [1, 12])
def test_pockets_within_a_coarse_cell_leave_the_cycle_definite(seed: int, backend: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand((19, 30), generator=generator) < 0.5).long()
    A = PoissonOperator.from_cells(cells, outside=((1, 1), (1, 2)))
    cycle = Multigrid(backend=backend).prepare(A)  # type: ignore[arg-type]
    unit = torch.eye(A.size, dtype=torch.float64).reshape(A.size, *A.domain)[A.active.flatten()]
    matrix = cycle.apply(unit)[:, A.active]
    assert float((matrix - matrix.T).abs().max()) < 1e-4 * float(matrix.abs().max())
    assert float(torch.linalg.eigvalsh(matrix)[0]) > 0.05


def test_one_cycle_is_the_same_in_both_forms(build_scene: Scene) -> None:
    for kind in SCENES:
        A, b = build_scene(kind, (13, 18, 11))
        reference, compiled = (
            Multigrid(backend=be).prepare(A).apply(A.mask(b))  # type: ignore[arg-type]
            for be in BACKENDS
        )
        torch.testing.assert_close(compiled, reference, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("threads", [2])
@pytest.mark.parametrize("kind", ["smoke", "jumps"])
def test_threads_change_no_more_than_rounding(build_scene: Scene, kind: str, threads: int) -> None:
    A, b = build_scene(kind, (40, 12, 14))
    one = linear_solve(A, b, solver("kernel"))
    more = linear_solve(A, b, solver("kernel", threads=threads))
    again = linear_solve(A, b, solver("kernel", threads=threads))
    assert int(one.iterations) == int(more.iterations)
    torch.testing.assert_close(one.value, more.value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(more.value, again.value, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("scale", [0.01, 100.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_anisotropy_along_any_axis(scale: float, axis: int, backend: str) -> None:
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 1.0 / math.sqrt(scale)
    A = PoissonOperator.from_cells(torch.zeros(24, 24, 24), spacing=spacing, outside=2)
    assert int(linear_solve(A, randn(24, 24, 24), solver(backend)).iterations) <= 14


def channels(n: int, contrast: float, seed: int) -> PoissonOperator:
    rng = np.random.default_rng(seed)
    beta = np.ones((n, n, n))
    for _ in range(n):
        line = [slice(None) if a == rng.integers(3) else int(rng.integers(n)) for a in range(3)]
        beta[tuple(line)] = contrast
    return PoissonOperator.from_cells(
        np.zeros((n, n, n), dtype=int),
        coefficient=torch.from_numpy(beta),
        outside=((1, 1), (1, 1), (1, 2)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 4, 200), (2, 3, 300), (400, 5, 5), (4, 600), (1, 3, 900)])
@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_long_channels(shape: tuple[int, ...], backend: str) -> None:
    """Short axes end in one cell, so that the cycle stays definite and as fast as anywhere."""
    generator = torch.Generator().manual_seed(0)
    density = 10 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64))
    b = torch.randn(shape, generator=generator, dtype=torch.float64)
    for field, most in ((None, 10), (density, 32)):
        for outside in (1, 2):
            A = PoissonOperator.from_cells(torch.zeros(shape), density=field, outside=outside)
            right = b if outside == 2 else b - b.mean()
            solution = linear_solve(A, right, solver(backend))
            assert int(solution.iterations) <= most


@pytest.mark.parametrize("shape", [(2, 900), (1, 900, 2), (900, 1, 1), (1001,)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ladders_and_chains_with_jumps(
    shape: tuple[int, ...], backend: str, residual_of: Residual
) -> None:
    """Coarse chains conduct as resistances in series; half of each face left the W indefinite."""
    generator = torch.Generator().manual_seed(0)
    density = 10 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64))
    b = torch.randn(shape, generator=generator, dtype=torch.float64)
    A = PoissonOperator.from_cells(torch.zeros(shape), density=density)
    b -= b.mean()
    solution = linear_solve(A, b, solver(backend))
    assert int(solution.iterations) <= 25
    assert residual_of(A, solution.value, b) <= 1.01e-8


def test_single_precision_costs_no_iterations_at_high_contrast() -> None:
    A = channels(48, 1e5, seed=0)
    b = randn(48, 48, 48)
    counts = [int(linear_solve(A, b, solver(be)).iterations) for be in BACKENDS]
    assert abs(counts[0] - counts[1]) <= 0.05 * counts[0] + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_boxes_give_the_solution_of_zero_mean(residual_of: Residual, backend: str) -> None:
    cells = torch.zeros(14, 10, 12, dtype=torch.long)
    cells[7] = 1  # two rooms, both closed
    A = PoissonOperator.from_cells(cells)
    b = randn(14, 10, 12)
    with pytest.raises(InfeasibleError, match="INFEASIBLE"):
        linear_solve(A, b, solver(backend))
    for room in (slice(0, 7), slice(8, 14)):
        b[room] -= b[room].mean()
    x = linear_solve(A, b, solver(backend)).value
    assert residual_of(A, x, b) <= 1.01e-8
    for room in (slice(0, 7), slice(8, 14)):
        assert abs(float(x[room].mean())) < 1e-12
    assert float(x[7].abs().max()) == 0.0


@pytest.mark.parametrize("seed", [21, 70, 84, 154, 167, 383])
def test_couplings_far_apart_between_walls(seed: int, residual_of: Residual) -> None:
    """Single precision drifts along the constants of these until residuals grow again."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 20, 3))
    cells = (rng.random(shape) < 0.25).astype(int)
    cells.flat[0] = 0
    beta = torch.from_numpy(np.exp(2 * rng.normal(size=shape)))
    A = PoissonOperator.from_cells(cells, coefficient=beta)
    free = A.null_space()
    assert free is not None
    b = free.remove(A.mask(torch.from_numpy(rng.normal(size=shape))))
    solution = linear_solve(A, b, solver("kernel"))
    assert residual_of(A, solution.value, b) <= 1.01e-8
    assert int(solution.iterations) < 80


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_incompatible_system_is_solved_as_nearly_as_can_be(backend: str) -> None:
    A = PoissonOperator.from_cells(torch.zeros(9, 9))
    b = randn(9, 9)
    solution = linear_solve(A, b, solver(backend), on_failure="mask")
    assert int(solution.status) == Status.INFEASIBLE
    torch.testing.assert_close(A @ solution.value, b - b.mean(), rtol=1e-6, atol=1e-6)
    expected = abs(float(b.mean())) * 9 / float(b.norm())
    assert float(solution.residual_norm) == pytest.approx(expected, rel=1e-6)


def test_periodic_axes(residual_of: Residual) -> None:
    for shape in ((16, 15), (9, 12, 10)):
        A = PoissonOperator.from_cells(torch.zeros(shape), periodic=True)
        b = randn(*shape)
        solution = linear_solve(A, b - b.mean(), solver())
        assert int(solution.iterations) < 20
        assert residual_of(A, solution.value, b - b.mean()) <= 1.01e-8


def test_what_the_right_hand_side_holds_in_solids_is_not_read(build_scene: Scene) -> None:
    A, b = build_scene("smoke", (12, 12, 12))
    noise = torch.where(A.active, b, torch.nan)
    for backend in BACKENDS:
        x = linear_solve(A, noise, solver(backend)).value
        torch.testing.assert_close(x, linear_solve(A, b, solver(backend)).value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_systems_and_right_hand_sides_is_the_loop(backend: str) -> None:
    density = torch.rand(3, 8, 9, 10, dtype=torch.float64) + 0.5
    cells = torch.zeros(8, 9, 10, dtype=torch.long)
    cells[2:4, 2:5, 3] = 1
    A = PoissonOperator.from_cells(cells, density=density, outside=2)
    b = randn(2, 3, 8, 9, 10)
    together = linear_solve(A, b, solver(backend))
    assert together.status.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            one = PoissonOperator.from_cells(cells, density=density[j], outside=2)
            alone = linear_solve(one, b[i, j], solver(backend))
            torch.testing.assert_close(together.value[i, j], alone.value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bad_item_of_a_batch_stays_alone(build_scene: Scene, backend: str) -> None:
    A, b = build_scene("smoke", (10, 11, 12))
    b = torch.stack([b, b.clone(), 2 * b])
    b[1][A.active] = torch.nan
    solution = linear_solve(A, b, solver(backend), on_failure="mask")
    assert solution.status.tolist() == [0, int(Status.NON_FINITE), 0]
    torch.testing.assert_close(solution.value[2], 2 * solution.value[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("factor", [1e-150, 1e-20, 1e20, 1e150])
def test_units_do_not_matter(build_scene: Scene, backend: str, factor: float) -> None:
    A, b = build_scene("jumps", (10, 12, 11))
    one = linear_solve(A, b, solver(backend))
    scaled = A.with_coefficients({k: factor * v for k, v in A.coefficients.items()})
    other = linear_solve(scaled, b / factor if factor > 1 else b, solver(backend))
    back = other.value * factor * (factor if factor > 1 else 1.0)
    torch.testing.assert_close(back, one.value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_guess_is_used(build_scene: Scene, backend: str) -> None:
    A, b = build_scene("smoke", (16, 16, 16))
    cold = linear_solve(A, b, solver(backend))
    warm = linear_solve(A, b, solver(backend), x0=cold.value * (1 + 1e-4))
    assert 0 < int(warm.iterations) < int(cold.iterations)
    exact = linear_solve(A, b, solver(backend), x0=cold.value)
    assert int(exact.iterations) == 0
    torch.testing.assert_close(exact.value, cold.value)


def test_a_residual_near_rounding_is_reached_and_below_it_stalls(
    build_scene: Scene, residual_of: Residual
) -> None:
    A, b = build_scene("smoke", (20, 20, 20))
    good = linear_solve(A, b, solver("kernel", rtol=1e-12))
    assert residual_of(A, good.value, b) <= 1e-12
    floor = linear_solve(A, b, solver("kernel", rtol=1e-18), on_failure="mask")
    assert int(floor.status) == Status.STALLED
    assert float(floor.residual_norm) < 1e-14


def test_a_prepared_solver_serves_many_right_hand_sides(
    build_scene: Scene, residual_of: Residual
) -> None:
    A, b = build_scene("water", (12, 14, 16))
    prepared = solver().prepare(A)
    for seed in range(3):
        b = A.mask(randn(12, 14, 16, seed=seed))
        assert residual_of(A, prepared.solve(b).value, b) <= 1.01e-8


def test_the_iteration_limit(build_scene: Scene, residual_of: Residual) -> None:
    A, b = build_scene("smoke", (16, 16, 16))
    for backend in BACKENDS:
        solution = linear_solve(A, b, solver(backend, max_iterations=2), on_failure="mask")
        assert int(solution.status) == Status.MAX_ITERATIONS
        assert int(solution.iterations) == 2
        torch.testing.assert_close(
            float(solution.residual_norm), residual_of(A, solution.value, b), rtol=1e-6, atol=0.0
        )


def test_broken_coefficients_are_named(build_scene: Scene) -> None:
    A, b = build_scene("smoke", (8, 8, 8))
    for value, error, words in (
        (torch.nan, NonFiniteError, "boundary"),
        (-1.0, SettingsError, "zero or more"),
    ):
        boundary = A.boundary.clone()
        boundary[2, 2, 2] = value
        B = PoissonOperator(A.couplings, boundary)
        for backend in BACKENDS:
            with pytest.raises(error, match=words):
                linear_solve(B, b, solver(backend))
    empty = PoissonOperator(
        [torch.zeros(2, 3).double(), torch.zeros(3, 2).double()], torch.zeros(3, 3).double()
    )
    for backend in BACKENDS:
        with pytest.raises(SettingsError, match="nothing to solve"):
            linear_solve(empty, torch.zeros(3, 3).double(), solver(backend))


def test_the_compiled_form_says_where_it_does_not_work() -> None:
    A = PoissonOperator.from_cells(torch.zeros(8, 8), periodic=True)
    with pytest.raises(SettingsError, match="periodic"):
        linear_solve(A, torch.zeros(8, 8).double(), solver("kernel"))
    single = PoissonOperator.from_cells(torch.zeros(8, 8), outside=2, dtype=torch.float32)
    with pytest.raises(SettingsError, match="float64"):
        Multigrid(backend="kernel").prepare(single)
    assert linear_solve(single, torch.ones(8, 8), solver("kernel")).all_converged


def test_without_a_compiler_tensors_give_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, build_scene: Scene
) -> None:
    from solvers.kernels import KernelBuildError
    from solvers.linear.preconditioners import _levels

    A, b = build_scene("smoke", (14, 13, 12))
    expected = linear_solve(A, b, solver("kernel")).value

    def refuse() -> None:
        raise KernelBuildError("no compiler", source="")

    monkeypatch.setattr(_levels, "multigrid_kernel", refuse)
    with pytest.warns(PerformanceWarning, match="no compiler"):
        found = linear_solve(A, b).value
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(KernelBuildError):
        linear_solve(A, b, solver("kernel"))


@pytest.mark.parametrize("factor", [1e-250, 1e250])
def test_right_hand_sides_beyond_the_range_of_squares(factor: float, build_scene: Scene) -> None:
    A, b = build_scene("smoke", (10, 9, 8))
    one = linear_solve(A, b).value
    both = torch.stack([b, factor * b])
    for backend in BACKENDS:
        x = linear_solve(A, both, solver(backend)).value
        torch.testing.assert_close(x[1] / factor, one, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(x[0], one, rtol=1e-6, atol=1e-6)


def test_one_prepared_solver_may_be_called_from_several_threads(build_scene: Scene) -> None:
    from concurrent.futures import ThreadPoolExecutor

    A, _ = build_scene("smoke", (24, 20, 22))
    prepared = solver("kernel").prepare(A)
    right = [A.mask(randn(24, 20, 22, seed=seed)) for seed in range(8)]
    expected = [prepared.solve(b).value for b in right]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda b: prepared.solve(b).value, right))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("seed", [4, 7, 94])
def test_many_closed_pieces_take_the_iterations_of_tensors(
    seed: int, residual_of: Residual
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(1500, generator=generator) < 0.15).long()
    density = 10 ** (2 * torch.rand(1500, generator=generator, dtype=torch.float64))
    A = PoissonOperator.from_cells(cells, density=density)
    free = A.null_space()
    assert free is not None
    b = free.remove(A.mask(randn(1500, seed=seed)))
    steps = {}
    for backend in BACKENDS:
        solution = linear_solve(A, b, solver(backend, rtol=1e-11))
        assert residual_of(A, solution.value, b) <= 1.01e-11
        steps[backend] = int(solution.iterations)
    assert steps["kernel"] <= 1.25 * steps["reference"]
    assert not linear_solve(A, b).report.counts["handed_over"].any()


@pytest.mark.parametrize("shape", [(1500,), (40, 33), (11, 9, 20)])
def test_constants_of_closed_pieces_are_lifted_alike_in_both_forms(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(94)
    cells = (torch.rand(shape, generator=generator) < 0.3).long()
    density = 1 + 99 * torch.rand(shape, generator=generator, dtype=torch.float64)
    A = PoissonOperator.from_cells(cells, density=density)
    ones = A.mask(torch.ones(shape, dtype=torch.float64))
    compiled, tensors = (
        float(Multigrid(backend=backend).prepare(A).apply(ones).norm())  # type: ignore[arg-type]
        for backend in BACKENDS
    )
    assert compiled == pytest.approx(tensors, rel=0.01)


def stretched(seed: int) -> tuple[PoissonOperator, torch.Tensor]:
    """Walls round 3 x 4 x 200 cells, random solids, densities between 1 and 100."""
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand((3, 4, 200), generator=generator) < 0.15).long()
    density = 10 ** (2 * torch.rand((3, 4, 200), generator=generator, dtype=torch.float64))
    spacing = (1.0, 5.0, 30.0) if seed % 2 else 1.0
    A = PoissonOperator.from_cells(
        cells, density=density, spacing=spacing, outside=((1, 1), (1, 1), (1, 2))
    )
    b = A.mask(randn(3, 4, 200, seed=seed))
    free = A.null_space()
    return A, b if free is None else free.remove(b)


@pytest.mark.parametrize("seed", range(6))
def test_stretched_grids_are_solved_or_said_to_fail(seed: int, residual_of: Residual) -> None:
    A, b = stretched(seed)
    for backend in BACKENDS:
        plain = linear_solve(A, b, solver(backend, max_iterations=200), on_failure="mask")
        residual = residual_of(A, plain.value, b)
        assert plain.all_converged == (residual <= 1.0001e-8)
        assert float(plain.residual_norm) == pytest.approx(residual, rel=1e-3)
    assert residual_of(A, linear_solve(A, b).value, b) <= 1.01e-8


def test_more_threads_than_processors_end() -> None:
    A = PoissonOperator.from_cells(torch.zeros(16, 16, 16), outside=2)
    b = randn(16, 16, 16)
    expected = linear_solve(A, b, solver("kernel")).value
    many = linear_solve(A, b, solver("kernel", threads=100)).value
    torch.testing.assert_close(many, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_right_hand_side_that_is_not_finite_has_no_finite_residual(backend: str) -> None:
    A = PoissonOperator.from_cells(torch.zeros(6, 6), outside=2)
    b = torch.full((6, 6), torch.nan, dtype=torch.float64)
    solution = linear_solve(A, b, solver(backend), on_failure="mask")
    assert int(solution.status) == Status.NON_FINITE
    assert solution.residual_norm.isnan()


@pytest.mark.parametrize("backend", BACKENDS)
def test_systems_and_right_hand_sides_broadcast_along_any_axis(backend: str) -> None:
    density = torch.rand(3, 1, 2, 5, 4, dtype=torch.float64) + 0.5
    A = PoissonOperator.from_cells(torch.zeros(5, 4), density=density, outside=2)
    b = randn(2, 1, 4, 1, 5, 4)
    together = linear_solve(A, b, solver(backend, rtol=1e-10)).value
    assert together.shape == (2, 3, 4, 2, 5, 4)
    for i, k in ((0, 1), (2, 0)):
        alone = PoissonOperator.from_cells(torch.zeros(5, 4), density=density[i, 0, k], outside=2)
        expected = linear_solve(alone, b[:, 0, :, 0], solver(backend, rtol=1e-10)).value
        torch.testing.assert_close(together[:, i, :, k], expected, rtol=1e-7, atol=1e-8)
