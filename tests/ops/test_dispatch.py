"""Which backend runs, and what is said when it is not the fastest."""

import importlib.metadata
import logging
import os
import subprocess
import sys
import time

import pytest
import torch

import stlora_kernels as sk
from stlora_kernels.ops import backends, cuda_launch, dispatch, native


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env)


def backend_of_a_call(**options) -> str:
    names = []
    choose = dispatch.choose
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "choose", lambda *a: names.append(choose(*a)) or names[-1])
        sk.nall(torch.ones(2, 3, 4), torch.ones(5, 4), None, torch.ones(3, 5, 2), torch.ones(3, 2, 4), **options)
    return names[0]


def test_the_fastest_backend_is_taken():
    ours = ("cpu", "cuda", "reference")  # triton where it is interpreted
    assert [name for name in sk.available_backends("cpu") if name in ours] == ["cpu", "reference"]
    assert backend_of_a_call() == "cpu"


def test_use_backend_holds_for_the_block_and_nests():
    with sk.use_backend("reference"):
        assert backend_of_a_call() == "reference"
        with sk.use_backend("cpu"):
            assert backend_of_a_call() == "cpu"
        assert backend_of_a_call() == "reference"
        assert backend_of_a_call(backend="cpu") == "cpu", "the argument comes first"
    assert backend_of_a_call() == "cpu"


def test_use_backend_names_what_there_is():
    with (
        pytest.raises(ValueError, match="backend: got 'cdua', expected one of cpu, cuda, triton, reference"),
        sk.use_backend("cdua"),
    ):
        pass


def test_a_backend_asked_for_is_never_replaced():
    with pytest.raises(ValueError, match="'cpu' cannot run this nall: the tensors are on meta"):
        dispatch.choose("nall", "cpu", "meta", lambda *_: None)


def test_falling_back_is_said_in_the_debug_log(caplog):
    with caplog.at_level(logging.DEBUG, "stlora_kernels"):
        assert dispatch.choose("nall", None, "meta", lambda *_: None) == "reference"
    assert "nall: backend cpu passed over: the tensors are on meta" in caplog.text


def test_environment_variables_choose_and_bad_values_are_named():
    code = "import stlora_kernels as sk; from stlora_kernels.ops import dispatch; print(dispatch._preferred)"
    assert python(code, STLORA_BACKEND="reference").stdout == "reference\n"
    use = "import torch, stlora_kernels as sk; sk.FusedNALL(3, 4, 5)(torch.ones(2, 3, 4))"
    assert "InputError: backend: got 'fast', expected one of" in python(use, STLORA_BACKEND="fast").stderr


@pytest.mark.parametrize("isa", [i for i in native.ISAS if native.kernels().isa_supported(i)])
def test_the_instruction_set_can_be_forced(isa):
    code = "from stlora_kernels.ops import native; print(native.kernels().selected_isa())"
    assert python(code, STLORA_CPU_ISA=isa).stdout == f"{isa}\n"


def test_an_instruction_set_that_is_not_there_is_named():
    use = "import torch, stlora_kernels as sk; sk.FusedNALL(3, 4, 5)(torch.ones(2, 3, 4))"
    stderr = python(use, STLORA_CPU_ISA="sse9").stderr
    assert "InputError: STLORA_CPU_ISA: instruction set: got 'sse9', expected one of" in stderr


def test_without_the_extension_the_package_says_so_once_and_runs_on_the_reference():
    code = """
import sys
sys.modules["stlora_kernels._C"] = None  # makes the import fail as if it had not been built
import torch, stlora_kernels as sk
layer = sk.FusedNALL(3, 4, 5)
layer(torch.ones(2, 3, 4)); layer(torch.ones(2, 3, 4))
print(sk.available_backends())
try:
    sk.FusedNALL(3, 4, 5, backend="cpu")(torch.ones(2, 3, 4))
except ValueError as error:
    print(error)
"""
    result = python(code, TRITON_INTERPRET="0")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("runs on its slow reference backend") == 1
    assert "('reference',)" in result.stdout
    assert "backend: 'cpu' cannot run this nall: the compiled extension stlora_kernels._C is not there" in result.stdout


