"""The tree's elimination against a dense matrix assembled from the same blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from physim import Simulator
from physim.dynamics._articulated import factor_tree, is_whole, solve_tree
from physim.dynamics._integrator import newton_matrix
from physim.dynamics._kinematics import forward_kinematics, link_twists, project
from physim.dynamics._numbers import Numbers

TREE = """<mujoco><worldbody>
  <body pos="0 0 1">{root}<geom size="0.1" mass="1"/>
    <body pos="0.2 0 0"><joint axis="0 1 0"/><joint axis="1 0 0"/><geom size="0.05" mass="0.3"/>
      <body pos="0.2 0 0"><joint type="slide" axis="0 0 1"/><geom size="0.05" mass="0.2"/></body>
      <body pos="0 0.2 0"><joint type="ball"/><geom size="0.04" mass="0.1" pos="0.1 0 0"/></body>
    </body>
    <body pos="-0.2 0 0"><joint axis="0 0 1"/><geom size="0.05" mass="0.3" pos="-0.1 0 0"/></body>
  </body></worldbody></mujoco>"""
ROOTS = {
    "free": "<freejoint/>",
    "armoured": '<joint type="free" armature="0.1"/>',
    "planar": '<joint type="slide" axis="1 0 0"/><joint axis="0 1 0"/>',
    "fixed": "",
}


@pytest.mark.parametrize("root", list(ROOTS))
def test_solution_is_that_of_the_dense_matrix(
    simulator: Callable[..., Simulator], generator: torch.Generator, root: str
) -> None:
    sim = simulator(TREE.format(root=ROOTS[root]), timestep=0.01)
    tree, layout = sim.mechanism.tree, sim.mechanism.layout
    numbers = Numbers(layout, list(sim._own_numbers.unbind(-1)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q = sim.retract(sim.model.initial_q[None], random(1, tree.nv))[0]
    x = sim.retract(q[None], 0.1 * random(1, tree.nv))[0]
    before = forward_kinematics(tree, list(q), numbers)
    after = forward_kinematics(tree, list(x), numbers)
    # Unsymmetric blocks like those of discrete momentum.
    blocks = []
    for _ in tree.links:
        a = random(6, 6)
        blocks.append((a @ a.T + torch.eye(6) + 0.1 * random(6, 6)).tolist())
    wrenches = [(random(3).tolist(), random(3).tolist()) for _ in tree.links]
    joints = {(i, i): float(numbers.dof("armature", i)) for i in range(tree.nv)}
    force = random(tree.nv).tolist()
    frames, ahead = (
        {
            index: (poses.rotation[index], poses.position[index])
            for index, link in enumerate(tree.links)
            if link.joints and link.joints[0].kind == "free"
        }
        for poses in (before, after)
    )
    factor = factor_tree(tree, before.motion, after.motion, blocks, joints)
    rate, twists = solve_tree(
        tree, factor, before.motion, after.motion, wrenches, force, frames, ahead
    )
    assert bool(factor.roots) == (root == "free")
    assert any(is_whole(link, joints) for link in tree.links) == (root == "free")

    entries = newton_matrix(tree, before.motion, after.motion, blocks, joints)
    matrix = torch.zeros(tree.nv, tree.nv, dtype=torch.float64)
    for (i, j), value in entries.items():
        matrix[i, j] = float(value)
    right = torch.tensor(
        [float(y) for y in project(tree, before.motion, wrenches)], dtype=torch.float64
    )
    right = right + torch.tensor(force, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, right)
    found = torch.tensor([float(y) for y in rate], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    moved = link_twists(tree, after.motion, expected.tolist())
    for (w, v), (w_dense, v_dense) in zip(twists, moved, strict=True):
        ours = torch.tensor([float(y) for y in (*w, *v)])
        dense = torch.tensor([float(y) for y in (*w_dense, *v_dense)])
        torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-7)
    sign = 1.0
    for pivot in factor.pivots:
        sign *= float(torch.as_tensor(pivot).sign())
    assert sign == float(torch.linalg.slogdet(matrix)[0])
