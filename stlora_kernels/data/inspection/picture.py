"""What was found, as one picture: missing values, the day, some series, and where the sensors are."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from stlora_kernels.data.inspection.found import Found, percent
from stlora_kernels.data.missing import is_measured
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY
from stlora_kernels.errors import InputError, require
from stlora_kernels.files import replacing

FORMATS = (".png", ".pdf", ".svg")
SERIES = 3  # sensors whose series are shown
EDGES = 30_000  # drawn on the map; more would hide it
COLOURS = ("#1f5fa8", "#c8640a")  # working days, weekends
BAD = "#c22f2f"
MISSING = ("white", "#f2a07b", BAD, "#4d0f0f")  # from none to all


def check_picture(path: Path) -> None:
    """Find out before the measurements are read whether the picture can be saved.

    Raises:
        InputError: for another format, or a folder that is not there or cannot be written to.
        MissingExtraError: if matplotlib is not installed.
    """
    require("matplotlib", "picture")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--picture: got {path}, expected a name that ends in {', '.join(FORMATS)}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--picture: {path} cannot be written; {path.parent.absolute()} has to be a folder")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"--picture: cannot write to {path.parent.absolute()}, expected a folder one can write to")


def save_picture(found: Found, path: Path) -> None:
    """Draw it, then write it whole."""
    figure = require("matplotlib.figure", "picture").Figure(figsize=(15, 9.5), layout="constrained")
    figure.suptitle(
        f"{Path(found.name).name}: {len(found.sensor_ids)} sensors, {len(found.values)} steps, {found.measures}",
        fontsize=14,
    )
    on_map = isinstance(found.places, np.ndarray)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    left, right = above.subplots(1, 2, width_ratios=(1.4, 1) if on_map else (1.2, 1))
    _draw_missing(found, left)
    if on_map:
        _draw_map(found, right)
        profile_side, series_side = below.subfigures(1, 2, width_ratios=(1, 1.6))
        _draw_profile(found, profile_side.subplots())
    else:
        _draw_profile(found, right)
        series_side = below
    _draw_series(found, series_side)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.lower()[1:], dpi=110)
    with replacing(path) as temporary:
        temporary.write_bytes(drawn.getvalue())


def _draw_missing(found: Found, axes: Any) -> None:
    shares = np.ma.masked_invalid(found.scan.missing.T)  # [N, columns]; no steps in a column that a gap swallowed
    colours = require("matplotlib.colors", "picture").LinearSegmentedColormap.from_list("missing", MISSING)
    colours = colours.with_extremes(bad="0.75")
    sensors = len(shares)
    calendar = found.calendar if found.calendar is not None and found.calendar.sound else None
    ends = [0.0, float(len(found.values))]
    if calendar is not None:
        ends = _days(calendar.clock[[0, -1]] + np.array([0, calendar.step], "timedelta64[s]")).tolist()
    image = axes.imshow(
        shares,
        aspect="auto",
        cmap=colours,
        vmin=0,
        vmax=1,
        interpolation="nearest" if sensors < 500 else "antialiased",
        extent=(ends[0], ends[1], sensors, 0),
    )
    if calendar is not None:
        axes.set_xlim(
            ends[0], ends[1] - calendar.step / SECONDS_PER_DAY
        )  # up to midnight the axis bears the next month
        _date_axis(axes)
    share = 1 - found.scan.measured.sum() / found.values.size
    if share == 0:
        axes.text(0.5, 0.5, "nothing is missing", ha="center", color="0.4", transform=axes.transAxes)
    null = "NaN" if found.null_value is None else f"NaN or {found.null_value:g}"
    axes.set_title(f"missing values ({null}): {percent(share)}", loc="left")
    axes.set_ylabel("sensor, in the order of the file")
    axes.set_xlabel("step" if calendar is None else "")
    axes.locator_params(axis="y", integer=True)
    axes.figure.colorbar(image, ax=axes, label="share missing", pad=0.01)


def _draw_profile(found: Found, axes: Any) -> None:
    profile = found.scan.profile
    axes.set_title("the day: middle sensor, and 10 to 90 % of the sensors", loc="left")
    if profile is None:
        axes.text(0.5, 0.5, "no times", ha="center", transform=axes.transAxes)
        return
    hours = (np.arange(profile.shape[1]) + 0.5) * 24 / profile.shape[1]
    for part, name, colour in zip(profile, ("Monday to Friday", "weekend"), COLOURS, strict=True):
        seen = ~np.isnan(part).all(axis=1)
        if not seen.any():
            continue
        low, middle, high = np.nanpercentile(part[seen], (10, 50, 90), axis=1)
        axes.fill_between(hours[seen], low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(hours[seen], middle, color=colour, label=name)
    axes.set(xlim=(0, 24), xticks=range(0, 25, 3), xlabel="hour", ylabel=found.measures)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)


def _draw_series(found: Found, side: Any) -> None:
    shown = _shown(found)
    week = 7 * found.steps_per_day
    times, clock, step = None, None, 1.0
    if found.calendar is not None and not found.calendar.unreadable:
        times, clock, step = found.calendar.times, found.calendar.clock, found.calendar.step / SECONDS_PER_DAY
    for axes, (sensor, centre, why) in zip(side.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        start = max(0, min(centre - week // 2, len(found.values) - week))
        steps = np.arange(start, min(start + week, len(found.values)))
        values = found.values[steps, sensor].astype(np.float64)
        values[~is_measured(values, found.null_value)] = np.nan
        x = steps.astype(np.float64) if clock is None else _days(clock[steps])
        # A NaN in every gap, so that no line leads over it.
        gaps = np.flatnonzero(np.diff(x if times is None else _days(times[steps])) > 1.5 * step) + 1
        axes.plot(
            np.insert(x, gaps, np.nan),
            np.insert(values, gaps, np.nan),
            linewidth=0.8,
            color=COLOURS[0],
            marker=".",
            markersize=1.5,
        )
        axes.set_xlim(x[0], x[-1] + (x[-1] - x[0]) / len(x))
        axes.set_title(f"sensor {found.sensor_ids[sensor]}: {why}"[:110], loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        if times is None:
            axes.set_xlabel("step")
        else:
            _date_axis(axes)


def _shown(found: Found) -> list[tuple[int, int, str]]:
    """Sensors, the step to look at and why: an ordinary one, the worst ones, and else those that miss most."""
    look = found.scan
    means = np.where(look.measured > 0, look.mean, np.inf)
    ordinary = int(np.argsort(means)[np.count_nonzero(look.measured) // 2]) if look.measured.any() else 0
    shown = [(ordinary, int(found.steps_per_day * 3.5), "an ordinary one")]
    for i in (*found.reasons, *np.argsort(look.measured, kind="stable").tolist()):
        if len(shown) == min(SERIES, len(found.sensor_ids)):
            break
        if i in (sensor for sensor, _, _ in shown) or look.lowest[i] >= look.highest[i]:  # nothing to be seen
            continue
        runs = look.stuck if look.stuck.length[i] >= found.steps_per_day else look.outage
        centre = int(runs.start[i] + runs.length[i] // 2)
        missing = f"{percent(1 - look.measured[i] / look.steps)} missing"
        shown.append((i, _peak(found, i) if _spikes(found, i) else centre, "; ".join(found.reasons.get(i, [missing]))))
    return shown


def _spikes(found: Found, i: int) -> bool:
    return any(reason.startswith("goes up to") for reason in found.reasons.get(i, []))


def _peak(found: Found, i: int) -> int:
    return int(np.argmax(np.where(np.isfinite(found.values[:, i]), found.values[:, i], -np.inf)))


def _draw_map(found: Found, axes: Any) -> None:
    places, facts = found.places, found.graph
    assert isinstance(places, np.ndarray)
    latitude, longitude = places.T
    title = "where they are"
    if isinstance(found.adjacency, np.ndarray) and facts is not None:
        drawn = facts.edges <= EDGES
        title += f", {facts.edges} edges" + ("" if drawn else " (too many to draw)")
        ends = np.argwhere(np.triu(found.adjacency + found.adjacency.T, 1)) if drawn else np.empty((0, 2), dtype=int)
        lines = require("matplotlib.collections", "picture").LineCollection(
            np.stack([longitude[ends], latitude[ends]], axis=-1), colors="0.6", linewidths=0.6, zorder=1
        )
        axes.add_collection(lines)
    size = float(np.clip(4000 / len(places), 2, 28))
    dots = axes.scatter(longitude, latitude, c=found.scan.mean, s=size, cmap="viridis", zorder=2)
    odd = list(found.reasons)
    if odd:
        axes.scatter(
            *(longitude[odd], latitude[odd]),
            s=3 * size,
            facecolors="none",
            edgecolors=BAD,
            label="to look at",
            zorder=3,
        )
        axes.legend(loc="best", frameon=False)
    axes.set_title(title, loc="left")
    axes.set(xlabel="longitude", ylabel="latitude", aspect=1 / np.cos(np.radians(latitude.mean())))
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(axis="x", nbins=5)
    axes.figure.colorbar(dots, ax=axes, label=f"mean {found.measures}", pad=0.01)


def _days(times: np.ndarray) -> np.ndarray:
    """matplotlib's dates: days since 1970."""
    return times.astype("datetime64[s]").astype(np.int64) / SECONDS_PER_DAY


def _date_axis(axes: Any) -> None:
    dates = require("matplotlib.dates", "picture")
    locator = dates.AutoDateLocator(minticks=4, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
