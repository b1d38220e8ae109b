"""Triton's interpreter, made to notice what it lets pass: memory that is not the kernel's, and orders of programs.

within_bounds   every address that is read or written lies in a tensor that the kernel was given.
interleaved     The interpreter runs one program after the other, so that a kernel whose programs wait for one another,
                or whose last program adds up what others left, looks right even where it reads too early. Here every
                program is a thread; one runs at a time, and hands over before loads, stores and atomics, when and to
                whom a seed decides. What threads of one program do to each other is not seen: the interpreter knows
                programs only.
"""

import inspect
import random
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

BUILDER = interpreter.interpreter_builder
SWITCHES = ("create_masked_load", "create_masked_store", "create_atomic_rmw")


class _Program:
    def __init__(self, index):
        self.index, self.turn = index, threading.Semaphore(0)


class _Interleaved:
    """Stands for a kernel's function: keeps its programs until all are known, then runs them together."""

    def __init__(self, fn, seed: int):
        self.fn, self.random, self.programs, self.errors = fn, random.Random(seed), [], []
        self.__signature__, self.__globals__, self.__name__ = inspect.signature(fn), fn.__globals__, fn.__name__
        self.__annotations__ = fn.__annotations__

    def __call__(self, **arguments):
        self.programs.append(_Program(BUILDER.grid_idx))
        x, y, z = BUILDER.grid_dim
        if len(self.programs) == x * y * z:
            self._run(arguments)

    def _run(self, arguments):
        self.done, self.alive = threading.Event(), list(self.programs)
        threads = [threading.Thread(target=self._program, args=(p, arguments), daemon=True) for p in self.programs]
        originals = {name: getattr(BUILDER, name) for name in SWITCHES}
        for name, original in originals.items():
            setattr(BUILDER, name, self._switching(original))
        try:
            for thread in threads:
                thread.start()
            self._hand_over()
            assert self.done.wait(300), "the programs wait for each other"
        finally:
            for name, original in originals.items():
                setattr(BUILDER, name, original)
        if self.errors:
            raise self.errors[0]

    def _program(self, program, arguments):
        program.turn.acquire()
        BUILDER.grid_idx = program.index
        try:
            self.fn(**arguments)
        except BaseException as error:
            self.errors.append(error)
        self.alive.remove(program)
        if self.alive:
            self._hand_over()
        else:
            self.done.set()

    def _hand_over(self):
        self.running = self.random.choice(self.alive)
        self.running.turn.release()

    def _switching(self, original):
        def call(*args, **kwargs):
            mine = self.running
            if self.random.random() < 0.3:
                self._hand_over()
                mine.turn.acquire()
                BUILDER.grid_idx = mine.index
            return original(*args, **kwargs)

        return call


@contextmanager
def _executing(make_function):
    """Within the block, the interpreter runs ``make_function(kernel's function)``."""
    usual = interpreter.GridExecutor

    class Executor(usual):
        def __init__(self, fn, *args, **kwargs):
            super().__init__(fn, *args, **kwargs)
            self.fn = make_function(self.fn)

    interpreter.GridExecutor = Executor
    try:
        yield
    finally:
        interpreter.GridExecutor = usual


def interleaved(seed: int):
    """Within the block, programs of every kernel run interleaved."""
    return _executing(lambda fn: _Interleaved(fn, seed))


@contextmanager
def within_bounds():
    """Within the block, an address outside of a kernel's tensors is an error."""
    usual_arguments = interpreter.GridExecutor._init_args_hst
    originals = {name: getattr(BUILDER, name) for name in SWITCHES}
    mine: list[tuple[int, int]] = []

    def arguments(executor, args, kwargs):
        mine[:] = sorted({_extent(t) for t in _tensors([*args, *kwargs.values()]) if t.numel()})
        return usual_arguments(executor, args, kwargs)

    def checking(name, mask_at):
        def call(*args):
            pointers = args[0] if name != "create_atomic_rmw" else args[1]
            addresses = pointers.data[np.broadcast_to(args[mask_at].data, pointers.data.shape)].astype(np.int64)
            begins, ends = np.array(mine, dtype=np.int64).reshape(-1, 2).T
            size = pointers.get_element_ty().primitive_bitwidth // 8
            owner = np.searchsorted(begins, addresses, side="right") - 1
            inside = (owner >= 0) & (addresses + size <= np.maximum.accumulate(ends)[owner])
            if not inside.all():
                raise IndexError(f"{name}: {(~inside).sum()} of {inside.size} addresses are in no tensor of the kernel")
            return originals[name](*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.GridExecutor, "_init_args_hst", arguments)
        for name, mask_at in (("create_masked_load", 1), ("create_masked_store", 2), ("create_atomic_rmw", 3)):
            patch.setattr(BUILDER, name, checking(name, mask_at))
        yield


def _tensors(arguments):
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, tuple):
            yield from _tensors(argument)


def _extent(t: torch.Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()
