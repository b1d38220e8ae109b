"""Sharded by node, a predictor computes what it computes whole, forward and backward."""

import os
import subprocess
import sys

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from stlora_kernels.errors import InputError
from stlora_kernels.nn.nsp import NSP
from stlora_kernels.nn.sharding import shard_nodes

CHILD = """
import copy, os, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from stlora_kernels.nn.nsp import NSP
from stlora_kernels.nn.sharding import load_whole, shard_nodes, whole_tensors

factor, temporal, nodes = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
torch.manual_seed(0)
whole = NSP(nodes, 3, 1, 12, 12, hidden=8, layers=2, rank=2, dropout=0.0, factor=factor, temporal=temporal)
for parameter in whole.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
sharded = shard_nodes(copy.deepcopy(whole), mesh)
x = torch.randn(4, 12, nodes, 3, requires_grad=True)
again = x.detach().clone().requires_grad_()
y, z = whole(x), sharded(again)
torch.testing.assert_close(y, z)
y.square().mean().backward()
for _ in range(2):  # gradients are added up, and summed over the processes once
    sharded.zero_grad()
    again.grad = None
    sharded(again[:3]).square().mul(0.75).mean().backward()
    sharded(again[3:]).square().mul(0.25).mean().backward()
torch.testing.assert_close(x.grad, again.grad)
own = 0
for (name, parameter), part in zip(whole.named_parameters(), sharded.parameters(), strict=True):
    grad = part.grad.full_tensor() if isinstance(part.grad, DTensor) else part.grad
    torch.testing.assert_close(parameter.grad, grad, msg=lambda text: f"{name}: {text}")
    own += part.to_local().numel() if isinstance(part, DTensor) else 0
of_nodes = sum(p.numel() for p in whole.parameters() if p.dim() == 3 and len(p) == nodes)
most = -(-nodes // dist.get_world_size()) * of_nodes // nodes
assert 0 < own <= most < of_nodes, (own, most, of_nodes)
gathered = whole_tensors(sharded.state_dict())
assert gathered.keys() == whole.state_dict().keys()
assert all(torch.equal(gathered[name], tensor) for name, tensor in whole.state_dict().items())
doubled = {name: 2 * tensor for name, tensor in gathered.items()}
load_whole(sharded, doubled)
assert all(torch.equal(doubled[name], tensor) for name, tensor in whole_tensors(sharded.state_dict()).items())
dist.destroy_process_group()
print("the same", flush=True)
os._exit(0)  # as training.cli.leave does, and says why
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "temporal", "nodes", "processes"),
    [("node", "fold", 7, 2), ("node_b", "step", 8, 2), ("core", "fold", 7, 3)],
)
def test_equals_the_whole_predictor(factor, temporal, nodes, processes, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    command += [str(tmp_path / "child.py"), factor, temporal, str(nodes)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the same") == processes


@pytest.fixture
def alone():
    """A mesh of this process."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_without_parameters_of_nodes_there_is_nothing_to_divide(alone):
    with pytest.raises(InputError, match="nothing to divide"):
        shard_nodes(NSP(5, 3, 1, 12, 12, layers=1, factor="shared"), alone)
    with pytest.raises(InputError, match="nothing to divide"):
        shard_nodes(torch.nn.Linear(3, 3), alone)


def test_one_process_has_all_nodes(alone):
    torch.manual_seed(0)
    nsp = NSP(5, 3, 1, 12, 12, hidden=8, layers=1, rank=2, dropout=0.0)
    x = torch.randn(2, 12, 5, 3)
    y = nsp(x)
    torch.testing.assert_close(shard_nodes(nsp, alone)(x), y)
