"""What only the emulator can show of the CUDA kernels: any order of threads, and GPUs of several sizes."""

import logging

import emulator
import pytest
import torch
from nall_cases import Case
from nsp_cases import Stack

import stlora_kernels as sk
from stlora_kernels.ops import backends, cuda_launch, dispatch, gpu, philox

# Several blocks share the rows of every gradient; some adapters have no rows; more units than blocks, and fewer.
WORK = [
    Case(70, 3, 40, 24, 4, adapters=2, dropout_p=0.3),
    Case(3, 23, 16, 8, 4, activation="relu"),
    Stack(33, 3, 20, 3, 2, dropout_p=0.2),
    Stack(66, 5, 24, 2, 2, adapters=2),
]


@pytest.fixture(autouse=True)
def emulated():
    """A GPU of two multiprocessors, with an H100's shared memory."""
    emulator.emulate()
    yield
    emulator.emulate()


@pytest.mark.parametrize("case", WORK, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_same_bits_in_any_order_of_threads_and_blocks(case, dtype, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))  # what nobody wrote yet
    tensors = case.tensors(dtype)
    expected = case.run(emulator.NAME, tensors)
    for seed in range(1, 6):
        emulator.emulate(seed=seed, resident=1 + seed % 3)
        for name, value in case.run(emulator.NAME, tensors).items():
            assert torch.equal(value, expected[name]), (seed, name)


@pytest.mark.parametrize("case", WORK, ids=str)
def test_whatever_fits_gives_the_same_numbers(case):
    """Tiles that stay, that are there twice, or once, as a GPU has room for; the workspace may be cut differently."""
    tensors = case.tensors(torch.float16)
    expected = case.run(emulator.NAME, tensors)
    emulator.load().launches()
    seen = set()
    for kib in range(16, 100, 8):
        emulator.emulate(shared=kib << 10)
        try:
            ours = case.run(emulator.NAME, tensors)
        except ValueError as refused:
            if "do not fit shared memory" not in str(refused):
                raise
            continue
        seen |= {shared for _, _, shared, _, _ in emulator.load().launches()}
        for name, value in ours.items():
            assert torch.equal(value, expected[name]), (kib, name)
    assert len(seen) >= 3, "forward and backward, and one of them in more than one way"


def test_the_features_that_the_readme_promises_for_each_gpu():
    expected = {99: (144, 64), 163: (256, 144), 227: (368, 208)}
    for kib, most in expected.items():
        gpu_of = (100, kib << 10)
        for dtype, features in zip(("bfloat16", "float32"), most, strict=True):
            kernels = emulator.load()
            assert kernels.cuda_why_not_nall(gpu_of, dtype, 16, features, features, True) is None
            assert kernels.cuda_why_not_nsp(gpu_of, dtype, 16, features, 4) is None
            beyond = (features + 16,) * 2
            assert kernels.cuda_why_not_nall(gpu_of, dtype, 16, *beyond, True) or kernels.cuda_why_not_nsp(
                gpu_of, dtype, 16, beyond[0], 4
            )


def test_what_does_not_fit_is_passed_on_and_the_log_says_so(monkeypatch, caplog):
    ranked = {name: backends.BACKENDS[name] for name in (emulator.NAME, "reference")}
    monkeypatch.setattr(dispatch, "BACKENDS", ranked)
    emulator.load().launches()
    with caplog.at_level(logging.DEBUG, "stlora_kernels"):
        Case(2, 2, 16, 16, 2).call(None, Case(2, 2, 16, 16, 2).tensors(torch.float32))
        assert len(emulator.load().launches()) == 1
        Case(2, 2, 700, 16, 2).call(None, Case(2, 2, 700, 16, 2).tensors(torch.float32))
    assert emulator.load().launches() == []
    assert f"backend {emulator.NAME} passed over: the tiles of so many features do not fit" in caplog.text


def test_sizes_that_are_too_large_to_multiply_are_refused():
    for size in (2**26, 2**31, 2**40):
        assert emulator.load().cuda_why_not_nall((132, 227 << 10), "bfloat16", 1, size, 1, False)
        assert emulator.load().cuda_why_not_nall((132, 227 << 10), "bfloat16", 1, 1, size, False)
        assert emulator.load().cuda_why_not_nsp((132, 227 << 10), "bfloat16", 1, size, 1)


@pytest.mark.parametrize("case", WORK, ids=str)
def test_counters_are_zero_again_after_a_launch(case, monkeypatch):
    zeros, kept = torch.zeros, []

    def keeping(*args, **kwargs):
        kept.append(zeros(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(torch, "zeros", keeping)
    case.run(emulator.NAME, case.tensors(torch.float16))
    counters = [t for t in kept if t.dtype == torch.int32]
    assert counters
    assert not any(t.any() for t in counters)


@pytest.mark.parametrize("dynamic", [True, None])
def test_compiled_for_sizes_that_change(dynamic):
    """Rows, nodes and features; the kernels are asked about each set of sizes, which no symbol can be."""
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x, weight, A, B: sk.nall(x, weight, None, A, B, backend=emulator.NAME),
        fullgraph=True, dynamic=dynamic, backend="aot_eager",
    )  # fmt: skip
    for M, N, features in ((4, 3, 8), (5, 3, 8), (5, 4, 8), (5, 4, 9), (6, 5, 10)):
        tensors = Case(M, N, features, 6, 2, bias=False).tensors(torch.float32)
        problem = (tensors["x"], tensors["weight"], tensors["A"], tensors["B"])
        torch.testing.assert_close(compiled(*problem), sk.nall(*problem[:2], None, *problem[2:], backend="reference"))


@pytest.mark.parametrize("layers", [16, 17])
def test_the_deepest_stack(layers):
    case = Stack(2, 1, 8, 1, layers)
    tensors = case.tensors(torch.float32)
    if layers == 16:
        for name, value in case.run("reference", tensors).items():
            torch.testing.assert_close(case.run(emulator.NAME, tensors)[name], value)
    else:
        with pytest.raises(ValueError, match="more than 16 layers"):
            case.call(emulator.NAME, tensors)


@pytest.mark.parametrize("there", [True, False], ids=["on the device", "elsewhere"])
def test_a_seed_is_read_where_it_is(there, monkeypatch):
    monkeypatch.setattr(gpu, "has_seed", lambda x, seed: there and seed is not None)
    x = torch.ones(70, 3, 16)
    seed = torch.tensor(2**40 + 7)
    y = sk.nall(x, torch.zeros(16, 16), None, torch.ones(3, 16, 1), torch.ones(3, 1, 16), dropout_p=0.5, seed=seed,
                backend=emulator.NAME)  # fmt: skip
    kept = philox.keep_mask(x.shape, 0.5, seed).sum(-1, keepdim=True) * 2.0
    assert torch.equal(y, kept.expand_as(y))


def test_an_error_of_a_launch_names_the_call(monkeypatch):
    monkeypatch.setattr(cuda_launch, "why_not", lambda *_: None)
    monkeypatch.setitem(
        backends.BACKENDS,
        emulator.NAME,
        backends.Backend("cuda", lambda device: None, (torch.float32,)),
    )
    case = Case(2, 2, 700, 16, 2)
    with pytest.raises(RuntimeError, match="nall on the GPU: the tiles of so many features do not fit shared memory"):
        case.call(emulator.NAME, case.tensors(torch.float32))
