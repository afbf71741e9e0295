"""Broken and hostile input: a clear error that names the element, never a crash or a file read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from physim.model import _source as source_module
from physim.model import load_model
from solvers.core import ModelError

BALL = '<geom size=".1"/>'
GOOD = f'<mujoco><worldbody><body name="b"><joint name="j"/>{BALL}</body></worldbody></mujoco>'


def body(inside: str) -> str:
    return f'<mujoco><worldbody><body name="b">{inside}</body></worldbody></mujoco>'


BROKEN = {
    "empty": ("", "empty"),
    "blank": ("  \n", "empty"),
    "unclosed": ("<mujoco>\n<worldbody>\n</mujoco>", "line 3"),
    "half a tag": ("<mujoco>\n<worldbody", "line 2"),
    "open comment": ("<mujoco>\n<!-- <worldbody/></mujoco>", "line 2"),
    "unknown element": ("<mujoco>\n<wordbody/></mujoco>", "wordbody.*line 2"),
    "unknown attribute": (body(f'<joint kind="hinge"/>{BALL}'), "kind"),
    "sdf": ('<sdf version="1.6"/>', "<sdf>.*MJCF.*URDF"),
    "null byte": ("<mujoco>\x00</mujoco>", "null byte"),
    "nan mass": (body('<joint/><geom name="g" size=".1" mass="nan"/>'), "'g'.*mass='nan'"),
    "nan vector": (body(f'<joint axis="0 NaN 1"/>{BALL}'), "axis='0 NaN 1'"),
    "nan option": ('<mujoco><option timestep="nan"/></mujoco>', "timestep='nan'"),
    "no mass": (body("<joint/>"), "'b'.*Give the body"),
    "no inertia": (
        body('<joint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 0"/>'),
        "'b'.*positive mass and inertia",
    ),
    "indefinite": (
        body('<joint/><inertial pos="0 0 0" mass="1" fullinertia="1 1 1 2 0 0"/>'),
        "positive definite",
    ),
    "triangle": (
        body('<joint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 5"/>'),
        "balanceinertia",
    ),
    "no axis": (body(f'<joint axis="0 0 0"/>{BALL}'), "Give the axis a length"),
    "limit": (body(f'<joint name="j" range="1 -1"/>{BALL}'), "limit of joint 'j'.*1.*-1|range"),
    "equal limit": (body(f'<joint name="j" range="10 10"/>{BALL}'), "limit of joint 'j'"),
    "forced limit": (body(f'<joint name="j" limited="true" range="1 1"/>{BALL}'), "'j'"),
    "control": (
        GOOD.replace(
            "</mujoco>",
            '<actuator><motor name="a" joint="j" ctrlrange="1 -1"/></actuator></mujoco>',
        ),
        "control range of actuator 'a'",
    ),
    "force": (
        GOOD.replace(
            "</mujoco>",
            '<actuator><motor name="a" joint="j" forcerange="1 -1"/></actuator></mujoco>',
        ),
        "force range of actuator 'a'",
    ),
    "zero size": (body('<joint/><geom name="g" size="0"/>'), "size"),
    "timestep": (GOOD.replace("<worldbody>", '<option timestep="-1"/><worldbody>'), "timestep"),
    "moving plane": (body(f'<freejoint/>{BALL}<geom type="plane" size="1 1 1"/>'), "plane"),
    "missing joint": (
        GOOD.replace("</mujoco>", '<actuator><motor joint="x"/></actuator></mujoco>'),
        "'x'",
    ),
    "deep": (
        "<mujoco><worldbody>" + "<body>" * 3000 + "</body>" * 3000 + "</worldbody></mujoco>",
        "nesting",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_text_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        load_model(text)


HOSTILE = {
    "bomb": (
        '<?xml version="1.0"?>\n<!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n'
        "<mujoco model='&b;'/>",
        "line 2.*DOCTYPE",
    ),
    "external entity": (
        '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><mujoco model="&x;"/>',
        "DOCTYPE",
    ),
    "entity inside": ('<mujoco>\n<!ENTITY a "a"></mujoco>', "line 2.*ENTITY"),
    "cdata": ("<mujoco><![CDATA[ <!-- ]]></mujoco>", "CDATA"),
    "undefined entity": ('<mujoco model="&a;"/>', "entity"),
    "include in text": ('<mujoco><include file="a.xml"/></mujoco>', "text has no folder"),
    "mesh in text": ('<mujoco><asset><mesh file="/etc/passwd"/></asset></mujoco>', "no folder"),
    "plugin": (
        '<mujoco><extension><plugin plugin="mujoco.pid"/></extension></mujoco>',
        "plugins run native code",
    ),
    "hidden in a quoted comment": (
        '<mujoco model="&lt;!--"><include file="a.xml"/><default class="--&gt;"/></mujoco>',
        "no folder",
    ),
    "raw quoted comment": (
        '<mujoco model="<!--"><include file="a.xml"/><default class="-->"/></mujoco>',
        "well-formed|no folder",
    ),
    "copies": (
        f'<mujoco><worldbody><replicate count="1000"><replicate count="1000"><body>{BALL}</body>'
        "</replicate></replicate></worldbody></mujoco>",
        "unfolds to more than",
    ),
    "texture": (
        '<mujoco><asset><texture builtin="flat" width="90000" height="90000"/></asset></mujoco>',
        "pixels",
    ),
    "height field": (
        '<mujoco><asset><hfield nrow="90000" ncol="90000" size="1 1 1 1"/></asset></mujoco>',
        "cells",
    ),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        load_model(text)


def test_double_hyphen_in_comments_is_tolerated() -> None:
    assert load_model(GOOD.replace("<worldbody>", "<!-- a -- b --><worldbody>")).nv == 1


def test_line_numbers_survive_comments() -> None:
    with pytest.raises(ModelError, match="line 4"):
        load_model("<mujoco><!-- a\n-- b\n-->\n<worldbody></mujoco>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "models"
    inside.mkdir()
    (tmp_path / "secret.xml").write_text("<mujoco><option timestep='0.01'/></mujoco>")
    return inside


@pytest.mark.parametrize(
    "reference",
    [
        '<include file="../secret.xml"/>',
        '<include file="..\\secret.xml"/>',
        '<include file="&#46;&#46;/secret.xml"/>',
        '<include file="link.xml"/>',
        '<include file="{outside}"/>',
        '<include file="inner.xml"/>',
        '<asset><model name="m" file="../secret.xml"/></asset>',
        '<asset><mesh file="../secret.stl"/></asset>',
        '<compiler meshdir=".."/><asset><mesh file="secret.stl"/></asset>',
        '<compiler assetdir="/"/><asset><hfield file="etc/passwd" size="1 1 1 1"/></asset>',
        '<asset><texture type="cube" fileup="../../x.png"/></asset>',
        '<asset><mesh file="http://localhost/x.stl"/></asset>',
        '<deformable><skin file="../x.skn"/></deformable>',
    ],
)
def test_paths_out_of_the_folder_are_refused(folder: Path, reference: str) -> None:
    (folder / "link.xml").symlink_to(folder.parent / "secret.xml")
    (folder / "inner.xml").write_text('<mujoco><include file="../secret.xml"/></mujoco>')
    path = folder / "main.xml"
    outside = folder.parent / "secret.xml"
    path.write_text(f"<mujoco>{reference.format(outside=outside)}</mujoco>")
    with pytest.raises(ModelError, match=r"outside|only plain relative paths"):
        load_model(path)


def test_files_in_the_folder_and_under_root_are_read(folder: Path) -> None:
    (folder / "part.xml").write_text("<mujoco><option timestep='0.25'/></mujoco>")
    path = folder / "main.xml"
    path.write_text(GOOD.replace("<worldbody>", '<include file="./part.xml"/><worldbody>'))
    assert load_model(path).parameters()["timestep"] == 0.25
    path.write_text(GOOD.replace("<worldbody>", '<include file="../secret.xml"/><worldbody>'))
    assert load_model(path, root=folder.parent).parameters()["timestep"] == 0.01


def test_files_that_cannot_be_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "hoper.xml"
    with pytest.raises(ModelError, match=r"not found.*hoper\.xml"):
        load_model(missing)
    with pytest.raises(ModelError, match="not a file"):
        load_model(tmp_path)
    binary = tmp_path / "binary.xml"
    binary.write_bytes(b"\xff\xfe\x00<")
    with pytest.raises(ModelError, match="UTF-8"):
        load_model(binary)
    with pytest.raises(ModelError, match="int"):
        load_model(3)  # type: ignore[arg-type]
    big = tmp_path / "big.xml"
    with big.open("wb") as handle:
        os.truncate(handle.fileno(), 2**27)
    with pytest.raises(ModelError, match="128 MiB"):
        load_model(big)
    monkeypatch.setattr(source_module, "_SIZE_LIMIT", 10)
    with pytest.raises(ModelError, match="limit of 10"):
        load_model(GOOD)


def test_byte_order_mark_and_leading_space_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    path.write_text("\ufeff" + GOOD, encoding="utf-8")
    assert load_model(path).nv == 1
    assert load_model("\n  " + GOOD).nv == 1


def test_unlimited_joint_may_carry_any_range(wrap: Callable[..., str]) -> None:
    joint = f'<joint name="j" limited="false" range="1 -1"/>{BALL}'
    assert not load_model(body(joint)).joints[0].is_limited


def test_error_names_the_element() -> None:
    with pytest.raises(ModelError) as error:
        load_model(body(f'<joint name="j" range="10 10"/>{BALL}'))
    assert "'j'" in error.value.element
