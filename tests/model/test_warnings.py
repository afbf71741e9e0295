"""One small model for each thing that is not honoured; it must be said, and refused if strict."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from physim.model import Model, load_model
from solvers.core import ModelError, PhysimWarning

BALL = '<geom size=".1"/>'
BODY = f'<body name="b"><joint name="j" axis="0 1 0"/>{BALL}</body>'
TWO = (
    f'<body name="b"><joint name="j"/>{BALL}'
    f'<body name="c" pos="1 0 0"><joint name="k"/>{BALL}</body></body>'
)
ON_FLOOR = '<geom type="plane" size="1 1 1"/><body name="b" pos="0 0 1"><freejoint/>{}</body>'
TENDON = '<tendon><fixed name="t" {}><joint joint="j" coef="1"/></fixed></tendon>'
MESH = '<asset><mesh name="m" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/></asset>'
HFIELD = '<asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1" elevation="0 1 1 0"/></asset>'


def actuator(text: str) -> str:
    return f"<actuator>{text}</actuator>"


# what: (world, rest, element, part of the message)
DYNAMIC = {
    "tendon spring": (BODY, TENDON.format('stiffness="1"'), "tendon 't'", "a spring"),
    "tendon damper": (BODY, TENDON.format('damping="1"'), "tendon 't'", "a damper"),
    "tendon limit": (BODY, TENDON.format('range="0 1"'), "tendon 't'", "a length limit"),
    "tendon friction": (BODY, TENDON.format('frictionloss="1"'), "tendon 't'", "friction"),
    "equality": (
        TWO,
        '<equality><joint name="e" joint1="j" joint2="k"/></equality>',
        "equality 'e'",
        "joint constraint is left out",
    ),
    "mesh": (ON_FLOOR.format('<geom type="mesh" mesh="m"/>'), MESH, "pairs mesh-plane", "1 pair"),
    "height field": (
        '<geom type="hfield" hfield="h"/>' + BODY,
        HFIELD,
        "pairs hfield-sphere",
        "Replace the hfield",
    ),
    "ellipsoid-sphere": (
        BODY + '<body pos="1 0 0"><joint/><geom type="ellipsoid" size=".1 .2 .3"/></body>',
        "",
        "pairs ellipsoid-sphere",
        "1 pair",
    ),
    "rolling": (ON_FLOOR.format('<geom size=".1" condim="6"/>'), "", "contact condim", "torsional"),
    "anisotropic": (
        ON_FLOOR.format('<geom name="g" size=".1"/>').replace("<geom", '<geom name="f"', 1),
        '<contact><pair geom1="f" geom2="g" friction="1 0.5 0 0 0"/></contact>',
        "contact friction",
        "isotropic",
    ),
    "adhesion": (
        ON_FLOOR.format(BALL),
        actuator('<adhesion name="a" body="b" ctrlrange="0 1"/>'),
        "actuator 'a'",
        "body transmission",
    ),
    "tendon actuator": (
        BODY,
        TENDON.format("") + actuator('<motor name="a" tendon="t"/>'),
        "actuator 'a'",
        "tendon transmission",
    ),
    "site actuator": (
        BODY.replace("</body>", '<site name="s"/></body>'),
        actuator('<motor name="a" site="s"/>'),
        "actuator 'a'",
        "site transmission",
    ),
    "slider crank": (
        TWO.replace("</body></body>", '<site name="s"/></body><site name="r"/></body>'),
        actuator('<motor name="a" cranksite="r" slidersite="s" cranklength="1"/>'),
        "actuator 'a'",
        "slidercrank transmission",
    ),
    "parent axes": (
        f'<body><joint name="j" type="ball"/>{BALL}</body>',
        actuator('<motor name="a" jointinparent="j"/>'),
        "actuator 'a'",
        "jointinparent",
    ),
    "muscle": (
        BODY,
        actuator('<muscle name="a" joint="j" lengthrange="0 1"/>'),
        "actuator 'a'",
        "muscle",
    ),
    "integrator": (
        BODY,
        actuator('<general name="a" joint="j" dyntype="integrator"/>'),
        "actuator 'a'",
        "of type integrator",
    ),
    "filter": (
        BODY,
        actuator('<general name="a" joint="j" dyntype="filter" dynprm="0.1"/>'),
        "actuator 'a'",
        "filter is left out",
    ),
    "affine gain": (
        BODY,
        actuator('<general name="a" joint="j" gaintype="affine" gainprm="1 2 0"/>'),
        "actuator 'a'",
        "gain depends",
    ),
    "servo of a ball": (
        f'<body><joint name="j" type="ball"/>{BALL}</body>',
        actuator('<position name="a" joint="j" kp="2" gear="1 0 0"/>'),
        "actuator 'a'",
        "feedback of position and velocity is left out on a ball joint",
    ),
    "damper of a free body": (
        ON_FLOOR.format(BALL).replace("<freejoint/>", '<freejoint name="j"/>'),
        actuator('<velocity name="a" joint="j" kv="2" gear="1 0 0"/>'),
        "actuator 'a'",
        "feedback of position and velocity is left out on a free joint",
    ),
    "user bias": (
        BODY,
        actuator('<general name="a" joint="j" biastype="user"/>'),
        "actuator 'a'",
        "bias of type user",
    ),
    "gravity compensation": (
        BODY.replace('name="b"', 'name="b" gravcomp="1"'),
        "",
        "body gravcomp",
        "b",
    ),
    "fluid": (BODY, '<option density="1000"/>', "option density", "fluid"),
    "viscosity": (BODY, '<option viscosity="1"/>', "option viscosity", "fluid"),
    "override": (
        ON_FLOOR.format(BALL),
        '<option><flag override="enable"/></option>',
        "option override",
        "override",
    ),
    "sleep": (
        ON_FLOOR.format(BALL).replace('name="b"', 'name="b" sleep="init"'),
        '<option><flag sleep="enable"/></option>',
        "option sleep",
        "awake here (1)",
    ),
    "ball limit": (
        f'<body><joint name="j" type="ball" range="0 1"/>{BALL}</body>',
        '<compiler angle="radian"/>',
        "joint 'j'",
        "limit of a ball joint",
    ),
    "actuator force range": (
        BODY.replace('name="j"', 'name="j" actuatorfrcrange="-1 1"'),
        actuator('<motor joint="j"/>'),
        "joint 'j'",
        "actuatorfrcrange",
    ),
    "flex": (
        BODY,
        '<deformable><flex name="f" dim="1" body="b b" vertex="0 0 0 1 0 0" element="0 1"/>'
        "</deformable>",
        "flex",
        "deformable",
    ),
}
NOTES = {
    "inert tendon": (BODY, TENDON.format(""), "tendon 't'", "left out"),
    "inactive equality": (
        TWO,
        '<equality><joint name="e" joint1="j" joint2="k" active="false"/></equality>',
        "equality 'e'",
        "inactive",
    ),
    "mocap": (BODY + f'<body mocap="true" pos="9 0 0">{BALL}</body>', "", "mocap", "stay"),
    "sensor": (BODY, '<sensor><clock name="t"/></sensor>', "sensor 't'", "kind clock"),
    "visual mesh": (
        BODY + '<geom type="mesh" mesh="m" contype="0" conaffinity="0"/>',
        MESH,
        "mesh",
        "not among the shapes",
    ),
    "solref": (ON_FLOOR.format('<geom size=".1" solref=".1 1"/>'), "", "solref, solimp", "hard"),
    "margin": (ON_FLOOR.format('<geom size=".1" margin=".01"/>'), "", "geom margin", "10 mm"),
    "joint margin": (
        BODY.replace('name="j"', 'name="j" range="-1 1" margin="0.1"'),
        "",
        "joint margin",
        "limit itself",
    ),
}


def load(text: str) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(text)


@pytest.mark.parametrize(("world", "rest", "element", "message"), DYNAMIC.values(), ids=DYNAMIC)
def test_what_changes_the_motion_is_said_once(
    wrap: Callable[..., str], world: str, rest: str, element: str, message: str
) -> None:
    text = wrap(world, rest)
    with pytest.warns(PhysimWarning):
        model = load_model(text)
    found = [warning for warning in model.warnings if warning.changes_dynamics]
    assert [warning.element for warning in found] == [element]
    assert message in found[0].message
    with pytest.raises(ModelError, match="strict=True") as error:
        load_model(text, strict=True)
    assert str(found[0]) in str(error.value)


@pytest.mark.parametrize(("world", "rest", "element", "message"), NOTES.values(), ids=NOTES)
def test_what_does_not_is_noted_and_passes_strict(
    wrap: Callable[..., str], world: str, rest: str, element: str, message: str
) -> None:
    model = load_model(wrap(world, rest), strict=True)
    (note,) = model.warnings
    assert note.element == element
    assert message in note.message
    assert not note.changes_dynamics


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ('stiffness="1 2"', "spring is nonlinear"),
        ('damping="1 2"', "damper is nonlinear"),
        ('stiffness="1" springyield="1"', "plastically"),
    ],
)
def test_nonlinear_joint_forces_are_said(
    wrap: Callable[..., str], attribute: str, message: str
) -> None:
    try:
        model = load(wrap(BODY.replace('name="j"', f'name="j" {attribute}')))
    except ModelError as error:
        pytest.skip(f"this version of MuJoCo has no such attribute: {error}")
    (warning,) = model.warnings
    assert message in warning.message
    assert warning.changes_dynamics
    assert model.parameters()["stiffness"][0] in (0.0, 1.0)


def test_an_actuator_that_cannot_act_keeps_its_place_in_the_control(
    wrap: Callable[..., str],
) -> None:
    rest = TENDON.format("") + actuator('<motor name="a" tendon="t"/><motor name="b" joint="j"/>')
    model = load(wrap(BODY, rest))
    assert model.nu == 2
    assert model.actuator("a").dofs == ()
    assert model.actuator("a").joint == -1
    assert model.actuator("b").dofs == (0,)


def test_strict_lists_all(wrap: Callable[..., str]) -> None:
    text = wrap(BODY, '<option density="1"/>' + TENDON.format('damping="1"'))
    with pytest.raises(ModelError, match=r"(?s)tendon 't'.*option density") as error:
        load_model(text, strict=True)
    assert error.value.element == "tendon 't'"


def test_the_same_about_several_elements_is_said_once(wrap: Callable[..., str]) -> None:
    tendons = "".join(f'<fixed name="t{k}"><joint joint="j" coef="1"/></fixed>' for k in range(3))
    model = load(wrap(BODY, f"<tendon>{tendons}</tendon>"))
    assert [warning.element for warning in model.warnings] == ["tendons 't0', 't1', 't2'"]


def test_plain_model_has_no_warnings(wrap: Callable[..., str]) -> None:
    assert load_model(wrap(ON_FLOOR.format(BALL)), strict=True).warnings == ()


def test_locomotion_models_are_honoured_entirely(locomotion_file: Path) -> None:
    assert load_model(locomotion_file, strict=True).nv > 0


def test_all_public_models_load(model_file: Path) -> None:
    assert load(model_file) is not None


def test_the_documented_list_is_current(model_file: Path) -> None:
    """`docs/list_models.py` must be run again when a warning changes."""
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    section = page.split(f"### {model_file.parent.name}/{model_file.name}\n")[1].split("\n### ")[0]
    for warning in load(model_file).warnings:
        if warning.element != "compiler":
            assert warning.message in section


def test_loading_leaves_no_log_file(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MuJoCo writes its warnings to the working folder unless they are caught."""
    monkeypatch.chdir(tmp_path)
    load(model_file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("attribute", "word"), [('stiffness="3"', "spring"), ('frictionloss="0.2"', "dry friction")]
)
def test_ball_joint_forces_without_support_are_said(attribute: str, word: str) -> None:
    text = f"""<mujoco><worldbody><body><joint name="b" type="ball" {attribute}/>
      <geom size="0.1" mass="1"/></body></worldbody></mujoco>"""
    with pytest.warns(PhysimWarning):
        model = load_model(text)
    assert [w.element for w in model.warnings if w.changes_dynamics and word in w.message] == [
        "joint 'b'"
    ]
