"""LSTM: one recurrent network that reads every node's series by itself."""

from torch import Tensor, nn

from stlora_kernels.backbones.registry import register
from stlora_kernels.nn.checks import check_probability, check_signal, check_sizes


@register("lstm")
class LSTM(nn.Module):
    r"""The LSTM baseline of LargeST, shared by all nodes and blind to the graph.

    .. math:: h_{1..T} = \mathrm{LSTM}(W_{in} x_{1..T}), \quad y = W_2 \, \mathrm{relu}(W_1 h_T)

    97,932 parameters with 3 input features and a horizon of 12.

    Args:
        num_nodes: N; any number of nodes can be forecast, whatever was given here.
        in_features: F. out_features: out. window: T steps. horizon: H steps.
        adjacency, steps_per_day: not used.
        embedding: features after the input map. hidden: of the LSTM. head: of the hidden output layer.
        layers: of the LSTM.
        dropout: between the LSTM's layers, while training.

    Shapes: ``[B, T, N, F] -> [B, H, N, out]``.

    Raises:
        InputError: for sizes, ranges or input shapes that do not fit.

    Source: Liu et al., LargeST, NeurIPS 2023 (liuxu77/LargeST). Under torch.compile the graph breaks at
    ``nn.LSTM``, which torch does not trace.
    """

    def __init__(
        self,
        num_nodes: int,
        in_features: int,
        out_features: int,
        window: int,
        horizon: int,
        adjacency: Tensor | None = None,
        steps_per_day: int | None = None,
        *,
        embedding: int = 32,
        hidden: int = 64,
        head: int = 512,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon)
        check_sizes(embedding=embedding, hidden=hidden, head=head, layers=layers)
        check_probability("dropout", dropout)
        self.window, self.horizon = window, horizon
        self.embed = nn.Linear(in_features, embedding)
        between_layers = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=between_layers)
        self.head = nn.Sequential(nn.Linear(hidden, head), nn.ReLU(), nn.Linear(head, horizon * out_features))

    def forward(self, x: Tensor) -> Tensor:
        check_signal("x", x, self.window, None, self.embed.in_features, self.embed.weight)
        B, _, N, _ = x.shape
        series = self.embed(x).transpose(1, 2).flatten(0, 1)  # [B*N, T, embedding]
        last = self.lstm(series)[0][:, -1]  # [B*N, hidden]
        y = self.head(last)  # [B*N, H*out]
        return y.view(B, N, self.horizon, -1).transpose(1, 2)  # [B, H, N, out]
