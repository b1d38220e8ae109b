"""What was found, for a reader."""

import sys

import numpy as np

from stlora_kernels.data.graph import first_few
from stlora_kernels.data.inspection.found import Found, percent
from stlora_kernels.errors import InputError, require

WORST = 5  # sensors in the table of missing values
SUSPICIOUS = 10  # and in the other one


def print_report(found: Found) -> None:
    """Print it to stdout."""
    table, console = require("rich.table", "train"), require("rich.console", "train")
    width = None if sys.stdout.isatty() else 120  # a pipe has none
    out = console.Console(width=width, markup=False, highlight=False, emoji=False)
    summary = table.Table.grid(padding=(0, 2))
    for label, lines in _summary(found).items():
        for i, line in enumerate(lines):
            summary.add_row("" if i else label, line)
    steps, sensors = found.values.shape
    size = f"{sensors} sensors, {steps} steps"
    if found.full is not None and found.full != (sensors, steps):
        size += f" (the whole set has {found.full[0]} and {found.full[1]})"
    out.print(f"{found.name}: {found.measures}, {size}")
    out.print(summary)
    missing = found.scan.steps - found.scan.measured
    if missing.any():
        worst = table.Table(title="Most missing", title_justify="left")
        for column in ("sensor", "missing", "NaN", "zeros", "longest outage"):
            worst.add_column(column, justify="left" if column == "sensor" else "right")
        for i in np.argsort(-missing, kind="stable")[: min(WORST, np.count_nonzero(missing))]:
            worst.add_row(found.sensor_ids[i], *_missing(found, int(i)))
        out.print(worst)
    if found.reasons:
        suspicious = table.Table(title=f"Sensors to look at: {len(found.reasons)}", title_justify="left")
        suspicious.add_column("sensor", no_wrap=True)
        suspicious.add_column("why")
        for i in list(found.reasons)[:SUSPICIOUS]:
            suspicious.add_row(found.sensor_ids[i], "; ".join(found.reasons[i]))
        if len(found.reasons) > SUSPICIOUS:
            suspicious.add_row(f"{len(found.reasons) - SUSPICIOUS} more", "")
        out.print(suspicious)
    else:
        out.print("No sensor looks suspicious.")


def _summary(found: Found) -> dict[str, list[str]]:
    calendar, problems = found.calendar, list(found.problems)
    lines = {
        "reading": problems,
        "time": calendar.lines() if calendar is not None else ["the file has no times, or no two that follow"],
        "values": _values(found),
        "missing": _all_missing(found),
        "graph": _graph(found),
        "training": [found.training],
    }
    if found.duplicates:
        groups = [" = ".join(found.sensor_ids[i] for i in group) for group in found.duplicates]
        lines["values"].append(f"sensors with the very same series, {len(groups)} times: {first_few(groups)}")
    if len(set(found.sensor_ids)) < len(found.sensor_ids):
        twice = sorted({sensor for sensor in found.sensor_ids if found.sensor_ids.count(sensor) > 1})
        lines["values"].append(f"ids of more than one sensor: {first_few(twice)}")
    return lines


def _values(found: Found) -> list[str]:
    look = found.scan
    measured = int(look.measured.sum())
    if not measured:
        return ["nothing was measured"]
    mean = float(np.nansum(look.mean * look.measured) / measured)
    there = look.measured > 0
    usual = float(np.median(look.usual[there]))
    lines = [
        f"{look.lowest[there].min():g} to {look.highest[there].max():g}, mean {mean:.4g}; "
        f"the middle sensor stays below {usual:.4g} for 99 % of the time"
    ]
    if found.channels > 1:
        lines.append(f"{found.channels} channels; this is about the first, which is forecast")
    for count, what in ((look.infinite.sum(), "infinite"), (look.negative.sum(), "negative")):
        if count:
            lines.append(f"{what} values: {count}")
    return lines


def _all_missing(found: Found) -> list[str]:
    look, total = found.scan, found.values.size
    nan, zero = look.nan.sum() / total, look.zero.sum() / total
    lines = [f"{percent(1 - look.measured.sum() / total)} of all values: NaN {percent(nan)}"]
    if found.null_value == 0:
        lines[0] += f", zeros {percent(zero)}"
    elif found.null_value is not None:
        lines[0] += f", the rest {found.null_value:g}"
    if found.null_value != 0 and zero > 0:
        lines.append(f"{percent(zero)} zeros count as measurements; if they mean nothing was measured: --null-value 0")
    whole = (look.measured == look.steps).sum()
    lines.append(f"{whole} of {len(found.sensor_ids)} sensors miss nothing")
    return lines


def _graph(found: Found) -> list[str]:
    if isinstance(found.adjacency, InputError):
        return [f"none: {found.adjacency}"]
    facts = found.graph
    assert facts is not None
    lines = [f"{facts}; {facts.nonzeros} non-zeros, {facts.self_loops} self-loops, {facts.components} components"]
    if facts.isolated and len(facts.isolated) < facts.nodes:
        lines.append(f"isolated: {first_few([found.sensor_ids[i] for i in facts.isolated])}")
    return lines


def _missing(found: Found, i: int) -> tuple[str, ...]:
    look = found.scan
    outage = int(look.outage.length[i])
    shares = (1 - look.measured[i] / look.steps, look.nan[i] / look.steps, look.zero[i] / look.steps)
    length = f"{outage / found.steps_per_day:.1f} days" if outage >= found.steps_per_day else f"{outage} steps"
    return (*map(percent, shares), length)
