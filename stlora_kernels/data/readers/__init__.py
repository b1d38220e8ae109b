"""Readers of the formats this field's data come in; each turns a broken file into a one-line ``InputError``."""

from stlora_kernels.data.readers.graph_csv import read_graph_csv, read_road_csv
from stlora_kernels.data.readers.h5 import open_pandas_h5, read_pandas_h5
from stlora_kernels.data.readers.locations_csv import read_locations_csv
from stlora_kernels.data.readers.matrix_npy import read_matrix_npy
from stlora_kernels.data.readers.npz import read_npz
from stlora_kernels.data.readers.pickled import read_graph_pickle
from stlora_kernels.data.readers.recording import Recording
from stlora_kernels.data.readers.series_csv import open_series_csv, read_series_csv

__all__ = [
    "Recording",
    "open_pandas_h5",
    "open_series_csv",
    "read_graph_csv",
    "read_graph_pickle",
    "read_locations_csv",
    "read_matrix_npy",
    "read_npz",
    "read_pandas_h5",
    "read_road_csv",
    "read_series_csv",
]
