"""D2STGNN's decoupled layer: a gate, a block for what diffuses, a block for what is a node's own."""

import torch
from torch import Tensor, nn


class EstimationGate(nn.Module):
    r"""The share of the signal that diffuses: ``sigmoid(W2 relu(W1 c))`` of when and where, ``c = T_D||T_W||E_u||E_d``.

    Shapes: ``[B, T, N, c_in] -> [B, T, N, 1]``.
    """

    def __init__(self, c_in: int, hidden: int = 64) -> None:
        super().__init__()
        self.map1 = nn.Linear(c_in, hidden)
        self.map2 = nn.Linear(hidden, 1)

    def forward(self, context: Tensor) -> Tensor:
        return torch.sigmoid(self.map2(torch.relu(self.map1(context))))


class LocalizedConv(nn.Module):
    r"""Spatio-temporal localised convolution: the last ``k_t`` steps of a node's neighbours, as one neighbourhood.

    .. math:: m_t = \frac{1}{k_t} \sum_{k} \mathrm{relu}(W [x_{t-k_t+1} \| .. \| x_t])_k, \quad
              h_t = [m_t \,\|\, k_t P_1 m_t \,\|\, .. \,\|\, k_t P_S m_t] \, \Theta + b

    ``k_t P m`` is the paper's product of the localised ``[P || .. || P]`` with the ``k_t N`` rows of the steps.

    Shapes: ``[B, T, N, hidden] -> [B, T - k_t + 1, N, hidden]``, the last steps; P ``[N, N]`` or ``[B, N, N]``.
    """

    def __init__(self, hidden: int, k_t: int, supports: int, dropout: float) -> None:
        super().__init__()
        self.k_t = k_t
        self.map = nn.Linear(k_t * hidden, k_t * hidden, bias=False)
        self.theta = nn.Linear((1 + supports) * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.unused = nn.BatchNorm2d(hidden).requires_grad_(False)  # as in DynamicGraph

    def forward(self, x: Tensor, supports: list[Tensor]) -> Tensor:
        steps = x.shape[1] - self.k_t + 1
        near = torch.cat([x[:, k : k + steps] for k in range(self.k_t)], dim=-1)  # [B, T', N, k_t*hidden]
        m = torch.relu(self.map(near)).unflatten(-1, (self.k_t, -1)).mean(dim=-2)  # [B, T', N, hidden]
        rows = m.transpose(1, 2).flatten(2)  # [B, N, T'*hidden]: one product of matrices per window and support
        heard = [self.k_t * (P @ rows) for P in supports]
        terms = torch.stack([rows, *heard], dim=2).unflatten(-1, (steps, -1))  # [B, N, 1 + S, T', hidden]
        return self.dropout(self.theta(terms.permute(0, 3, 1, 2, 4).flatten(-2)))  # [B, T', N, hidden]


class Residual(nn.Module):
    r"""What a block leaves to the next: ``LayerNorm(x - relu(W h + b))``, of the steps that h has.

    Shapes: x ``[B, T, N, hidden]``, h ``[B, T', N, hidden] -> [B, T', N, hidden]``.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.backcast = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.norm(x[:, -h.shape[1] :] - torch.relu(self.backcast(h)))


class DiffusionBlock(nn.Module):
    r"""The signal that diffuses: convolved, then forecast by convolving what is forecast already.

    .. math:: h = \mathrm{conv}(\Lambda x), \quad f_1 = h_T, \quad
              f_i = \mathrm{conv}([(\Lambda x)_{..T} \,\|\, f_{..i-1}]_{\text{last } k_t}), \quad
              x' = \mathrm{LN}(x - \mathrm{relu}(W h + b))

    Shapes: x ``[B, T, N, hidden]``, gate ``[B, T, N, 1]`` -> x' ``[B, T - k_t + 1, N, hidden]``,
    f ``[B, blocks, N, forecast]``.
    """

    def __init__(self, hidden: int, forecast: int, blocks: int, k_t: int, supports: int, dropout: float) -> None:
        super().__init__()
        self.blocks = blocks
        self.conv = LocalizedConv(hidden, k_t, supports, dropout)
        self.forecast = nn.Linear(hidden, forecast)
        self.residual = Residual(hidden)

    def forward(self, x: Tensor, gate: Tensor, supports: list[Tensor]) -> tuple[Tensor, Tensor]:
        k_t, diffusing = self.conv.k_t, gate * x
        h = self.conv(diffusing, supports)  # [B, T - k_t + 1, N, hidden]
        ahead = torch.cat([diffusing[:, -k_t:], h[:, -1:]], dim=1)  # the last steps, then the forecast
        for _ in range(1, self.blocks):
            ahead = torch.cat([ahead, self.conv(ahead[:, -k_t:], supports)], dim=1)
        return self.residual(x, h), self.forecast(ahead[:, k_t:])


class Positions(nn.Module):
    r"""Adds ``sin(t w_i), cos(t w_i)``, ``w_i = 10000^(-2i / hidden)``, and drops out: ``[R, T, hidden] -> same``."""

    table: Tensor

    def __init__(self, steps: int, hidden: int, dropout: float) -> None:
        super().__init__()
        angle = torch.arange(steps)[:, None] * 10_000.0 ** (-torch.arange(0, hidden, 2) / hidden)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :hidden]  # [steps, hidden]
        self.register_buffer("table", table, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.table[: x.shape[1]])


class InherentBlock(nn.Module):
    r"""The signal that is a node's own: a GRU, attention over its states, and both again for the forecast.

    .. math:: s = \mathrm{GRU}(x), \quad h = \mathrm{MHA}(s, s, s), \quad f_1 = h_T, \quad
              s_{T+i} = \mathrm{GRU}(f_i, s_{T+i-1}), \quad f_{i+1} = \mathrm{MHA}(s_{T+i}, s, s), \quad
              x' = \mathrm{LN}(x - \mathrm{relu}(W h + b))

    where attention reads the states with their positions, in the first layer only (:class:`D2STGNN` says why).

    Shapes: ``[B, T, N, hidden]`` -> x' ``[B, T, N, hidden]``, f ``[B, blocks, N, forecast]``.
    """

    def __init__(self, hidden: int, forecast: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = blocks
        self.gru = nn.GRUCell(hidden, hidden)  # not nn.GRU, which torch.compile does not trace; here it is as fast
        self.positions: nn.Module = nn.Identity()
        self.attention = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.forecast = nn.Linear(hidden, forecast)
        self.residual = Residual(hidden)

    def attend(self, queries: Tensor, states: Tensor) -> Tensor:
        # That it returns weights keeps torch from its fused kernel, the slower one on sequences as short as these.
        return self.dropout(self.attention(queries, states, states)[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        B, T, N, _ = x.shape
        series = x.transpose(1, 2).flatten(0, 1)  # [B*N, T, hidden]
        steps = [series.new_zeros(series.shape[0], series.shape[2])]
        for t in range(T):
            steps.append(self.gru(series[:, t], steps[-1]))
        states = self.dropout(torch.stack(steps[1:], dim=1))  # [B*N, T, hidden]
        encoded = self.positions(states)
        h = self.attend(encoded, encoded)  # [B*N, T, hidden]
        ahead = [h[:, -1:]]
        for _ in range(1, self.blocks):
            state = self.gru(ahead[-1][:, 0], states[:, -1]).unsqueeze(1)  # [B*N, 1, hidden]
            # As published, the states keep the positions they are given here and are given them again.
            states = self.positions(torch.cat([states, state], dim=1))
            ahead.append(self.attend(state, states))
        h, f = (rows.unflatten(0, (B, N)).transpose(1, 2) for rows in (h, torch.cat(ahead, dim=1)))
        return self.residual(x, h), self.forecast(f)


class DecoupledLayer(nn.Module):
    """Gate, diffusion, and the inherent block on what diffusion left; returns what both left, and their forecast."""

    def __init__(self, gate: EstimationGate, diffusion: DiffusionBlock, inherent: InherentBlock) -> None:
        super().__init__()
        self.gate, self.diffusion, self.inherent = gate, diffusion, inherent

    def forward(self, x: Tensor, context: Tensor, supports: list[Tensor]) -> tuple[Tensor, Tensor]:
        gate = self.gate(context[:, -x.shape[1] :])  # [B, T, N, 1]
        x, diffused = self.diffusion(x, gate, supports)  # [B, T - k_t + 1, N, hidden], [B, blocks, N, forecast]
        x, own = self.inherent(x)  # the same shapes
        return x, diffused + own
