"""Programs of the Triton kernels in any order, and what the suite says of kernels that are known to be wrong."""

import pytest
import torch
from gpu_cases import DEVICE, check_nall, check_nsp
from nall_cases import Case
from nsp_cases import Stack

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    DEVICE != "cpu", reason="the interpreter's programs can be put in any order, a GPU's not"
)

if DEVICE == "cpu":
    import wrong_triton_kernels as wrong
    from triton.runtime.errors import InterpreterError
    from triton_interpreter import interleaved

    from stlora_kernels.ops.nall import triton_kernels as nall_kernels
    from stlora_kernels.ops.nsp import triton_gradients as nsp_gradients
    from stlora_kernels.ops.nsp import triton_kernels as nsp_kernels

# Several programs share the rows of every gradient; some adapters have no rows.
NALL = Case(70, 3, 40, 24, 4, adapters=2)
STACKS = [Stack(33, 3, 20, 3, 2, dropout_p=0.2), Stack(34, 1, 34, 2, 2, bias=False)]


def same_bits_in_any_order(case, seeds: int) -> bool:
    tensors = case.tensors(torch.float32)
    expected = case.run("triton", tensors)
    for seed in range(seeds):
        with interleaved(seed):
            ours = case.run("triton", tensors)
        if not all(torch.equal(ours[name], value) for name, value in expected.items()):
            return False
    return True


@pytest.mark.parametrize("case", [NALL, *STACKS], ids=str)
def test_programs_give_the_same_bits_in_any_order(case, poison):
    assert same_bits_in_any_order(case, 4)


@pytest.mark.parametrize("seed", range(3))
def test_a_sum_that_is_read_too_early_is_noticed(seed, poison, monkeypatch):
    monkeypatch.setattr(nall_kernels, "deliver", wrong.deliver_counted_too_early)
    check_nall(NALL, torch.float32, "triton")  # one program after the other, it looks right
    assert not same_bits_in_any_order(NALL, 4)


def test_parameters_that_do_not_wait_for_the_rows_are_noticed(poison, monkeypatch):
    """The rows' count is what holds the other phases back: here it is there before they start."""
    backward = nsp_gradients.backward

    class Unheld:
        def __getitem__(self, grid):
            def launch(*args, counters, jobs, **kwargs):
                counters[1] = jobs
                backward[grid](*args, counters=counters, jobs=jobs, **kwargs)

            return launch

    monkeypatch.setattr(nsp_gradients, "backward", Unheld())
    assert not same_bits_in_any_order(STACKS[0], 4)


@pytest.mark.parametrize("case", [Case(5, 3, 7, 9, 2), Case(65, 4, 33, 17, 5)], ids=str)
@pytest.mark.parametrize(
    ("piece", "mistaken", "message"),
    [
        # What is read too much meets zeros: only the last adapter's neighbour, no memory of ours, gives it away.
        ("load_matrix", "load_matrix_one_column_too_far", "addresses are in no tensor of the kernel"),
        ("store_rows", "store_rows_one_column_short", "y"),
    ],
    ids=["load", "store"],
)
def test_a_mask_that_is_off_by_one_is_noticed(piece, mistaken, message, case, within_bounds, poison, monkeypatch):
    check_nall(case, torch.float32, "triton")
    monkeypatch.setattr(nall_kernels, piece, getattr(wrong, mistaken))
    with pytest.raises((AssertionError, InterpreterError), match=message):
        check_nall(case, torch.float32, "triton")


def test_a_mask_of_the_stack_is_noticed_too(within_bounds, monkeypatch):
    case = Stack(33, 2, 20, 3, 2)
    check_nsp(case, torch.float32, "triton")
    monkeypatch.setattr(nsp_kernels, "load_matrix", wrong.load_matrix_one_column_too_far)
    with pytest.raises(InterpreterError, match="addresses are in no tensor of the kernel"):
        check_nsp(case, torch.float32, "triton")
