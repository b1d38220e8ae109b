"""``list``: the registered data sets, their facts, and what of them is there."""

from dataclasses import dataclass
from pathlib import Path

from stlora_kernels.data.folders import chosen_folder, find_file
from stlora_kernels.data.mirrors import MIRRORS
from stlora_kernels.data.registry import DATASETS, DatasetInfo
from stlora_kernels.errors import require


@dataclass(frozen=True)
class ListOptions:
    """Print the data sets that are known by name, and what of them is in the data directory."""

    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""


def run(options: ListOptions) -> None:
    """Print a table of the facts, then where each set comes from."""
    folder = chosen_folder(options.data_dir)
    table = require("rich.table", "train").Table(
        box=require("rich.box", "train").SIMPLE, pad_edge=False, collapse_padding=True
    )
    for column in ("name", "nodes", "edges", "steps", "min", "first step", "what", "split", "here"):
        right = column in ("nodes", "edges", "steps", "min")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for info in DATASETS.values():
        table.add_row(
            *(info.name, str(info.num_nodes), str(info.edges), str(info.num_steps), str(info.step_minutes)),
            *(info.first_step.partition("T")[0], info.quantity, _split(info), _here(info, folder)),
        )
    require("rich.console", "train").Console().print(table)
    for info in DATASETS.values():
        mirrors = [len(MIRRORS.get(info.name, {}).get(file, ())) for file in info.files]
        print(f"{info.name}, {info.quantity} in {info.unit}\n  files: {', '.join(info.files)}")
        print(f"  licence: {info.licence}\n  download: {_download(info, mirrors)}\n  by hand: {info.source}")
    print(f"\ndata directory: {folder}{'' if folder.is_dir() else ' (not there yet)'}")
    print('"here" counts files by their names; prepare NAME checks what is in them. synthetic needs no files.')


def _split(info: DatasetInfo) -> str:
    return ":".join(f"{10 * share:g}" for share in info.split)


def _here(info: DatasetInfo, folder: Path) -> str:
    there = [file for file in info.files if find_file(info, folder, file) is not None]
    return f"{len(there)}/{len(info.files)}"


def _download(info: DatasetInfo, mirrors: list[int]) -> str:
    if not all(mirrors):
        return "no address without a login is known"
    least, most = min(mirrors), max(mirrors)
    if most == 1:
        return "one address per file, no mirror of it"
    return f"{least if least == most else f'{least} to {most}'} mirrors per file"
