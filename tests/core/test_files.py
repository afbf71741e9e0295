"""Output files are refused early, and then whole or untouched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from solvers.core import SettingsError, check_output, to_json, write_whole

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(path: Path, text: str, *, then: type[BaseException] | None = None) -> None:
    with write_whole(path) as partial:
        partial.write_text(text)
        if then is not None:
            raise then


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text("earlier")
    return path


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_earlier_file_alone(
    earlier: Path, stop: type[BaseException]
) -> None:
    with pytest.raises(stop):
        write(earlier, "half", then=stop)
    assert contents(earlier.parent) == {"run.json": "earlier"}


def test_a_process_that_dies_leaves_the_earlier_file_alone(earlier: Path) -> None:
    script = (
        "import os, sys\n"
        "from solvers.core import write_whole\n"
        "with write_whole(sys.argv[1]) as partial:\n"
        "    partial.write_text('half')\n"
        "    os._exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, earlier], cwd=ROOT, check=False)
    assert done.returncode == 7
    found = contents(earlier.parent)
    assert found.pop("run.json") == "earlier"
    assert list(found.values()) == ["half"]
    assert all(name.startswith(".run.") for name in found)
    write(earlier, "later")
    assert earlier.read_text() == "later"


def test_a_full_disk_leaves_the_earlier_file_alone(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write(earlier, "later")
    assert contents(earlier.parent) == {"run.json": "earlier"}


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, flush = [], os.fsync

    def watch(descriptor: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), earlier.read_text()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    with write_whole(earlier) as partial:
        partial.write_text("later")
    assert flushed == [(str(partial), "earlier"), (str(earlier.parent), "later")]


def test_two_writers_of_one_file_do_not_mix(earlier: Path) -> None:
    with write_whole(earlier) as slow:
        slow.write_text("slow")
        write(earlier, "quick")
        assert earlier.read_text() == "quick"
    assert contents(earlier.parent) == {"run.json": "slow"}


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.npz", ".npz"), ("A.NPZ", ".npz"), ("a.tar.gz", ".gz"), ("a", ""), (".a", "")],
)
def test_a_writer_sees_the_ending_in_lower_case(tmp_path: Path, name: str, ending: str) -> None:
    with write_whole(tmp_path / name) as partial:
        assert partial.parent == tmp_path
        assert partial.name.endswith(f".partial{ending}")
        partial.write_text("x")
    assert contents(tmp_path) == {name: "x"}


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with write_whole(tmp_path / "whole") as partial:
        partial.touch()
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_links_are_followed(earlier: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.json"
    link.symlink_to(earlier)
    write(link, "later")
    assert link.is_symlink()
    assert earlier.read_text() == "later"
    assert [path.name for path in link.parent.iterdir()] == ["link.json"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_what_cannot_be_written_is_refused_before_the_body(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; create it"):
        write(tmp_path / "nowhere" / "a.json", "x", then=ValueError)
    with pytest.raises(IsADirectoryError, match="folder is a folder, expected a file"):
        write(tmp_path / "folder", "x", then=ValueError)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_body_that_writes_nothing_does_not_empty_the_file(earlier: Path) -> None:
    with pytest.raises(FileNotFoundError), write_whole(earlier):
        pass
    assert contents(earlier.parent) == {"run.json": "earlier"}


@pytest.mark.parametrize(
    ("name", "endings", "words"),
    [
        ("a.txt", (".npz",), r"--save: .*a\.txt ends in '\.txt', expected \.npz"),
        ("a", (".npz", ".h5"), r"ends in '', expected one of \.npz, \.h5"),
        ("nowhere/a.npz", (".npz",), r"--save: folder .*nowhere does not exist; create it first"),
        ("folder.npz", (".npz",), r"--save: .*folder\.npz is a folder, expected a file"),
    ],
)
def test_bad_outputs_are_named(
    tmp_path: Path, name: str, endings: tuple[str, ...], words: str
) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(SettingsError, match=words):
        check_output("--save", tmp_path / name, endings)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, a folder without files")
def test_a_folder_that_takes_no_files_is_named_whatever_the_rights_say(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--save: no file can be made in folder /proc"):
        check_output("--save", "/proc/x.npz", (".npz",))
    (tmp_path / "link.npz").symlink_to("/proc/x.npz")
    with pytest.raises(SettingsError, match="in folder /proc"):
        check_output("--save", tmp_path / "link.npz")


def test_records_become_strict_json() -> None:
    record = {
        "numbers": (1, 0.1, float("nan"), [float("inf"), {"x": -float("inf")}]),
        3: None,
        "text": "NaN",
        "yes": True,
    }

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    found = json.loads(to_json(record), parse_constant=refuse)
    numbers = [1, 0.1, None, [None, {"x": None}]]
    assert found == {"numbers": numbers, "3": None, "text": "NaN", "yes": True}
    with pytest.raises(TypeError, match="JSON"):
        to_json({"x": object()})


def test_good_outputs_pass(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_output("path", str(earlier)) == earlier
    assert check_output("path", earlier.with_name("B.JSON"), (".json",)).name == "B.JSON"
    monkeypatch.chdir(earlier.parent)
    assert check_output("path", "new.txt") == Path("new.txt")
    assert list(earlier.parent.iterdir()) == [earlier]
