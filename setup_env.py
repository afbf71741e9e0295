"""Make the environment that `make` uses: a virtual one in .venv, installed with exact versions.

Needs Python 3.11 or newer with pip 22.3 or newer, or else the venv module with its own pip. Set
PHYSIM_TORCH_INDEX to take torch from an index of its own, for example PyTorch's CPU wheels:

    PHYSIM_TORCH_INDEX=https://download.pytorch.org/whl/cpu python3 setup_env.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def run(*command: str | Path) -> None:
    """Show a command and run it; end the script if it fails."""
    print("+", *command, flush=True)
    code = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"setup_env.py: the command above failed ({code}); mend the cause and run again")


def installer(folder: Path) -> list[str | Path]:
    """Create the environment and choose the pip that fills it."""
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip"]
    probe = subprocess.run([*pip, "install", "--help"], capture_output=True, text=True, check=False)
    # The outer pip is preferred: it needs no ensurepip, which Debian packages separately.
    use_outer = probe.returncode == 0 and "--python <python>" in probe.stdout
    stamp = folder / ".complete"
    # Half an environment, or one of another Python, is not worth mending; a whole one is updated.
    is_usable = stamp.is_file() and stamp.read_text() == sys.version
    options = ["--without-pip"] * use_outer + ["--clear"] * (not is_usable)
    stamp.unlink(missing_ok=True)
    run(sys.executable, "-m", "venv", *options, folder)
    return [*pip, "--python", python] if use_outer else [python, "-m", "pip"]


def main() -> None:
    """Create the environment, install into it, and leave the stamp last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".venv")
    parser.add_argument("--wheel", type=Path, help="install this file, not the source tree")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036  the reader may run any Python
        sys.exit(f"physim needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    folder = options.folder.resolve()
    constraints = ["-c", ROOT / "constraints.txt"]
    install = [*installer(folder), "install", "--disable-pip-version-check", *constraints]
    index = os.environ.get("PHYSIM_TORCH_INDEX")
    if index:
        run(*install, "--no-deps", "--index-url", index, "torch")
    elif not shutil.which("nvidia-smi"):
        print(
            "Note: no NVIDIA driver found. PyPI's torch for Linux brings CUDA, about 3 GB; for\n"
            "the CPU build set PHYSIM_TORCH_INDEX=https://download.pytorch.org/whl/cpu"
        )
    target = [options.wheel.resolve()] if options.wheel else ["pip", "-e", ".[dev]"]
    run(*install, *target)
    (folder / ".complete").write_text(sys.version)
    print(f"The environment in {folder} is ready.")


if __name__ == "__main__":
    main()
