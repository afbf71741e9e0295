"""Distances, normals and their derivatives of every pair of shapes against MuJoCo's.

Where MuJoCo measures a pair in another way (rims and ellipsoids on planes), the lowest point of
the shape over a dense sampling is the reference as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest

from physim.collision import tangents

Pairs = Any
"""The scene that the fixture ``pairs`` builds; test folders are no packages to import from."""

PLANE = '<geom name="floor" type="plane" size="1 1 1" pos="0 0 0.1" euler="20 10 0"/>'
SCENE = "<mujoco><worldbody>{world}<body><freejoint/>{shape}</body>{more}</worldbody></mujoco>"
OFFSET = 'pos="0.1 -0.05 0.2" euler="10 40 70"'
SHAPES = {
    "sphere": f'<geom name="shape" type="sphere" size="0.2" {OFFSET}/>',
    "capsule": f'<geom name="shape" type="capsule" size="0.1 0.3" {OFFSET}/>',
    "box": f'<geom name="shape" type="box" size="0.1 0.2 0.3" {OFFSET}/>',
    "ellipsoid": f'<geom name="shape" type="ellipsoid" size="0.1 0.2 0.3" {OFFSET}/>',
    "cylinder": f'<geom name="shape" type="cylinder" size="0.15 0.25" {OFFSET}/>',
}
BALL = '<body><freejoint/><geom name="other" type="sphere" size="0.15" pos="0 0.1 0"/></body>'
ROD = '<body><freejoint/><geom name="other" type="capsule" size="0.1 0.25" {}/></body>'.format(
    'euler="30 0 10"'
)
CRATE = '<body><freejoint/><geom name="other" type="box" size="0.2 0.25 0.3" {}/></body>'.format(
    'pos="0.03 0 0.02" euler="-20 30 10"'
)
CAN = '<body><freejoint/><geom name="other" type="cylinder" size="0.2 0.25" {}/></body>'.format(
    'pos="0.03 0 0.02" euler="-20 30 10"'
)
COUPLES = {
    "sphere-sphere": (SHAPES["sphere"], BALL),
    "sphere-capsule": (SHAPES["sphere"], ROD),
    "capsule-sphere": (SHAPES["capsule"], BALL),
    "capsule-capsule": (SHAPES["capsule"], ROD),
    "sphere-box": (SHAPES["sphere"], CRATE),
    "box-sphere": (SHAPES["box"], BALL),
    "capsule-box": (SHAPES["capsule"], CRATE),
    "box-capsule": (SHAPES["box"], ROD),
    "sphere-cylinder": (SHAPES["sphere"], CAN),
    "cylinder-sphere": (SHAPES["cylinder"], BALL),
}
SCENES = {
    **{f"plane-{k}": SCENE.format(world=PLANE, shape=v, more="") for k, v in SHAPES.items()},
    **{k: SCENE.format(world="", shape=a, more=b) for k, (a, b) in COUPLES.items()},
}


def poses(count: int, bodies: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    q = rng.normal(size=(count, bodies, 7))
    q[..., :3] *= spread
    q[..., 3:] /= np.linalg.norm(q[..., 3:], axis=-1, keepdims=True)
    return q.reshape(count, -1)


def closest(found: list[Any]) -> Any:
    return min(found, key=lambda row: row[2])


@pytest.mark.parametrize("name", [k for k in SCENES if not k.startswith("plane")])
def test_distance_between_bodies_is_mujocos(pairs: Callable[[str], Pairs], name: str) -> None:
    scene = pairs(SCENES[name])
    a, b = (scene.reference.geom(n).id for n in ("shape", "other"))
    separated = 0
    # Axes of capsules that are inside a box push with their ends only.
    deepest = -0.1 if name in ("capsule-box", "box-capsule") else -1.0
    for q in poses(30, 2, 0.6):
        now = scene.move(q)
        ends = np.zeros(6)
        distance = mujoco.mj_geomDistance(scene.reference, scene.data, a, b, 10.0, ends)
        if distance <= deepest:
            continue
        group, _, gap, normal, point = closest(scene.evaluate(now))
        assert gap == pytest.approx(distance, abs=1e-6)
        side = 1.0 if group.candidates[0].link_a == 0 else -1.0
        if distance > 0.01:
            separated += 1
            # From side b to side a.
            expected = (ends[:3] - ends[3:]) / np.linalg.norm(ends[:3] - ends[3:])
            np.testing.assert_allclose(side * normal, expected, atol=1e-5)
            # Balls on solids touch where they end, as on planes; others meet in the middle.
            on_ball = ends[:3] if side > 0 else ends[3:]
            middle = 0.5 * (ends[:3] + ends[3:])
            expected = middle if group.kind in ("segments", "crossing") else on_ball
            np.testing.assert_allclose(point, expected, atol=1e-5)
    assert separated >= 5


def surface(scene: Pairs, count: int = 400) -> np.ndarray:
    """Points on the surface of the moving shape, in the world, dense where it is extreme."""
    geom = scene.reference.geom("shape").id
    size, kind = scene.reference.geom_size[geom], scene.reference.geom_type[geom]
    turn, center = scene.data.geom_xmat[geom].reshape(3, 3), scene.data.geom_xpos[geom]
    normal = turn.T @ scene.data.geom_xmat[scene.reference.geom("floor").id].reshape(3, 3)[:, 2]
    types = mujoco.mjtGeom
    if kind == types.mjGEOM_SPHERE:
        local = -size[0] * normal[None]
    elif kind == types.mjGEOM_CAPSULE:
        ends = np.array([[0, 0, size[1]], [0, 0, -size[1]]])
        local = ends - size[0] * normal
    elif kind == types.mjGEOM_BOX:
        local = size * np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    elif kind == types.mjGEOM_ELLIPSOID:
        # Support by search: refine a grid of directions around the lowest point.
        angle = np.array([np.pi / 2, 0.0])
        width = np.pi
        for _ in range(30):
            span = np.linspace(-width, width, 41)
            theta, phi = np.meshgrid(angle[0] + span, angle[1] + span)
            grid = np.stack(
                [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
            )
            heights = (grid * size) @ normal
            best = np.unravel_index(heights.argmin(), heights.shape)
            angle = np.array([theta[best], phi[best]])
            width *= 0.5
        local = (grid * size).reshape(-1, 3)
    else:
        around = np.linspace(0, 2 * np.pi, count, endpoint=False)
        lowest = np.arctan2(-normal[1], -normal[0])
        around = np.append(around, lowest)
        circle = np.stack([np.cos(around), np.sin(around)], axis=-1) * size[0]
        local = np.concatenate(
            [np.c_[circle, np.full(len(circle), z)] for z in (-size[1], size[1])]
        )
    return center + local @ turn.T


@pytest.mark.parametrize("kind", list(SHAPES))
def test_distance_to_a_tilted_plane_is_that_of_the_lowest_point(
    pairs: Callable[[str], Pairs], kind: str
) -> None:
    scene = pairs(SCENES[f"plane-{kind}"])
    floor = scene.reference.geom("floor").id
    for q in poses(20, 1, 0.6):
        now = scene.move(q)
        up = scene.data.geom_xmat[floor].reshape(3, 3)[:, 2]
        heights = (surface(scene) - scene.data.geom_xpos[floor]) @ up
        found = scene.evaluate(now)
        _, _, gap, normal, point = closest(found)
        assert gap == pytest.approx(heights.min(), abs=1e-6)
        np.testing.assert_allclose(normal, up, atol=1e-12)
        np.testing.assert_allclose(point, surface(scene)[heights.argmin()], atol=1e-4)
        for row in found:
            assert row[2] >= heights.min() - 1e-6


@pytest.mark.parametrize("kind", ["sphere", "capsule", "box", "ellipsoid", "cylinder"])
def test_distance_to_a_plane_is_that_of_mujocos_deepest_contact(
    pairs: Callable[[str], Pairs], kind: str
) -> None:
    text = SCENES[f"plane-{kind}"].replace('name="shape"', 'name="shape" margin="5"')
    scene = pairs(text)
    compared = 0
    for q in poses(20, 1, 0.3):
        now = scene.move(q)
        mujoco.mj_collision(scene.reference, scene.data)
        if scene.data.ncon == 0:
            continue
        compared += 1
        deepest = min(scene.data.contact.dist)
        assert closest(scene.evaluate(now))[2] == pytest.approx(deepest, abs=1e-6)
    assert compared >= 15


@pytest.mark.parametrize("name", list(SCENES))
def test_the_normal_at_the_point_is_the_derivative_of_the_distance(
    pairs: Callable[[str], Pairs], name: str
) -> None:
    """Moving a link by the twist (w, v) changes the gap by n . (v + w x point)."""
    scene = pairs(SCENES[name])
    bodies, step = scene.reference.njnt, 1e-6
    for q in poses(5, bodies, 0.6):
        found = scene.evaluate(scene.move(q))
        for dof in range(6 * bodies):
            body, axis = divmod(dof, 6)
            gaps = []
            for sign in (1, -1):
                moved, twist = q.copy(), np.zeros(6 * bodies)
                twist[dof] = sign * step
                mujoco.mj_integratePos(scene.reference, moved, twist, 1.0)
                gaps.append([row[2] for row in scene.evaluate(scene.move(moved))])
            slopes = (np.array(gaps[0]) - np.array(gaps[1])) / (2 * step)
            scene.move(q)
            unit = np.eye(3)[axis % 3]
            for slope, (group, pair, _, normal, point) in zip(slopes, found, strict=True):
                candidates = [c for c in group.candidates if c.pair == pair]
                side = 1.0 if candidates[0].link_a == body else -1.0
                if axis < 3:
                    expected = side * normal @ unit
                else:
                    axis_world = scene.data.xmat[body + 1].reshape(3, 3) @ unit
                    lever = point - scene.data.xpos[body + 1]
                    expected = side * normal @ np.cross(axis_world, lever)
                assert slope == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_tangents_complete_a_normal_to_a_frame(seed: int) -> None:
    normal = np.random.default_rng(seed).normal(size=3)
    normal /= np.linalg.norm(normal)
    frame = np.array([[float(x) for x in row] for row in (*tangents(list(normal)), normal)])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(frame) == pytest.approx(1.0)


@pytest.mark.parametrize("up", [1.0, -1.0])
def test_tangents_of_a_vertical_normal_exist(up: float) -> None:
    first, second = tangents([0.0, 0.0, up])
    frame = np.array([first, second, [0.0, 0.0, up]], dtype=float)
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-15)


def test_a_standing_cylinder_touches_with_its_whole_rim(pairs: Callable[[str], Pairs]) -> None:
    """Four fixed points of each rim keep it from tipping where the lowest point is not unique."""
    text = SCENE.format(
        world='<geom name="floor" type="plane" size="1 1 1"/>',
        shape='<geom name="shape" type="cylinder" size="0.15 0.25"/>',
        more="",
    )
    scene = pairs(text)
    found = scene.evaluate(scene.move(np.array([0, 0, 0.25, 1, 0, 0, 0], dtype=float)))
    touching = [row[4][:2] for row in found if abs(row[2]) <= 1e-6 and row[0].kind == "ball"]
    assert len(touching) == 4
    np.testing.assert_allclose(np.mean(touching, axis=0), 0.0, atol=1e-12)


def test_parallel_capsules_have_a_finite_distance_and_normal(
    pairs: Callable[[str], Pairs],
) -> None:
    rods = [
        f'<body><freejoint/><geom name="{n}" type="capsule" size="0.1 0.3"/></body>'
        for n in ("shape", "other")
    ]
    scene = pairs(f"<mujoco><worldbody>{''.join(rods)}</worldbody></mujoco>")
    q = np.array([0, 0, 0, 1, 0, 0, 0, 0.5, 0, 0.1, 1, 0, 0, 0], dtype=float)
    _, _, gap, normal, _ = closest(scene.evaluate(scene.move(q)))
    assert gap == pytest.approx(0.3, abs=1e-9)
    np.testing.assert_allclose(np.abs(normal), [1.0, 0.0, 0.0], atol=1e-9)