def test_kernels_run_on_torchs_threads():
    """One OpenMP runtime in the process, and no thread beyond those torch started itself."""
    code = """
import os, torch, stlora_kernels as sk
torch.set_num_threads(2)
x = torch.randn(512, 512)
x @ x; (x + 1).sum()
before = len(os.listdir("/proc/self/task"))
layer = sk.FusedNALL(20, 64, 64, backend="cpu")
layer(torch.randn(300, 20, 64)).sum().backward()
print(len(os.listdir("/proc/self/task")) - before)
print(len({line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.split("/")[-1]}))
"""
    result = python(code, OMP_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr
    threads, runtimes = result.stdout.split()
    assert int(runtimes) == 1
    assert int(threads) <= 1  # autograd's own worker may have started


def test_a_forked_child_can_call_the_kernels():
    code = """
import os, torch, stlora_kernels as sk
layer, x = sk.FusedNALL(20, 64, 64, backend="cpu"), torch.randn(300, 20, 64)
expected = layer(x)
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as DataLoader workers do
    os._exit(0 if torch.equal(layer(x), expected) else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
    result = python(code)
    assert result.stdout == "0\n", result.stderr


def test_import_takes_at_most_half_a_second_more_than_torch():
    def seconds(code):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            assert python(code).returncode == 0
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds("import torch, stlora_kernels") < seconds("import torch") + 0.5


def test_the_core_needs_torch_and_numpy_alone():
    code = """
import sys, stlora_kernels
extras = {"pandas", "h5py", "yaml", "tyro", "rich", "safetensors", "triton"} & set(sys.modules)
print(sorted(extras))
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    before = python(code.replace("stlora_kernels", "torch"))
    assert result.stdout == before.stdout, "importing the package brings no optional dependency along"


@pytest.mark.parametrize(("variable", "value"), [("STLORA_BACKEND", "fast"), ("STLORA_CPU_ISA", "sse9")])
@pytest.mark.parametrize("command", ["info", "train"])
def test_commands_name_a_bad_environment_variable_in_one_line(command, variable, value, tmp_path):
    arguments = ["--stlora", "--output", str(tmp_path / "run"), "--synthetic.nodes", "4"] if command == "train" else []
    result = subprocess.run(
        [sys.executable, "-m", f"stlora_kernels.{command}", *arguments],
        capture_output=True, text=True, env=os.environ | {variable: value},
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert value in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_older_torch_without_the_dlpack_exchange_api_computes_the_same():
    code = """
import torch
del torch.Tensor.__dlpack_c_exchange_api__
import stlora_kernels as sk
torch.manual_seed(0)
x, A, B = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2, 3, 4), (3, 4, 2), (3, 2, 4)))
norm, weight = torch.ones(4).double(), torch.randn(4, 4).double().t()  # not contiguous
results = []
for backend in ("cpu", "reference"):
    y = sk.nall(x, weight, None, A, B[:1].mT.expand(3, 4, 2).mT, backend=backend)
    y = sk.nsp_layer(y, norm, weight, None, A, B, backend=backend)
    results.append((y, *torch.autograd.grad(y.square().sum(), (x, A, B))))
torch.testing.assert_close(*results)
try:
    sk.nall(x, weight, None, A, B[:2])
except ValueError as error:
    print(error)
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert "B: got shape [2, 2, 4]" in result.stdout


def test_a_triton_that_is_too_old_is_passed_over_with_its_version(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.4.1")
    assert backends._why_no_triton_here() == "triton is 3.4.1, expected 3.5 or newer"


@pytest.mark.parametrize(
    ("capability", "architectures", "reason"),
    [
        ((9, 0), ["80", "90"], None),
        ((8, 6), ["80-real", "90-real"], None),  # machine code runs on newer GPUs of its generation
        ((9, 0), ["80-real", "86-real"], "compute capability 9.0, and they were built for"),
        ((12, 1), ["80-real", "120"], None),  # PTX runs on whatever is newer
        ((8, 0), ["86"], "compute capability 8.0, and they were built for"),
        ((10, 3), ["90a", "100a-real"], "compute capability 10.3, and they were built for"),
        ((10, 0), ["100a-real"], None),
        ((9, 0), ["native"], "compute capability 9.0, and they were built for"),
        ((7, 5), ["75"], "compute capability 7.5, expected 8.0 or newer"),
    ],
)
def test_a_gpu_that_the_cuda_kernels_were_not_built_for_is_named(capability, architectures, reason):
    said = cuda_launch.why_no_code(capability, architectures)
    assert said is None if reason is None else reason in said


@pytest.mark.skipif(hasattr(native.kernels(), "cuda_architectures"), reason="built with CUDA kernels")
def test_a_package_built_without_cuda_says_so():
    assert native.why_no_cuda("cuda") == "the package was built without them"
    assert native.why_no_cuda("cpu") == "the tensors are on cpu"
