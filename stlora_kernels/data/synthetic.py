"""The embedded data set: made-up traffic on a made-up road graph. Nothing in it was measured.

It needs no download and trains in minutes, and still asks of a model what real traffic asks:

- a daily and weekly rhythm, which every sensor follows in its own way (hours, width and height of its peaks,
  weekends, capacity), so that per-node parameters have something to learn;
- surges of demand that linger and travel downstream with the traffic, one hop in a few steps;
- incidents and overload that build queues; a queue spills back upstream, one hop in a few steps, and dissolves;
- counting noise, and missing values (NaN): single ones and outages of some hours.

So the last value, the mean of the window and the mean of the weekly slot are each beaten by a model that learns how
disturbances decay and move.
"""

from dataclasses import dataclass

import numpy as np

from stlora_kernels.data.graph import binary_symmetric
from stlora_kernels.data.sensor_data import SensorData
from stlora_kernels.errors import InputError

NODES = 64
STEPS = 21 * 288  # three weeks, so that training, validation and test each see working days and a weekend
STEPS_PER_DAY = 288
START = np.datetime64("2024-01-01T00:00:00", "s")  # a Monday


@dataclass(frozen=True)
class Roads:
    """``E`` directed stretches of road between sensors, each with its travel time in steps."""

    source: np.ndarray  # [E] the sensor upstream
    target: np.ndarray  # [E] the sensor downstream
    delay: np.ndarray  # [E] steps from source to target


def synthetic(nodes: int = NODES, steps: int = STEPS, seed: int = 0) -> SensorData:
    """Generate flow in veh/5min for ``nodes`` sensors at ``steps`` steps of 5 minutes.

    The same arguments give the same data. The adjacency is binary, symmetric and without self-loops.

    Raises:
        InputError: if a size is not positive or the seed is negative.
    """
    if nodes < 1 or steps < 1 or seed < 0:
        raise InputError(
            f"synthetic: nodes={nodes}, steps={steps}, seed={seed}, expected positive sizes and a seed >= 0"
        )
    rng = np.random.default_rng(seed)
    roads = _roads(rng, nodes)
    times = START + np.arange(steps) * np.timedelta64(300, "s")
    demand = _demand(rng, nodes, steps)  # [S, N]
    surge, queue = _disturbances(rng, roads, demand)  # [S, N]
    capacity = rng.lognormal(5.7, 0.4, nodes)  # [N] veh/5min at full demand
    flow = capacity * demand * np.exp(surge) / (1 + queue)
    flow += np.sqrt(flow) * rng.uniform(0.5, 1.0, nodes) * rng.standard_normal((steps, nodes))
    flow = np.round(np.maximum(flow, 0))
    flow[_missing(rng, nodes, steps)] = np.nan
    connected = np.zeros((nodes, nodes), dtype=bool)
    connected[roads.source, roads.target] = True
    return SensorData(
        name="synthetic",
        values=flow.astype(np.float32)[:, :, None],
        times=times,
        sensor_ids=tuple(str(node) for node in range(nodes)),
        adjacency=binary_symmetric(connected),
        steps_per_day=STEPS_PER_DAY,
        quantity="flow",
        unit="veh/5min",
        split=(0.6, 0.2, 0.2),
        null_value=None,
        synthetic=True,
    )


