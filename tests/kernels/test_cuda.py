"""CUDA: texts compile for GPUs without one, mean on the host what they mean on the CPU, and run.

The text for CUDA differs from the CPU's in what the compiler calls its builtins. Compiled for the
host it must give the same bits, and NVRTC must accept it for each architecture. On a GPU its
results are compared with the CPU's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solvers.core import SettingsError, ShapeError
from solvers.kernels import (
    CudaBinary,
    Kernel,
    KernelBuildError,
    _cuda,
    _request,
    aligned_empty,
    build_kernel,
    compile_cuda,
    cuda_architectures,
    pack,
    prelude,
    unpack,
)
from solvers.kernels._launch_cuda import CudaKernel

needs_compiler = pytest.mark.skipif(
    not {80, 90} <= set(cuda_architectures()), reason="warp-lang here has no CUDA compiler"
)
architectures = pytest.mark.parametrize("architecture", [80, 90])

POINTS = [("points", "V*"), ("values", "V*")]


def run(kernel: Kernel, x: np.ndarray, outputs: int, device: str = "cpu") -> np.ndarray:
    points = pack(torch.from_numpy(x).to(device), 1)
    values = aligned_empty(len(x), outputs, 1, device=device)
    kernel(len(x), points, values)
    return unpack(values, len(x)).cpu().numpy()


# ---- without a GPU: what the compiler says ---------------------------------------------------


@needs_compiler
@architectures
@pytest.mark.parametrize("seed", range(3))
def test_traced_functions_compile(
    seed: int, architecture: int, random_body: Callable[..., str]
) -> None:
    body = random_body(seed)
    binary = compile_cuda("traced", body, POINTS, architecture=architecture)
    assert binary.code[:4] == b"\x7fELF"
    assert 0 < binary.registers <= 255
    assert binary.local_bytes == 0  # straight-line code of this size lives in registers


@needs_compiler
@architectures
def test_every_function_of_the_prelude_compiles(functions: str, architecture: int) -> None:
    defined = set(re.findall(r"const auto (v\w+)", prelude(1)))
    rows = """{ const double from[2] = {1.0, 2.0}; double to[2]; V kept[2];
      const double* sources[1] = {from}; double* targets[1] = {to};
      vgather_rows(sources, 2, kept); vscatter_rows(kept, 2, targets, 1); }"""
    assert defined <= set(re.findall(r"v\w+", functions + rows))
    compile_cuda("functions", functions + rows, POINTS, architecture=architecture)


@needs_compiler
def test_all_kinds_of_arguments_compile() -> None:
    body = "if (flags[block] < n) continue; y[block] = factor * x[block]; flags[block] = n;"
    arguments = [
        ("x", "V*"),
        ("y", "double*"),
        ("flags", "int*"),
        ("factor", "double"),
        ("n", "int"),
    ]
    compile_cuda("kinds", body, arguments, architecture=90)


@needs_compiler
@architectures
def test_local_memory_holds_what_has_run_time_indices(architecture: int) -> None:
    def binary(size: int) -> CudaBinary:
        body = f"""
          V stack[{size}];
          for (int i = 0; i < {size}; ++i) stack[i] = points[i] * block;
          values[block] = stack[(int)points[block]];
        """
        return compile_cuda("stack", body, POINTS, architecture=architecture)

    small, large = binary(1000), binary(3000)
    assert small.local_bytes == pytest.approx(8000, abs=64)
    assert large.local_bytes == pytest.approx(24000, abs=64)
    assert len(small.code) > 1000


@needs_compiler
def test_binary_is_saved(tmp_path: Path) -> None:
    binary = compile_cuda("twice", "values[block] *= 2.0;", POINTS, architecture=80)
    binary.save(tmp_path / "twice.cubin")
    assert (tmp_path / "twice.cubin").read_bytes() == binary.code
    assert "twice for sm_80" in repr(binary)


@needs_compiler
def test_complaints_of_the_cuda_compiler_reach_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHYSIM_CACHE", str(tmp_path))
    body = "values[block] = 1.0;\nvalues[block] = undeclared_name;"
    with pytest.raises(KernelBuildError, match="undeclared_name") as caught:
        compile_cuda("broken", body, POINTS, architecture=90)
    text = Path(caught.value.source).read_text()
    number = int(re.search(r"\.cpp\((\d+)\)", str(caught.value))[1])
    assert "undeclared_name" in text.splitlines()[number - 1]
    assert capfd.readouterr().err == ""


def test_wrong_requests_are_named() -> None:
    with pytest.raises(SettingsError, match=r"architecture is 1,.*90"):
        compile_cuda("a", "", [], architecture=1)
    with pytest.raises(SettingsError, match="'float'"):
        compile_cuda("a", "", [("x", "float")], architecture=90)
    with pytest.raises(SettingsError, match="device is 'cuda:1'.*'cuda'"):
        build_kernel("a", "", [], lanes=1, device="cuda:1")
    with pytest.raises(SettingsError, match="lanes is 4, expected 1"):
        build_kernel("a", "", [], lanes=4, device="cuda")
    with pytest.raises(ValueError, match="'tpu'"):
        prelude(1, device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_kernel_for_cuda_needs_a_gpu() -> None:
    with pytest.raises(SettingsError, match="no GPU.*compile_cuda"):
        build_kernel("a", "", [], lanes=1, device="cuda")


# ---- without a GPU: what is put on it --------------------------------------------------------


class Puts(list[tuple[torch.device, list[Any]]]):
    def __call__(self, device: torch.device, values: Any) -> None:
        self.append((device, list(values)))


def cuda_kernel(device: str) -> tuple[CudaKernel, Puts]:
    arguments = (("x", "V*"), ("factor", "double"))
    request = _request.KernelRequest("scale", "", arguments, 1, "cuda", {"x": 3})
    puts = Puts()
    kernel = CudaKernel(request, puts)
    kernel.device = device
    kernel._converters = [kernel._converter(*argument) for argument in arguments]
    return kernel, puts


def test_launches_of_a_cuda_kernel() -> None:
    # a tensor without storage stands for one on a GPU; its address is 0
    kernel, puts = cuda_kernel("meta")
    x = torch.empty(7, 3, 1, dtype=torch.float64, device="meta")
    kernel(2, x, 1.5, first_block=5)
    kernel.launch_threads(7, 4, x, 2.5)
    kernel(0, x, 1.0)
    assert puts == [(x.device, [0, 1.5, 5, 7]), (x.device, [0, 2.5, 0, 7])]
    with pytest.raises(ShapeError, match="'x' has 21 numbers, expected 3 for each of 8 blocks"):
        kernel(8, x, 1.0)
    with pytest.raises(SettingsError, match="threads is 0"):
        kernel.launch_threads(1, 0, x, 1.0)
    assert len(puts) == 2


def test_cuda_kernel_refuses_arrays_of_the_host() -> None:
    kernel, puts = cuda_kernel("cuda")
    with pytest.raises(TypeError, match=r"'x'.*on cpu, expected torch.float64 on cuda.*\.to\(\)"):
        kernel(1, aligned_empty(1, 3, 1), 1.0)
    with pytest.raises(TypeError, match="'x' is ndarray, expected a CUDA tensor"):
        kernel(1, np.zeros(3), 1.0)
    assert not puts


def test_launches_fit_the_signatures_of_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU the calls are not made, but their arguments must be ones that Warp takes."""
    import warp

    calls: dict[str, dict[str, Any]] = {}

    def record(name: str) -> None:
        signature = inspect.signature(getattr(warp, name))

        def call(*values: Any, **options: Any) -> str:
            calls[name] = signature.bind(*values, **options).arguments
            return f"result of {name}"

        monkeypatch.setattr(warp, name, call)

    for name in ("load_module", "launch", "device_from_torch", "stream_from_torch"):
        record(name)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    device = torch.device("cuda:1")
    request = _request.KernelRequest("twice", "x[block] *= 2.0;", (("x", "V*"),), 1, "cuda", {})
    put = _cuda.load_function(request.key, request.source, request.parameters, device)
    put(device, [4096, 5, 12])
    assert calls["device_from_torch"]["torch_device"] == device
    assert calls["load_module"]["device"] == "result of device_from_torch"
    assert calls["stream_from_torch"]["stream_or_device"] == "stream of cuda:1"
    launch = calls["launch"]
    assert launch["stream"] == "result of stream_from_torch"
    assert (launch["dim"], launch["inputs"]) == (7, [4096, 5, 12])
    assert len(launch["kernel"].adj.args) == 3
    assert launch["block_dim"] == calls["load_module"]["block_dim"]  # or it is compiled again


