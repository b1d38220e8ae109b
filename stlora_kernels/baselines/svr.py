"""Linear support vector regression: one line through a sensor's window for every step ahead."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlora_kernels.backbones.registry import register
from stlora_kernels.baselines.base import Baseline, close_gaps
from stlora_kernels.errors import InputError, require
from stlora_kernels.nn.checks import check_positive, check_sizes


@register("svr")
class SVR(Baseline):
    r"""Linear support vector regression of standardised values z (see :class:`Baseline`), shared by all sensors.

    .. math:: \hat z_{t+h,n} = w_h \cdot z_{t-T+1..t,\,n} + b_h, \quad
              \min_{w_h, b_h} \frac{1}{2} \lVert (w_h, b_h) \rVert^2 + C \sum_{(t,n)} |z_{t+h,n} - \hat z_{t+h,n}|

    solved by scikit-learn's LinearSVR (liblinear). The sum runs over ``pairs`` of a training window and a sensor: drawn
    under the seed, without repetition and all equally likely, of those with a measured value in the window and one
    after it. All steps ahead share the pairs, and each leaves out those without a target of its own.

    The defaults have the least MAE on the validation part of PEMS08 (its last 7156 steps), or are as good as that and
    quicker: C of 0.001 to 1, pairs of 2,000 to 100,000, errors up to 0.01 to 0.2 left unpunished (the epsilon of SVR,
    0 here), squared errors, 3 to 12 steps of the window, one scale for all sensors in place of each its own.

    Args:
        num_nodes: N. window: T steps. horizon: H steps.
        in_features, out_features, adjacency, steps_per_day: not used.
        pairs: to learn from, at most. C: weight of the errors against that of the coefficients.

    Raises:
        MissingExtraError: by ``fit``, where scikit-learn is not installed.

    Source: the protocol of DCRNN (Li et al., ICLR 2018) names a linear SVR, without its sampling.
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
        pairs: int = 20_000,
        C: float = 0.01,
    ) -> None:
        super().__init__(num_nodes, window, horizon)
        check_sizes(pairs=pairs)
        check_positive("C", C)
        self.pairs, self.C = pairs, C
        self.weight = nn.Parameter(torch.zeros(horizon, window), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(horizon), requires_grad=False)

    def ahead(self, z: Tensor) -> Tensor:
        return F.linear(z.transpose(1, 2), self.weight, self.bias).transpose(1, 2)

    def learn(self, z: Tensor, seed: int) -> str:
        svm = require("sklearn.svm", "baselines")
        start, sensor = self._draw(~z.isnan(), seed)
        steps = start[:, None] + torch.arange(self.window + self.horizon)
        drawn = z[steps, sensor[:, None]].double()  # [P, T + H]
        inputs = close_gaps(drawn[:, : self.window, None]).squeeze(2).numpy()  # [P, T]
        for h, target in enumerate(drawn[:, self.window :].T.numpy()):
            known = ~np.isnan(target)
            if not known.any():
                raise InputError(f"SVR: no training target {h + 1} steps ahead is measured, there is nothing to fit")
            fitted = svm.LinearSVR(C=self.C, random_state=seed).fit(inputs[known], target[known])
            self.weight[h] = torch.from_numpy(fitted.coef_)
            self.bias[h] = float(fitted.intercept_.item())
        return f"{len(start)} pairs of a window and a sensor, drawn with seed {seed}, C {self.C:g}"

    def _draw(self, known: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """First step and sensor of the pairs, ``[P]`` each, from where there is a measurement, ``[S, N]``."""
        before = known[: -self.horizon].unfold(0, self.window, 1).any(-1)  # [windows, N]
        after = known[self.window :].unfold(0, self.horizon, 1).any(-1)  # [windows, N]
        usable = (before & after).flatten().nonzero().squeeze(1).numpy()
        if len(usable) == 0:
            raise InputError("SVR: no training window has both a measured value and a measured target")
        rng = np.random.default_rng(seed)
        drawn = torch.from_numpy(np.sort(rng.choice(usable, min(self.pairs, len(usable)), replace=False)))
        return drawn // known.shape[1], drawn % known.shape[1]
