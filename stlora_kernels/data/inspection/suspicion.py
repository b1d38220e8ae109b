"""Sensors that one should look at before trusting them, and why."""

from collections.abc import Callable

import numpy as np

from stlora_kernels.data.inspection.scan import Scan

SPIKE = 5  # times the usual high of a sensor
SCALE = 20  # times the mean of the middle sensor
RARE = 0.01  # a share of negative values below which they are mistakes rather than what is measured


def suspicions(found: Scan, steps_per_day: int, times: np.ndarray | None) -> dict[int, list[str]]:
    """Reasons by index of the sensor, the worst sensors first."""
    reasons: dict[int, list[str]] = {}
    rank: dict[int, int] = {}

    def say(sensors: np.ndarray, weight: int, text: Callable[[int], str]) -> None:
        for i in np.flatnonzero(sensors).tolist():
            reasons.setdefault(i, []).append(text(i))
            rank[i] = rank.get(i, 0) + weight

    def when(step: int) -> str:
        return f"step {step}" if times is None else str(times[step]).replace("T", " ")

    def days(steps: int) -> str:
        return f"{steps / steps_per_day:.1f} days"

    stuck, outage = found.stuck.length, found.outage.length
    silent = found.measured == 0
    constant = ~silent & (found.lowest == found.highest)
    alive = ~silent & ~constant
    share = 1 - found.measured / found.steps
    negative_share = found.negative.sum() / max(found.measured.sum(), 1)
    middle = np.nanmedian(np.abs(found.mean[~silent])) if (~silent).any() else 0.0
    with np.errstate(invalid="ignore"):
        spike = alive & (found.usual > 0) & (found.highest > SPIKE * found.usual)
        size = np.abs(found.mean)
        off_scale = alive & (middle > 0) & ((size > SCALE * middle) | (size < middle / SCALE))
    say(silent, 1000, lambda i: "never measures anything")
    say(constant, 500, lambda i: f"is always {found.lowest[i]:g}")
    say(found.infinite > 0, 400, lambda i: f"infinite values: {found.infinite[i]}")
    say(spike, 300, lambda i: f"goes up to {found.highest[i]:g}, and 99 % of the time stays below {found.usual[i]:g}")
    say(
        (found.negative > 0) & (negative_share < RARE),
        *(200, lambda i: f"negative values: {found.negative[i]}, down to {found.lowest[i]:g}"),
    )
    say(
        alive & (stuck >= steps_per_day),
        *(100, lambda i: f"does not change for {days(int(stuck[i]) + 1)} before {when(_end(found, i))}"),
    )
    say(
        off_scale,
        *(100, lambda i: f"has a mean of {found.mean[i]:.3g} where that of the middle sensor is {middle:.3g}"),
    )
    say(alive & (share > 0.5), 50, lambda i: f"{share[i]:.0%} missing")
    say(
        alive & (outage >= steps_per_day),
        *(10, lambda i: f"nothing for {days(int(outage[i]))} from {when(int(found.outage.start[i]))}"),
    )
    return {i: reasons[i] for i in sorted(reasons, key=lambda i: (-rank[i], -share[i], i))}


def _end(found: Scan, i: int) -> int:
    return int(found.stuck.start[i] + found.stuck.length[i] - 1)
