"""Node-specific parameters divided among processes: each owns those of its nodes, and computes for these alone.

For graphs whose adapters are too large for one device. The parameters become ``DTensor``s that are sharded along the
node dimension; so do, in between, the activations of a node-specific predictor:

    h [*, N, hidden]  on every process
      -> h of this process's nodes -> layers and head with its own A and B -> y of its nodes
    y [*, N, O]       on every process, gathered

Everything else, the backbone, the convolution and the gate, is computed on every process alike. Gradients of what the
nodes share (W, b, the norm) are summed, since each process sees but its own nodes.
"""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from stlora_kernels.errors import InputError
from stlora_kernels.nn.nall import NALL
from stlora_kernels.nn.nsp import NSP


class NodeShards:
    """Where the nodes of ``[*, N, F]`` lie on a one-dimensional mesh of processes."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def own(self, h: Tensor) -> Tensor:
        """Of ``[*, N, F]``, which every process has, the nodes of this one; backward gathers."""
        whole = DTensor.from_local(h, self.mesh, [Replicate()], run_check=False)
        return whole.redistribute(placements=[Shard(h.dim() - 2)]).to_local()

    def gather(self, y: Tensor, num_nodes: int) -> Tensor:
        """From the ``[*, N_own, F]`` of every process ``[*, N, F]`` on all of them; backward takes this one's nodes."""
        shape = torch.Size((*y.shape[:-2], num_nodes, y.shape[-1]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            y.contiguous(), self.mesh, [Shard(y.dim() - 2)], run_check=False, shape=shape, stride=stride
        ).full_tensor()


def shard_nodes(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Leave on this process what belongs to its nodes, in every :class:`NSP` of ``model``, which is changed in place.

    Args:
        mesh: one-dimensional, of the processes that share the nodes; all have the same ``model``.

    Raises:
        InputError: if no parameter belongs to a node, or there are fewer nodes than processes.
    """
    predictors = [module for module in model.modules() if isinstance(module, NSP)]
    layers = [module for predictor in predictors for module in predictor.modules() if isinstance(module, NALL)]
    if not any(_of_nodes(layer) for layer in layers):
        raise InputError("shard_nodes: no parameter of the model belongs to a single node, there is nothing to divide")
    nodes, processes = predictors[0].num_nodes, mesh.size()
    if nodes < processes:
        raise InputError(f"shard_nodes: got {processes} processes, expected at most one per node ({nodes})")
    group = mesh.get_group()
    for predictor in predictors:
        predictor.shards = NodeShards(mesh)
        for part in (predictor.layers, predictor.head):
            for parameter in part.parameters():
                if parameter.shape[:1] != (nodes,) or parameter.dim() < 3:
                    parameter.register_hook(lambda grad: _summed(grad, group))
    for layer in layers:
        for name in _of_nodes(layer):
            whole: Tensor = getattr(layer, name)
            parameter = nn.Parameter(distribute_tensor(whole.detach(), mesh, [Shard(0)]), whole.requires_grad)
            setattr(layer, name, parameter)
            layer.num_nodes = parameter.to_local().shape[0]  # type: ignore[attr-defined]
    return model


def _of_nodes(layer: NALL) -> list[str]:
    """The parameters of which every node has its own."""
    return {"node": ["lora_A", "lora_B"], "node_b": ["lora_B"], "core": ["lora_core"], "shared": []}[layer.factor]


def _summed(grad: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = grad.clone()
    dist.all_reduce(total, group=group)
    return total


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with sharded tensors gathered; all processes have to call it together."""
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}


def load_whole(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """``load_state_dict`` of tensors that are whole, into a model that may be sharded."""
    own = model.state_dict()
    model.load_state_dict({name: like(tensor, own[name]) for name, tensor in tensors.items()})


def like(tensor: Tensor, example: Tensor) -> Tensor:
    """``tensor``, which every process has whole, sharded as ``example`` is."""
    if not isinstance(example, DTensor) or tensor.dim() == 0:
        return tensor
    return distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements)
