"""``python -m stlora_kernels.data convert SRC DST``: a data set as a folder of plain files, parsed once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stlora_kernels.data.converted import new_values, write_converted
from stlora_kernels.data.graph_source import GraphKind
from stlora_kernels.data.load import load_dataset
from stlora_kernels.data.missing import NullValue
from stlora_kernels.files import new_folder


@dataclass(frozen=True)
class ConvertOptions:
    """Write a data set as a folder that --dataset takes and maps into memory, so that it is parsed only once."""

    source: Annotated[str, tyro.conf.Positional]
    """name of a data set, or the path of a .csv or .h5 of one's own; a pattern joins several"""
    destination: Annotated[Path, tyro.conf.Positional]
    """folder to make"""
    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""
    graph: GraphKind = "dataset"
    """what to make the graph of, as for training; correlation waits until training"""
    adjacency: Path | None = None
    """graph (.csv, .pkl or .npy) of files of one's own, or to use in place of the data set's"""
    locations: Path | None = None
    """csv of sensor_id,latitude,longitude for --graph neighbours, if the data set has none"""
    first_step: str | None = None
    """time of the first step, such as 2016-07-01T00:00, of an .npz that is not the full set"""
    resample: int | None = None
    """minutes of a longer step, to which the measured values are averaged"""
    snap: int | None = None
    """seconds by which a clock may be early or late; such times are moved to the even step"""
    target: str | None = None
    """the channel to be forecast, where there are several"""
    inputs: Literal["target", "all"] | None = None
    """channels that models see: the target, or all; by default all of one's own files, the target of published sets"""
    null_value: NullValue = "dataset"
    """target that means missing; dataset: the data set's own (0; of files of one's own none); none: only NaN is"""
    name: str | None = None
    """what tables call it; by default the set's name or the file's"""
    quantity: str | None = None
    """what is measured, such as speed"""
    unit: str | None = None
    """its unit, such as km/h"""


def run(options: ConvertOptions) -> None:
    """Write the folder, whole or not at all.

    Raises:
        InputError: if the data cannot be read, or the destination is there already or cannot be made.
    """
    with new_folder(options.destination) as folder:
        data = load_dataset(
            options.source,
            options.data_dir,
            graph=options.graph,
            adjacency=options.adjacency,
            locations=options.locations,
            first_step=options.first_step,
            resample=options.resample,
            snap=options.snap,
            target=options.target,
            null_value=options.null_value,
            allocate=lambda shape: new_values(folder, shape),
        )
        said = {name: getattr(options, name) for name in ("name", "quantity", "unit", "inputs")}
        changes = {name: value for name, value in said.items() if value is not None}
        data = replace(data, **changes)
        write_converted(folder, data)
    step = 1440 / data.steps_per_day
    print(
        f"{options.destination}: {data.num_nodes} sensors, {data.num_steps} steps of {step:g} min, "
        f"{data.values.nbytes / 2**20:.1f} MiB"
    )