def _roads(rng: np.random.Generator, nodes: int) -> Roads:
    """One-way roads of about 16 sensors, joined by ramps at random places."""
    along = np.arange(nodes - 1)
    along = along[(along + 1) % 16 != 0]
    ramps = rng.integers(nodes, size=(2, nodes // 8))
    ramps = ramps[:, ramps[0] != ramps[1]]
    source, target = np.concatenate([along, ramps[0]]), np.concatenate([along + 1, ramps[1]])
    return Roads(source, target, delay=rng.integers(2, 7, len(source)))


def _demand(rng: np.random.Generator, nodes: int, steps: int) -> np.ndarray:
    """What would like to pass, as a share of the capacity, ``[S, N]``: every sensor's own day and week."""
    step = np.arange(steps)
    hour = (step % STEPS_PER_DAY)[:, None] * (24 / STEPS_PER_DAY)  # [S, 1]
    day = step // STEPS_PER_DAY
    weekend = (day % 7 >= 5)[:, None]  # [S, 1]

    def bump(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * np.square((hour - centre) / width))  # [S, N]

    def per_node(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, nodes)  # [N]

    morning = per_node(0.2, 0.9) * bump(per_node(6.7, 9.0), per_node(0.8, 1.6))
    evening = per_node(0.2, 0.9) * bump(per_node(16.0, 18.5), per_node(1.0, 2.2))
    midday = per_node(0.3, 0.6) * bump(per_node(12.0, 14.0), per_node(3.5, 5.0))
    leisure = per_node(0.3, 0.9) * bump(per_node(12.0, 17.0), per_node(2.5, 4.5))
    of_the_day = 1 + 0.10 * rng.standard_normal((day[-1] + 1, 1))[day]  # [S, 1], weather and events
    return (per_node(0.04, 0.12) + np.where(weekend, leisure, morning + evening + midday)) * of_the_day


def _disturbances(rng: np.random.Generator, roads: Roads, demand: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surges (in log flow, travelling downstream) and queues (>= 0, spilling back upstream), ``[S, N]`` each."""
    steps, nodes = demand.shape
    feeders = np.bincount(roads.target, minlength=nodes)  # [N]
    exits = np.bincount(roads.source, minlength=nodes)  # [N]
    entry = feeders == 0  # where traffic enters the network, and most surges begin
    persistence = np.where(entry, rng.uniform(0.9, 0.96, nodes), rng.uniform(0.2, 0.6, nodes))  # [N]
    inflow = ((0.97 - persistence) / np.maximum(feeders, 1))[roads.target]  # [E], so that surges fade in the end
    spill = (0.35 / np.maximum(exits, 1))[roads.source]  # [E]
    dissolving = rng.uniform(0.5, 0.64, nodes)  # [N]
    shock = np.where(entry, 0.1, 0.025) * rng.uniform(0.6, 1.4, nodes) * rng.standard_normal((steps, nodes))
    incident = _incidents(rng, nodes, steps)
    surge = np.zeros((steps, nodes))
    queue = np.zeros((steps, nodes))
    for step in range(1, steps):
        before = np.maximum(step - roads.delay, 0)  # [E]
        arriving = np.bincount(roads.target, inflow * surge[before, roads.source], nodes)
        surge[step] = persistence * surge[step - 1] + arriving + shock[step]
        spilling = np.bincount(roads.source, spill * queue[before, roads.target], nodes)
        overload = np.maximum(demand[step] * np.exp(surge[step]) - 1, 0)
        queue[step] = dissolving * queue[step - 1] + spilling + incident[step] + 0.3 * overload
    return surge, queue


def _incidents(rng: np.random.Generator, nodes: int, steps: int) -> np.ndarray:
    """Strength of what blocks the road, ``[S, N]``: one per sensor in three days, for 15 to 75 minutes."""
    strength = np.zeros((steps, nodes))
    for _ in range(rng.poisson(nodes * steps / (3 * STEPS_PER_DAY))):
        start, length = rng.integers(steps), rng.integers(3, 16)
        strength[start : start + length, rng.integers(nodes)] += rng.uniform(0.1, 0.6)
    return strength


def _missing(rng: np.random.Generator, nodes: int, steps: int) -> np.ndarray:
    """Where a value is missing, ``[S, N]``: 0.5 % at random, and an outage of up to 6 hours per sensor and 10 days."""
    missing = rng.random((steps, nodes)) < 0.005
    for _ in range(rng.poisson(nodes * steps / (10 * STEPS_PER_DAY))):
        start, length = rng.integers(steps), rng.integers(6, 73)
        missing[start : start + length, rng.integers(nodes)] = True
    return missing