@pytest.mark.parametrize("lanes", [1, 4])
def test_lane_blocks_stay_on_the_device(lanes: int) -> None:
    x = torch.empty(6, 3, dtype=torch.float64, device="meta")
    assert pack(x, lanes).device == unpack(pack(x, lanes), 6).device == x.device


# ---- the text for CUDA, compiled for the host ------------------------------------------------


def test_functions_mean_the_same(
    functions: str, function_points: np.ndarray, device_text: Callable[..., Kernel]
) -> None:
    kernel, twin = (
        build_kernel("functions", functions, POINTS, lanes=1),
        device_text(functions, POINTS),
    )
    assert kernel.source != twin.source
    x = function_points
    np.testing.assert_array_equal(run(twin, x, 20), run(kernel, x, 20))


@pytest.mark.parametrize("seed", range(5))
def test_traced_functions_mean_the_same(
    seed: int, device_text: Callable[..., Kernel], random_body: Callable[..., str]
) -> None:
    body = random_body(seed)
    x = np.random.default_rng(seed).normal(size=(200, 5))
    kernel = build_kernel("traced", body, POINTS, lanes=1)
    np.testing.assert_array_equal(run(device_text(body, POINTS), x, 4), run(kernel, x, 4))


# ---- on a GPU --------------------------------------------------------------------------------


