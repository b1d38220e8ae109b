"""Vector autoregression: every sensor's next value is linear in all sensors' last values."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stlora_kernels.backbones.registry import register
from stlora_kernels.baselines.base import Baseline, close_gaps
from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_positive, check_sizes

SLICE = 256  # windows whose lagged values are in memory at once


@register("var")
class VAR(Baseline):
    r"""Vector autoregression with a ridge, of standardised values z (see :class:`Baseline`).

    .. math:: \hat z_t = \sum_{k=1}^{p} z_{t-k} \Phi_k, \quad
              \min_\Phi \sum_n \sum_{t \in M_n} (z_{tn} - \hat z_{tn})^2 + \lambda \sum_k \lVert \Phi_k \rVert^2

    M_n are the training steps at which sensor n measured: each sensor's equation is fitted to its own. Steps further
    ahead are forecast from forecasts. There is no constant, because the mean of z is 0.

    Without the ridge the fit is singular where sensors are copies of each other, and where there are more lagged
    values than steps (883 sensors with 3 lags have 2,649). Its default, a hundred steps' worth of evidence against any
    dependence, has the least MAE of 10 to 400 on the validation part of PEMS08 (its last 7156 steps).

    Args:
        num_nodes: N. window: T steps. horizon: H steps.
        in_features, out_features, adjacency, steps_per_day: not used.
        lags: p, at most T. ridge: lambda.

    Source: the protocol of DCRNN (Li et al., ICLR 2018) has 3 lags; the ridge is ours. The fit solves one system of
    ``p N`` unknowns, and one more for every set of sensors that missed the same steps.
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
        lags: int = 3,
        ridge: float = 100.0,
    ) -> None:
        super().__init__(num_nodes, window, horizon)
        check_sizes(lags=lags)
        check_positive("ridge", ridge)
        if lags > window:
            raise InputError(f"lags: got {lags}, expected at most the {window} steps of the window")
        self.lags, self.ridge = lags, ridge
        # [p * N, N]: from all sensors one step ago, then from all two steps ago, ...
        self.weight = nn.Parameter(torch.zeros(lags * num_nodes, num_nodes), requires_grad=False)

    def ahead(self, z: Tensor) -> Tensor:
        steps = []
        for _ in range(self.horizon):
            steps.append(self._lagged(z) @ self.weight)  # [B, N]
            z = torch.cat([z[:, 1:], steps[-1][:, None]], dim=1)
        return torch.stack(steps, dim=1)

    def learn(self, z: Tensor, seed: int) -> str:
        starts = torch.arange(len(z) - self.window)  # of the windows, each with its next step as target
        gram = torch.zeros(len(self.weight), len(self.weight), dtype=torch.float64)
        moment = torch.zeros(self.weight.shape, dtype=torch.float64)
        for part, lagged in self._slices(z, starts):
            gram += lagged.T @ lagged
            moment += lagged.T @ z[part + self.window].double().nan_to_num(nan=0.0)
        gram.diagonal().add_(self.ridge)
        patterns, pattern_of = z[self.window :].isnan().unique(dim=1, return_inverse=True)
        for number, missed in enumerate(patterns.T):
            sensors = (pattern_of == number).nonzero().squeeze(1)
            own = gram.clone()  # of the steps at which these sensors measured
            for _, lagged in self._slices(z, starts[missed]):
                own -= lagged.T @ lagged
            solved = torch.cholesky_solve(moment[:, sensors], torch.linalg.cholesky(own))
            self.weight[:, sensors] = solved.to(self.weight)
        return f"{self.lags} lags, ridge {self.ridge:g}, {len(starts)} training steps"

    def _slices(self, z: Tensor, starts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The windows at ``starts``, some at a time, and their lagged values ``[B, p * N]``."""
        for part in starts.split(SLICE):
            windows = z[part[:, None] + torch.arange(self.window)].double()  # [B, T, N]
            yield part, self._lagged(close_gaps(windows))

    def _lagged(self, z: Tensor) -> Tensor:
        return z[:, -self.lags :].flip(1).flatten(1)  # [B, T, N] -> [B, p * N]
