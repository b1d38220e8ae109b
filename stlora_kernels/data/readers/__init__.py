"""Readers of the formats this field's data come in; each turns a broken file into a one-line ``InputError``."""

from stlora_kernels.data.readers.graph_csv import read_graph_csv, read_road_csv
from stlora_kernels.data.readers.h5 import read_pandas_h5
from stlora_kernels.data.readers.locations_csv import read_locations_csv
from stlora_kernels.data.readers.npz import read_npz
from stlora_kernels.data.readers.pickled import read_graph_pickle
from stlora_kernels.data.readers.series_csv import read_series_csv

__all__ = [
    "read_graph_csv",
    "read_graph_pickle",
    "read_locations_csv",
    "read_npz",
    "read_pandas_h5",
    "read_road_csv",
    "read_series_csv",
]
