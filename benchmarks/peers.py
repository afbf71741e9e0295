"""A second environment for peers that fight our pins: ``python benchmarks/peers.py [FOLDER]``.

It borrows what this environment has, torch above all, and adds the peers, so that both sides of a
comparison run on the same libraries. Benchmarks look for it in ``PHYSIM_PEERS``, else in the cache
folder of the user; a peer that is not there is a row with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["Peer", "PeerError", "build_environment", "find_peer", "peers_folder"]

PEERS = {"deepxde": "deepxde==1.15.0"}
SCRIPTS = Path(__file__).resolve().parent / "peer_scripts"
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


@dataclass(frozen=True)
class Peer:
    """A peer in the second environment.

    Attributes:
        name: Its distribution.
        version: Version that is installed; empty if it is not.
        python: Interpreter of the environment.
        reason: Why it is missing, and what to do; empty if it is there.
    """

    name: str
    version: str
    python: Path
    reason: str = ""

    @contextmanager
    def start(self, script: str, settings: Mapping[str, Any]) -> Iterator[Conversation]:
        """Run a script of ``peer_scripts`` with one thread; it is ended with the block.

        Args:
            script: Name of the file without its ending.
            settings: Given to it as JSON.
        """
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                [str(self.python), str(SCRIPTS / f"{script}.py"), json.dumps(dict(settings))],
                env={**os.environ, **dict.fromkeys(threads, "1")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            try:
                yield Conversation(process, complaints)
            finally:
                process.kill()
                process.communicate()


class PeerError(RuntimeError):
    """A peer's script ended without an answer."""


class Conversation:
    """Lines to a peer's script, JSON lines back."""

    def __init__(self, process: subprocess.Popen[str], complaints: IO[str]) -> None:
        self._process, self._complaints = process, complaints

    def ask(self) -> None:
        """Ask for the next answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # Why it ended is told when its answer is missing.
            pass

    def answer(self) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            PeerError: If the script has ended, with the last line of its complaints.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._complaints.seek(0)
            lines = self._complaints.read().strip().splitlines() or ["no answer"]
            raise PeerError(lines[-1])
        found: dict[str, Any] = json.loads(line)
        return found


def peers_folder() -> Path:
    """Where the second environment is, or would be."""
    chosen = os.environ.get("PHYSIM_PEERS")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "physim" / "peers"


def find_peer(name: str) -> Peer:
    """Look for a peer; nothing is installed.

    Args:
        name: Key of ``PEERS``.
    """
    folder = peers_folder()
    python = _interpreter(folder)
    advice = f"run: python benchmarks/peers.py {folder}"
    if not python.exists():
        return Peer(name, "", python, f"no environment of peers in {folder}; {advice}")
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return Peer(name, "", python, f"{name} is not installed in {folder}; {advice}")
    return Peer(name, found.stdout.strip(), python)


def build_environment(folder: Path) -> None:
    """Make the second environment, or bring it up to date.

    Args:
        folder: Where.
    """
    if not _interpreter(folder).exists():
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = _interpreter(folder)
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run(
        [str(python), "-c", query], capture_output=True, text=True, check=True
    ).stdout.strip()
    ours = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    # Paths of a .pth file come after the packages of the environment, which therefore win.
    (Path(packages) / "borrowed.pth").write_text("\n".join(sorted(ours)) + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install",
         "-c", str(CONSTRAINTS), *PEERS.values()],
        check=True,
    )  # fmt: skip


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.environ["PHYSIM_PEERS"] = sys.argv[1]
        print(f"benchmarks find it with PHYSIM_PEERS={sys.argv[1]}")
    build_environment(peers_folder())
    for peer in map(find_peer, PEERS):
        print(peer.reason or f"{peer.name} {peer.version} in {peers_folder()}")