@pytest.mark.gpu
def test_functions_on_a_gpu(functions: str, function_points: np.ndarray, gpu: str) -> None:
    x = function_points
    kernel = build_kernel("functions", functions, POINTS, lanes=1)
    on_gpu = build_kernel("functions", functions, POINTS, lanes=1, device="cuda")
    # the error bounds of both sides and the freedom to fuse
    np.testing.assert_allclose(run(on_gpu, x, 20, gpu), run(kernel, x, 20), rtol=2e-15)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(5))
def test_traced_functions_on_a_gpu(seed: int, gpu: str, random_body: Callable[..., str]) -> None:
    body = random_body(seed, smooth=True)
    x = np.random.default_rng(seed).normal(size=(1000, 5))
    kernel = build_kernel("traced", body, POINTS, lanes=1)
    on_gpu = build_kernel("traced", body, POINTS, lanes=1, device="cuda")
    np.testing.assert_allclose(run(on_gpu, x, 4, gpu), run(kernel, x, 4), rtol=1e-11, atol=1e-11)


@pytest.mark.gpu
def test_only_the_blocks_asked_for_run_on_a_gpu(gpu: str) -> None:
    kernel = build_kernel("count", "values[block] += 1.0;", POINTS, lanes=1, device="cuda")
    values = aligned_empty(100, 1, 1, device=gpu).zero_()
    kernel(37, values, values, first_block=11)
    expected = torch.zeros(100).index_fill(0, torch.arange(11, 48), 1.0)
    torch.testing.assert_close(values.flatten().cpu(), expected.double(), rtol=0, atol=0)


@pytest.mark.gpu
def test_launches_follow_the_current_stream(gpu: str) -> None:
    body = "for (int i = 0; i < 200000; ++i) values[block] = vsqrt(values[block] + 1.0);"
    kernel = build_kernel("slow", body, POINTS, lanes=1, device="cuda")
    values = aligned_empty(64, 1, 1, device=gpu).zero_()
    stream = torch.cuda.Stream(gpu)
    stream.wait_stream(torch.cuda.current_stream(gpu))
    with torch.cuda.stream(stream):
        kernel(64, values, values)
        doubled = 2.0 * values  # on the same stream: waits for the kernel
    stream.synchronize()
    golden = (1.0 + 5.0**0.5) / 2.0
    np.testing.assert_allclose(doubled.cpu(), 2.0 * golden, rtol=1e-14)
