"""Where the sensors are: a csv of their ids, latitudes and longitudes."""

from pathlib import Path

import numpy as np

from stlora_kernels.data.graph import first_few
from stlora_kernels.data.readers.files import csv_rows, is_number, parse_numbers, reading
from stlora_kernels.errors import InputError

# What the columns are called in lower case, by METR-LA, LargeST and others.
ID = {"sensor_id", "id", "sensor", "station_id", "station"}
LATITUDE = {"latitude", "lat"}
LONGITUDE = {"longitude", "lon", "lng"}


def read_locations_csv(path: Path, sensor_ids: tuple[str, ...]) -> np.ndarray:
    """Latitude and longitude of the given sensors in degrees, ``[N, 2]`` float32 (good to a metre), looked up by id.

    The csv has a header that names the columns (``sensor_id`` or ``id``, ``latitude`` or ``lat``, ``longitude``,
    ``lon`` or ``lng``; others are passed over), or it has none and is ``id,latitude,longitude``. Other sensors are
    left out.

    Raises:
        InputError: if the file is no such table, lacks a sensor, has two places for one, or one that is not on Earth.
    """
    with reading(path, "a csv of sensor locations"):
        rows = list(csv_rows(path))
        id_column, *place_columns = _columns(rows[0][1] if rows else [], path)
        has_header = not is_number(rows[0][1][place_columns[0]])
        places: dict[str, tuple[float, float]] = {}
        for line, cells in rows[has_header:]:
            sensor, place = cells[id_column], [cells[column] for column in place_columns]
            latitude, longitude = parse_numbers(place, ["latitude", "longitude"], path, line).tolist()
            if not (abs(latitude) <= 90 and abs(longitude) <= 180):
                raise InputError(
                    f"{path}, line {line}: sensor {sensor} is at latitude {place[0]!r}, longitude {place[1]!r}, "
                    "expected degrees in [-90, 90] and [-180, 180]"
                )
            if places.setdefault(sensor, (latitude, longitude)) != (latitude, longitude):
                raise InputError(f"{path}, line {line}: a second place for sensor {sensor}")
    absent = [sensor for sensor in sensor_ids if sensor not in places]
    if absent:
        raise InputError(
            f"{path}: {len(absent)} of the data's {len(sensor_ids)} sensors have no place: {first_few(absent)}; "
            f"the {len(places)} places are those of {first_few(list(places))}"
        )
    return np.array([places[sensor] for sensor in sensor_ids], dtype=np.float32)


def _columns(first: list[str], path: Path) -> list[int]:
    """Where id, latitude and longitude stand, by the first row."""
    if len(first) == 3 and is_number(first[1]) and is_number(first[2]):
        return [0, 1, 2]
    names = [cell.lower() for cell in first]
    found = [[i for i, name in enumerate(names) if name in known] for known in (ID, LATITUDE, LONGITUDE)]
    if [len(columns) for columns in found] != [1, 1, 1]:
        raise InputError(f"{path} has the columns {','.join(first)!r}, expected sensor_id,latitude,longitude")
    return [columns[0] for columns in found]
