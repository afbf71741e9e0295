"""Jacobians in tangent coordinates against difference quotients of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import physim


def tangent_reader(sim: physim.Simulator, q: Tensor) -> Tensor:
    """(nv, nq) that reads tangent coordinates off a small change of ``q`` of shape (1, nq).

    The left inverse of the derivative of `Simulator.retract`, taken column by column.
    """
    shift = torch.zeros(1, sim.model.nv, dtype=torch.float64)
    columns = torch.autograd.functional.jacobian(lambda s: sim.retract(q, s)[0], shift)
    return torch.linalg.pinv(columns[:, 0])


def quotients(probe: Any) -> Tensor:
    """Differences of (tangent step, velocity) along every tangent, velocity, control (2nv, n)."""
    sim, nq = probe.sim, probe.sim.model.nq
    base, _ = sim.step(probe.state, probe.control)
    widths = (("q", sim.model.nv), ("v", sim.model.nv), ("control", sim.model.nu))
    directions = [(name, row) for name, n in widths for row in torch.eye(n, dtype=torch.float64)]
    # Tenths, so that steps have the sizes that they have elsewhere.
    rows = 10.0 * probe.differences([(name, 0.1 * row) for name, row in directions])
    tangents = sim.timestep * rows[:, :nq] @ tangent_reader(sim, base.q).T
    return torch.cat([tangents, rows[:, nq:]], dim=-1).T


@pytest.mark.parametrize("regime", ["flight", "sliding", "impact", "limits"])
def test_columns_are_slopes(
    make_probe: Callable[..., Any], zoo_states: Mapping[str, physim.State], regime: str
) -> None:
    probe = make_probe("zoo", zoo_states[regime], 1e-6)
    sim, control = probe.sim, probe.control
    a, b = sim.linearize(zoo_states[regime], control)
    nv, nu = sim.model.nv, sim.model.nu
    assert a.shape == (1, 2 * nv, 2 * nv)
    assert b.shape == (1, 2 * nv, nu)
    found = torch.cat([a, b], dim=-1)[0]
    slopes = quotients(probe)
    # Positions answer h times as strongly as velocities.
    weights = torch.cat([torch.full((nv,), 1 / sim.timestep), torch.ones(nv)]).double()
    error = ((found - slopes) * weights[:, None]).abs().amax(0)
    size = (slopes * weights[:, None]).abs().amax(0).clamp(min=1e-2)
    assert float((error / size).max()) < 1e-6


def test_batch_equals_single_items(
    make_probe: Callable[..., Any], zoo_states: Mapping[str, physim.State]
) -> None:
    chosen = [zoo_states["sliding"], zoo_states["limits"]]
    probe = make_probe("zoo", chosen[0], 1e-6)
    sim, control = probe.sim, probe.control
    both = physim.State(q=torch.cat([s.q for s in chosen]), v=torch.cat([s.v for s in chosen]))
    a, b = sim.linearize(both, control)
    for item, state in enumerate(chosen):
        one_a, one_b = sim.linearize(state, control)
        assert torch.equal(a[item], one_a[0])
        assert torch.equal(b[item], one_b[0])


def test_model_without_controls(simulator: Callable[..., physim.Simulator]) -> None:
    sim = simulator(
        '<mujoco><worldbody><body><joint type="slide"/><geom size="0.1"/></body></worldbody>'
        "</mujoco>",
        timestep=0.01,
    )
    a, b = sim.linearize(sim.initial_state(batch=2))
    # One step of v' = v - g h, q' = q + h v'.
    expected = torch.tensor([[1.0, 0.01], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(a, expected.expand(2, 2, 2), rtol=0, atol=1e-12)
    assert b.shape == (2, 2, 0)


def test_timestep_of_parameters_counts(simulator: Callable[..., physim.Simulator]) -> None:
    sim = simulator("puck")
    high = sim.initial_state(q=[0.0, 0.0, 2.0])
    longer = {"timestep": torch.tensor(0.02, dtype=torch.float64)}
    a, b = sim.linearize(high, parameters=longer)
    # The past interval keeps the state's own length: only h of the coming one shows.
    assert float(a[0, 2, 5]) == pytest.approx(0.02, abs=1e-6)
    assert float(b[0, 3, 0]) == pytest.approx(0.02 / 2.0, abs=1e-6)
