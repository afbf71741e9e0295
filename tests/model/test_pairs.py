"""Candidate pairs against MuJoCo's own filters.

With margins wider than the scene MuJoCo reports every pair that passes its filters, which makes
its list of contacts the list of candidates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from physim.model import Model, load_model
from physim.model._pairs import is_supported

KINDS = {0: "plane", 2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box"}

# MuJoCo's own remarks about the files, such as attributes that will go away.
pytestmark = pytest.mark.filterwarnings("ignore:compiler attribute")


def load(source: str | Path) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(source)


def supported(reference: mujoco.MjModel, a: int, b: int) -> bool:
    kinds = [KINDS.get(int(reference.geom_type[g]), "other") for g in (a, b)]
    return is_supported(*kinds)


def touching(reference: mujoco.MjModel, data: mujoco.MjData) -> dict[frozenset[int], tuple]:
    found = {}
    for contact in data.contact:
        a, b = (int(g) for g in contact.geom)
        if supported(reference, a, b):
            found[frozenset((a, b))] = (int(contact.dim), float(contact.friction[0]))
    return found


def our_pairs(model: Model, reference: mujoco.MjModel) -> dict[frozenset[int], float]:
    geoms = [g for g in range(reference.ngeom) if int(reference.geom_type[g]) in KINDS]
    p = model.parameters()
    found = {}
    for k, pair in enumerate(model.pairs):
        larger = max(float(p["friction"][s]) for s in (pair.shape_a, pair.shape_b))
        friction = float(p["pair_friction"][k])
        if not pair.has_own_friction:
            assert friction == larger
        found[frozenset((geoms[pair.shape_a], geoms[pair.shape_b]))] = friction
    return found


def assert_same_pairs(model: Model, reference: mujoco.MjModel) -> None:
    reference.geom_margin[:] = 100.0
    reference.pair_margin[:] = 100.0
    if hasattr(reference, "body_margin"):
        reference.body_margin[:] = 100.0
    data = mujoco.MjData(reference)
    mujoco.mj_kinematics(reference, data)
    mujoco.mj_comPos(reference, data)
    mujoco.mj_collision(reference, data)
    expected, ours = touching(reference, data), our_pairs(model, reference)
    assert set(ours) == set(expected)
    for pair, (dimension, friction) in expected.items():
        assert ours[pair] == (0.0 if dimension == 1 else friction)


SCENE = """<mujoco><option>{flag}</option><worldbody>
  <geom name="floor" type="plane" size="1 1 1"/><geom name="rock" size=".2"/>
  <body name="a" pos="0 0 1"><freejoint/><geom name="a" size=".1" friction="0.3"/>
    <body name="a1" pos=".5 0 0"><geom name="a1" type="capsule" size=".1 .1" friction="0.7"/>
      <body name="a2" pos=".5 0 0"><joint/><geom name="a2" size=".1"/>
        <body name="a3" pos=".5 0 0"><geom name="a3" size=".1"/>
          <body name="a4" pos=".5 0 0"><joint/><geom name="a4" size=".1" friction="2"/>
            <geom name="ghost" size=".1" contype="0" conaffinity="0"/></body></body></body></body>
  </body>
  <body name="post" pos="2 0 0"><geom name="post" size=".1"/>
    <body name="arm" pos="0 0 1"><joint/>
      <geom name="arm" size=".1" contype="2" conaffinity="1"/></body></body>
  <body name="b" pos="0 2 1"><joint/>
    <geom name="b" type="capsule" size=".1 .1" condim="1" friction="0.6"/></body>
  <body name="c" pos="0 3 1"><joint/><geom name="c" size=".1" priority="2" friction="0.25"/></body>
  <body name="d" pos="0 4 1"><joint/><geom name="d" size=".1" condim="1" friction="0.2"/></body>
  </worldbody><contact>{contact}</contact></mujoco>"""
CONTACTS = (
    "",
    '<exclude body1="a" body2="b"/><exclude body1="c" body2="a4"/>',
    '<pair geom1="a1" geom2="a2" friction="0.9 0.9 0.1 0 0"/><pair geom1="d" geom2="ghost"/>',
    '<pair geom1="a" geom2="floor" condim="1"/><exclude body1="a" body2="world"/>',
)


@pytest.mark.parametrize("contact", CONTACTS)
@pytest.mark.parametrize("flag", ["", '<flag filterparent="disable"/>'])
def test_filters_are_mujocos(contact: str, flag: str) -> None:
    text = SCENE.format(contact=contact, flag=flag)
    model = load(text)
    assert len(model.pairs) > 20
    assert_same_pairs(model, mujoco.MjModel.from_xml_string(text))


def test_filters_are_mujocos_on_locomotion_models(locomotion_file: Path) -> None:
    model = load(locomotion_file)
    assert_same_pairs(model, mujoco.MjSpec.from_file(str(locomotion_file)).compile())


def test_every_contact_at_random_poses_is_a_pair(model_file: Path) -> None:
    reference = mujoco.MjSpec.from_file(str(model_file)).compile()
    model = load(model_file)
    data, random = mujoco.MjData(reference), np.random.default_rng(3)
    ours = our_pairs(model, reference)
    for _ in range(10):
        data.qpos[:] = reference.qpos0 + random.normal(size=reference.nq)
        mujoco.mj_normalizeQuat(reference, data.qpos)
        mujoco.mj_kinematics(reference, data)
        mujoco.mj_comPos(reference, data)
        mujoco.mj_collision(reference, data)
        assert set(touching(reference, data)) <= set(ours)


def test_plane_comes_first_and_explicit_pairs_are_marked() -> None:
    model = load(SCENE.format(contact=CONTACTS[3], flag=""))
    for pair in model.pairs:
        kinds = [model.shapes[s].kind for s in (pair.shape_a, pair.shape_b)]
        assert kinds[1] != "plane"
        assert kinds[0] == "plane" or pair.shape_a < pair.shape_b
    explicit = [pair for pair in model.pairs if pair.explicit]
    assert len(explicit) == 1
    assert explicit[0].has_own_friction
    assert model.shapes[explicit[0].shape_a].name == "floor"
    assert not model.shape("ghost").collides
    assert model.shape("floor").collides


def test_unsupported_pairs_are_counted_not_simulated(wrap: Callable[..., str]) -> None:
    boxes = "".join(
        f'<body pos="{k} 0 0"><freejoint/><geom type="box" size=".1 .1 .1"/></body>'
        for k in range(3)
    )
    model = load(wrap('<geom type="plane" size="1 1 1"/>' + boxes))
    assert len(model.pairs) == 3
    (warning,) = model.warnings
    assert warning.element == "pairs box-box"
    assert warning.message.startswith("3 pairs")
    assert warning.changes_dynamics


@pytest.mark.parametrize("twin", ["left", "right", "wall", "rock", "floor"])
def test_listed_pairs_that_cannot_move_against_each_other_feel_nothing(
    wrap: Callable[..., str], twin: str
) -> None:
    other = {"wall": "rock", "rock": "floor", "floor": "ground"}.get(twin, "middle")
    ball = '<geom name="{}" size=".1" pos="{} 0 0"/>'
    world = (
        '<geom name="floor" type="plane" size="1 1 1"/><geom name="ground" type="plane" '
        'size="1 1 1"/><geom name="wall" size=".1"/><body><geom name="rock" size=".2"/></body>'
        f'<body pos="0 0 9"><freejoint/>{ball.format("middle", 0)}{ball.format("left", 0.1)}'
        f"<body>{ball.format('right', -0.1)}</body></body>"
    )
    listed = f'<contact><pair geom1="{twin}" geom2="{other}"/></contact>'
    model = load(wrap(world, listed))
    assert not model.warnings
    assert not any(pair.explicit for pair in model.pairs)
    assert model.pairs == load(wrap(world)).pairs
