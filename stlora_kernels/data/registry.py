"""The data sets by name: what is in their files, and where the files come from."""

from dataclasses import dataclass
from typing import Literal

from stlora_kernels.errors import InputError

PEMS_SOURCE = "the PEMS03/04/07/08 archive linked from https://github.com/Davidham3/STSGCN holds it"
DCRNN_SOURCE = "https://github.com/liyaguang/DCRNN has the graphs and links to the .h5 files"
TAXI_SOURCE = (
    "the folder data of https://github.com/lehaifeng/T-GCN; `python -m stlora_kernels.data prepare SZ-TAXI` adds the "
    "column of times it lacks, every 15 minutes from 2015-01-01"
)
LARGEST_SOURCE = (
    "https://github.com/liuxu77/LargeST links to CA's files (Kaggle, needs a login), and its notebooks cut GLA and GBA "
    "out of them; one year is enough"
)
PEMS_LICENCE = "Caltrans PeMS measurements; no licence is stated with these files, see the terms of pems.dot.ca.gov"
LARGEST_LICENCE = "CC BY-NC 4.0, not for commercial use; Caltrans PeMS measurements"


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
        source: how to get the files by hand; ``mirrors.MIRRORS`` has the addresses of ``data download``.
        edges: of the full set's graph, self-loops not counted; for csv files of distances their rows.
        licence: what is known of the terms of use.
        years: the years of a ``values_file`` that has ``{year}`` in its name; some of them will do.
        file_step_minutes: step of the files where they are finer than the set is used at.
        scaler: published mean and standard deviation of the training inputs (field's windows, zeros included).
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
    null_value: float | None = 0.0
    edges: int = 0
    licence: str = PEMS_LICENCE
    years: tuple[int, ...] = ()
    file_step_minutes: int | None = None
    scaler: tuple[float, float] | None = None

    @property
    def steps_per_day(self) -> int:
        return 24 * 60 // self.step_minutes

    @property
    def values_files(self) -> tuple[str, ...]:
        """The file of values, or one for every year."""
        return tuple(self.values_file.format(year=year) for year in self.years) or (self.values_file,)

    @property
    def files(self) -> tuple[str, ...]:
        """What a complete set consists of: values, the preferred graph, and ids."""
        return (*self.values_files, self.graph_files[0], *([self.ids_file] if self.ids_file else []))


def _pems(
    name: str, num_nodes: int, num_steps: int, first_step: str, edges: int, ids_file: str | None = None
) -> DatasetInfo:
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
        edges=edges,
    )


def _largest(name: str, num_nodes: int, edges: int) -> DatasetInfo:
    """LargeST (Liu et al., NeurIPS 2023): five years of 5-minute files, used at 15 minutes."""
    return DatasetInfo(
        name=f"LargeST-{name}",
        values_file=f"{name.lower()}_his_raw_{{year}}.h5" if name == "CA" else f"{name.lower()}_his_{{year}}.h5",
        graph_files=(f"{name.lower()}_rn_adj.npy",),
        graph="matrix",
        num_nodes=num_nodes,
        num_steps=175296,
        first_step="2017-01-01T00:00",
        quantity="flow",
        unit="veh/5min",
        split=(0.6, 0.2, 0.2),
        source=LARGEST_SOURCE,
        step_minutes=15,
        edges=edges,
        licence=LARGEST_LICENCE,
        years=(2017, 2018, 2019, 2020, 2021),
        file_step_minutes=5 if name == "CA" else None,
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
            edges=1515,
            licence="loop detectors of Los Angeles County; no licence is stated with the files",
            scaler=(54.40592829587626, 19.493739270573098),
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
            edges=2369,
            licence="CC BY 4.0 at zenodo.org/records/4263971; Caltrans PeMS measurements",
        ),
        _pems("PEMS03", 358, 26208, "2018-09-01T00:00", 547, ids_file="PEMS03.txt"),
        _pems("PEMS04", 307, 16992, "2018-01-01T00:00", 340),
        _pems("PEMS07", 883, 28224, "2017-05-01T00:00", 866),
        _pems("PEMS08", 170, 17856, "2016-07-01T00:00", 295),
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
            edges=532,
            licence="taxis of Shenzhen; no licence is stated with the files",
        ),
        _largest("CA", 8600, 201363),
        _largest("GLA", 3834, 98703),
        _largest("GBA", 2352, 61246),
    )
}


def find_dataset(name: str) -> DatasetInfo:
    """A set with files, by its name in upper or lower case.

    Raises:
        InputError: if there is no such set.
    """
    info = DATASETS.get(name.lower())
    if info is None:
        known = ", ".join(info.name for info in DATASETS.values())
        raise InputError(f"no files are known of data set {name!r}, expected one of {known}")
    return info


def dataset_names() -> tuple[str, ...]:
    """The names ``load_dataset`` knows."""
    return (*(info.name for info in DATASETS.values()), "synthetic")
