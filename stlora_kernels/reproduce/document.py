"""An experiment as a document: what was measured on what, the tables, and what their numbers mean; and as csv."""

import csv
import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any

from stlora_kernels.data.registry import DATASETS
from stlora_kernels.reproduce.grid import Cell
from stlora_kernels.reproduce.options import Experiment
from stlora_kernels.reproduce.results import GridResults, Result
from stlora_kernels.reproduce.statistics import Comparison
from stlora_kernels.reproduce.tables import difference, parameters, seconds, seeds_list, tables_of

TITLES: dict[Experiment, str] = {
    "table2": 'Table 2: models with ST-LoRA ("+") and without, beside classical baselines',
    "table3": "Table 3: what ST-LoRA changes on each data set",
    "figure4": "Figure 4: what ST-LoRA costs in time and parameters",
    "figure5": "Figure 5: layers and rank of ST-LoRA",
}
NOTES = """\
- Mean ± standard deviation (n - 1) over the seeds that have both runs. Difference: "+" minus without, seed by seed; an
  error below 0 is in favour of the adapter. Interval and p: two-sided paired t-test, each by itself, not corrected for
  how many there are. "-": too few seeds, or nothing to test.
- Errors are of the test part, in the unit of the data (MAPE in percent); missing targets are left out. Of the averages
  over the horizon, "mean of steps" is the mean of the steps' errors, "pooled" takes all targets as one set.
- Seconds per epoch are of training without validation, the median of a run's epochs. They mean little where runs shared
  the machine (--jobs)."""
NAMED = 5  # runs that are not done, by name; the others by number


def document(grid: GridResults, failed: dict[str, str], today: datetime.date) -> str:
    """All of it in Markdown."""
    tables = "\n\n".join(table.markdown() for table in tables_of(grid) if table.rows)
    lines = "\n".join(f"- {line}" for line in _facts(grid, failed, today))
    return f"# {TITLES[grid.experiment]}\n\n{lines}\n\n{tables}\n\n{NOTES}\n"


def state(grid: GridResults) -> str:
    """Such as "partial: 7 of 12 runs"."""
    done, all_of = len(grid.done), len(grid.cells)
    return f"complete: {all_of} runs" if done == all_of else f"partial: {done} of {all_of} runs"


def about_data(result: Result) -> str:
    """What the numbers of a data set were measured on, whether it is measured, and how much of the set it is."""
    data = result.metrics["data"]
    origin = "synthetic, not measured" if data["synthetic"] else "measured"
    info = DATASETS.get(data["name"].lower())
    whole = ""
    if info is not None and (data["nodes"], data["steps"]) != (info.num_nodes, info.num_steps):
        whole = f" (a part: the full set has {info.num_nodes} and {info.num_steps})"
    windows = "/".join(str(data["windows"][part]) for part in ("train", "val", "test"))
    return (
        f"{data['name']} ({origin}): {data['quantity']} in {data['unit'] or 'its own unit'}, {data['nodes']} sensors, "
        f"{data['steps']} steps of {1440 / data['steps_per_day']:g} min from {data['first_step'][:16]}{whole}; "
        f"{windows} windows for training/validation/test"
    )


def seeds_of(results: Sequence[Result]) -> str:
    """Of the runs that have any."""
    return seeds_list({result.cell.config.seed for result in results if not result.cell.is_fitted})


def epochs_of(cells: Sequence[Cell]) -> str:
    """How long every run may be."""
    epochs = cells[0].config.epochs
    return "epochs as published for each backbone" if epochs is None else f"at most {epochs} epochs"


def table_csv(grid: GridResults) -> str:
    """Every comparison as a row that says by itself what it is of; the numbers in full."""
    rows = []
    for pair in grid.pairs():
        of = {**_row_facts(grid, pair.any), "backbone": pair.backbone, "layers": pair.layers, "rank": pair.rank}
        found: dict[tuple[str, str], Comparison] = {key: difference(pair, key) for key in pair.any.errors()}
        found["seconds per epoch", ""] = seconds(pair)
        for (kind, at), one in found.items():
            rows.append({**of, "what": kind, "at": at, **_numbers(one)})
        plain, adapted = parameters(pair)
        rows.append({**of, "what": "parameters", "plain": plain, "plus": adapted})
    for result in grid.fitted():
        of = {**_row_facts(grid, result), "backbone": result.cell.config.backbone}
        rows += [{**of, "what": kind, "at": at, "plain": value} for (kind, at), value in result.errors().items()]
    return _csv(rows)


def runs_csv(grid: GridResults) -> str:
    """Every run as a row."""
    rows = []
    for result in grid.done:
        config, metrics = result.cell.config, result.metrics
        row = {"run": result.cell.name, **_row_facts(grid, result), "backbone": config.backbone}
        row |= {"stlora": config.stlora, "seed": config.seed, "parameters": result.parameters}
        if config.stlora:
            row |= {"layers": config.adapter.layers, "rank": config.adapter.rank}
        row |= {"seconds per epoch": result.seconds, "best epoch": metrics.get("best_epoch")}
        row |= {"epochs": len(metrics.get("epochs", ())), "device": metrics["device"], "threads": metrics["threads"]}
        rows.append(row | {f"{kind} {at}": value for (kind, at), value in result.errors().items()})
    return _csv(rows)


def _facts(grid: GridResults, failed: dict[str, str], today: datetime.date) -> Iterator[str]:
    yield f"**{state(grid)}**"
    if missing := grid.missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        yield f"Not done: {', '.join(missing[:NAMED])}{more}"
    for name in missing:
        if name in failed:
            yield f"Failed: {name}: {failed[name]}"
    for result in grid.datasets.values():
        yield f"Data: {about_data(result)}"
    yield f"Runs: {seeds_of(grid.done)}; {epochs_of(grid.cells)}, and early stopping"
    if grid.cells[0].train_args:
        yield f"Options of every run: {' '.join(grid.cells[0].train_args)}"
    machines = sorted({(r.metrics["device"], r.metrics["threads"]) for r in grid.done})
    yield f"Computed on: {'; '.join(f'{device}, {threads} thread(s)' for device, threads in machines)}"
    kinds = {tuple(sorted(result.metrics["versions"].items())) for result in grid.done}
    versions = "; or ".join(", ".join(f"{name} {version}" for name, version in kind) for kind in sorted(kinds))
    yield f"Versions: {versions}; {today.isoformat()}"


def _row_facts(grid: GridResults, result: Result) -> dict[str, Any]:
    data = result.metrics["data"]
    facts = {name: data[name] for name in ("name", "synthetic", "nodes", "steps")}
    return {"experiment": grid.experiment, "grid": state(grid), **facts, "epochs allowed": result.epochs_allowed}


def _numbers(found: Comparison) -> dict[str, Any]:
    return {
        "seeds": " ".join(map(str, found.seeds)),
        "plain": found.plain.mean,
        "plain std": found.plain.std,
        "plus": found.adapted.mean,
        "plus std": found.adapted.std,
        "difference": found.difference.mean,
        "difference std": found.difference.std,
        "low 95 %": found.interval[0],
        "high 95 %": found.interval[1],
        "p": found.p,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    # What is not defined is left empty: no reader of csv agrees with another on how to write NaN.
    writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)
    return text.getvalue()
