"""D2STGNN: what diffuses between the nodes and what is each node's own, taken apart and forecast apart."""

from stlora_kernels.backbones.d2stgnn.model import D2STGNN

__all__ = ["D2STGNN"]
