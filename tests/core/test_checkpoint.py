"""Checkpoints are whole or absent, and damage is noticed."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solvers.core import (
    CheckpointError,
    SettingsError,
    capture_random_state,
    load_checkpoint,
    restore_random_state,
    save_checkpoint,
)

TENSORS = {
    "weight": torch.arange(6.0, dtype=torch.float64).reshape(2, 3).T,
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "flag": torch.tensor([True, False]),
}


def save(path: Path, **changes: object) -> Path:
    options = {"kind": "fit", "metadata": {"step": 12, "name": "wave"}} | changes
    return save_checkpoint(path, TENSORS, **options)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors")
    loaded = load_checkpoint(path, kind="fit")
    assert loaded.metadata == {"step": 12, "name": "wave"}
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_tied_weights_and_gradients(tmp_path: Path) -> None:
    shared = torch.nn.Parameter(torch.ones(3))
    path = save_checkpoint(
        tmp_path / "a", {"a": shared, "b": shared, "part": shared[1:]}, kind="fit"
    )
    loaded = load_checkpoint(path, kind="fit").tensors
    assert loaded["b"].tolist() == [1, 1, 1]
    assert loaded["part"].tolist() == [1, 1]
    assert not loaded["a"].requires_grad


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    save(tmp_path / "a")
    save(tmp_path / "a", metadata={"step": 13})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert load_checkpoint(tmp_path / "a", kind="fit").metadata == {"step": 13}


def test_a_crash_while_writing_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(path, metadata={"step": 99})
    assert [found.name for found in tmp_path.iterdir()] == ["a"]
    assert load_checkpoint(path, kind="fit").metadata["step"] == 12


def test_missing_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "nowhere" / "a")
    with pytest.raises(FileNotFoundError, match="no checkpoint file at"):
        load_checkpoint(tmp_path / "a", kind="fit")


def test_metadata_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tensors"):
        save(tmp_path / "a", metadata={"x": torch.ones(2)})
    assert not list(tmp_path.iterdir())


def test_wrong_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="kind 'fit', expected 'model'"):
        load_checkpoint(save(tmp_path / "a"), kind="model")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_of_the_numbers_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    path = save(tmp_path / "a")
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(start, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path, kind="fit")


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_cut_file_is_named(tmp_path: Path, kept: int) -> None:
    path = save(tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged"):
        load_checkpoint(path, kind="fit")


def test_other_files_and_newer_formats_are_told_apart(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="without the description"):
        load_checkpoint(tmp_path / "foreign", kind="fit")
    save_file({"x": torch.ones(2)}, tmp_path / "newer", metadata={"physim": '{"format": 99}'})
    with pytest.raises(CheckpointError, match="format 99.*update physim"):
        load_checkpoint(tmp_path / "newer", kind="fit")


@pytest.mark.parametrize("own", [True, False])
def test_random_numbers_continue_after_a_restart(tmp_path: Path, own: bool) -> None:
    generator = torch.Generator().manual_seed(5) if own else None
    with torch.random.fork_rng(devices=[]):
        torch.rand(3, generator=generator)
        path = save_checkpoint(tmp_path / "a", capture_random_state(generator), kind="fit")
        expected = torch.rand(4, generator=generator)
        fresh = torch.Generator() if own else None
        restore_random_state(load_checkpoint(path, kind="fit").tensors, fresh)
        assert torch.equal(torch.rand(4, generator=fresh), expected)


def test_random_state_of_another_source_is_refused() -> None:
    with pytest.raises(CheckpointError, match="same `generator` argument"):
        restore_random_state(capture_random_state(torch.Generator()))
