"""Data sets: read, generated, and cut into windows."""

from stlora_kernels.data.load import load_dataset
from stlora_kernels.data.registry import dataset_names
from stlora_kernels.data.scaler import Scaler
from stlora_kernels.data.sensor_data import SensorData
from stlora_kernels.data.synthetic import synthetic
from stlora_kernels.data.windows import Batch, ForecastData, Windows

__all__ = [
    "Batch",
    "ForecastData",
    "Scaler",
    "SensorData",
    "Windows",
    "dataset_names",
    "load_dataset",
    "synthetic",
]
