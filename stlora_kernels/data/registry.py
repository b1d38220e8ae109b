"""The data sets by name: what is in their files, and where the files come from."""

from dataclasses import dataclass
from typing import Literal

PEMS_SOURCE = "the PEMS03/04/07/08 archive linked from https://github.com/Davidham3/STSGCN holds it"
DCRNN_SOURCE = "https://github.com/liyaguang/DCRNN has the graphs and links to the .h5 files"
TAXI_SOURCE = (
    "it is that of https://github.com/lehaifeng/T-GCN with a first column of times, every 15 minutes from 2015-01-01"
)


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about one full data set.

    Args:
        values_file: ``.npz``, ``.h5`` or ``.csv``; its suffix says how it is read.
        graph_files: files that hold the graph; the first that is there is used.
        graph: how a csv of distances becomes the adjacency the field uses with this set: Gaussian kernel or
            binary and symmetric; "matrix" where the file is the adjacency itself. A pickle always is.
        ids_file: sensor ids in node order, for sets whose graph names sensors by id and whose values do not.
        locations_file: coordinates by sensor id, for sets that come with them.
        num_nodes, num_steps, first_step: of the full set; published parts of it have fewer nodes or steps.
        source: how to get the files.
    """

    name: str
    values_file: str
    graph_files: tuple[str, ...]
    graph: Literal["kernel", "binary", "matrix"]
    num_nodes: int
    num_steps: int
    first_step: str
    quantity: str
    unit: str
    split: tuple[float, float, float]
    source: str
    ids_file: str | None = None
    locations_file: str | None = None
    step_minutes: int = 5
    null_value: float = 0.0

    @property
    def steps_per_day(self) -> int:
        return 24 * 60 // self.step_minutes


def _pems(name: str, num_nodes: int, num_steps: int, first_step: str, ids_file: str | None = None) -> DatasetInfo:
    """PEMS03, 04, 07 and 08 differ in little (04 and 08 also hold occupancy and speed, as channels 1 and 2)."""
    return DatasetInfo(
        name=name,
        values_file=f"{name}.npz",
        graph_files=(f"{name}.csv",),
        graph="binary",
        num_nodes=num_nodes,
        num_steps=num_steps,
        first_step=first_step,
        quantity="flow",
        unit="veh/5min",
        split=(0.6, 0.2, 0.2),
        source=PEMS_SOURCE,
        ids_file=ids_file,
    )


DATASETS = {
    info.name.lower(): info
    for info in (
        DatasetInfo(
            name="METR-LA",
            values_file="metr-la.h5",
            graph_files=("adj_mx.pkl", "distances_la_2012.csv"),
            graph="kernel",
            num_nodes=207,
            num_steps=34272,
            first_step="2012-03-01T00:00",
            quantity="speed",
            unit="mph",
            split=(0.7, 0.1, 0.2),
            source=DCRNN_SOURCE,
            locations_file="graph_sensor_locations.csv",
        ),
        DatasetInfo(
            name="PEMS-BAY",
            values_file="pems-bay.h5",
            graph_files=("adj_mx_bay.pkl", "distances_bay_2017.csv"),
            graph="kernel",
            num_nodes=325,
            num_steps=52116,
            first_step="2017-01-01T00:00",
            quantity="speed",
            unit="mph",
            split=(0.7, 0.1, 0.2),
            source=DCRNN_SOURCE,
            locations_file="graph_sensor_locations_bay.csv",
        ),
        _pems("PEMS03", 358, 26208, "2018-09-01T00:00", ids_file="PEMS03.txt"),
        _pems("PEMS04", 307, 16992, "2018-01-01T00:00"),
        _pems("PEMS07", 883, 28224, "2017-05-01T00:00"),
        _pems("PEMS08", 170, 17856, "2016-07-01T00:00"),
        DatasetInfo(
            name="SZ-TAXI",
            values_file="sz_speed.csv",
            graph_files=("sz_adj.csv",),
            graph="matrix",
            num_nodes=156,
            num_steps=2976,
            first_step="2015-01-01T00:00",
            quantity="speed",
            unit="km/h",
            split=(0.7, 0.1, 0.2),
            source=TAXI_SOURCE,
            step_minutes=15,
        ),
    )
}


def dataset_names() -> tuple[str, ...]:
    """The names ``load_dataset`` knows."""
    return (*(info.name for info in DATASETS.values()), "synthetic")
