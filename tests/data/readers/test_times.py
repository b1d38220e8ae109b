"""Times with and without their offset from UTC, around the nights in which clocks are set."""

import logging

import numpy as np
import pytest

from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.data.readers import open_series_csv
from stlora_kernels.errors import InputError

AUTUMN = ["00:30:00-07:00", "01:00:00-07:00", "01:30:00-07:00", "01:00:00-08:00", "01:30:00-08:00", "02:00:00-08:00"]
SPRING = ["01:00:00-08:00", "01:30:00-08:00", "03:00:00-07:00", "03:30:00-07:00"]


def write(folder, day: str, moments: list[str]):
    rows = [f"{day} {moment},{i},{i + 1}" for i, moment in enumerate(moments)]
    (folder / "city.csv").write_text("\n".join(["t,a,b", *rows]) + "\n")
    (folder / "g.csv").write_text("from,to,weight\na,b,1\n")
    return folder / "city.csv"


@pytest.mark.parametrize(
    ("day", "moments", "steps_of_day"),
    [
        pytest.param("2024-11-03", AUTUMN, [1, 2, 3, 2, 3, 4], id="the-hour-that-comes-twice"),
        pytest.param("2024-03-10", SPRING, [2, 3, 6, 7], id="the-hour-that-is-skipped"),
    ],
)
def test_time_goes_on_evenly_and_rhythms_follow_the_wall(tmp_path, caplog, day, moments, steps_of_day):
    path = write(tmp_path, day, moments)
    data = load_dataset(str(path), adjacency=tmp_path / "g.csv")
    assert set(np.diff(data.times).astype(int)) == {1800}
    assert data.steps_per_day == 48
    assert data.calendar()[:, 0].tolist() == steps_of_day
    assert data.calendar()[:, 1].tolist() == [6] * len(moments)
    ForecastData(data, window=1, horizon=1, split=(1, 1, 1))
    assert "gap" not in caplog.text


@pytest.mark.parametrize("form", ["T{}", " {}"])
@pytest.mark.parametrize("offset", ["-0800", "-08", "-08:00", " -08:00", "Z", "z", "+00:00", " UTC"])
def test_one_offset_leaves_the_clock_as_it_is_written(tmp_path, form, offset):
    path = tmp_path / "a.csv"
    path.write_text("t,a\n" + "\n".join(f"2024-01-05{form.format(m)}{offset},1" for m in ("08:00", "08:15")))
    recording = open_series_csv(path)
    assert recording.times.tolist() == np.array(["2024-01-05T08:00", "2024-01-05T08:15"], "M8[s]").tolist()
    assert recording.clock is None
    assert recording.offset == (-8 * 3600 if "8" in offset else 0)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        pytest.param(
            [moment[:8] for moment in AUTUMN],
            "line 5: 2024-11-03 01:00:00 follows 2024-11-03 01:30:00.*such as 2024-11-03 01:00:00-08:00",
            id="ambiguous-hour",
        ),
        pytest.param(
            [*AUTUMN[:2], "01:30:00"],
            "line 4, column 1: '2024-11-03 01:30:00' is without an offset from UTC, the lines before are with",
            id="one-without",
        ),
        pytest.param(["00:30:00", *AUTUMN[1:3]], "line 3.*is with an offset.*before are without", id="one-with"),
        pytest.param(["00:30:00+25:00"], "line 2.*more than 14 hours from UTC", id="no-such-offset"),
        pytest.param(["00:30:00 PST"], "line 2, column 1: .*is not a time", id="name-of-a-zone"),
        pytest.param(["00:30:00-7", "01:00:00-7"], "line 2, column 1: .*00:30:00-7' is not a time", id="one-digit"),
        pytest.param(["00:30:00-7", "01:00:00-8"], "line 2, column 1: .*00:30:00-7' is not a time", id="two-of-them"),
        pytest.param(
            ["00:30:00 GMT+1"], r"00:30:00 GMT\+1' is not a time such as .* or 2015-01-31 08:15:00-07:00", id="GMT"
        ),
        pytest.param(
            ["00:30:00-08:00", "09:00:00Z"],
            r"line 3, column 1: '2024-11-03 09:00:00Z' is \+00:00 from UTC, line 2 -08:00, expected at most 2 hours",
            id="local-and-utc",
        ),
        pytest.param(
            ["00:30:00.0", "00:30:01.9"],
            "line 3.*00:30:01.9' is between two seconds, expected whole ones",
            id="fraction",
        ),
        pytest.param(
            ["00:30:00-08:00"] * 2, "line 3: .* follows .*, expected times that increase$", id="twice-with-an-offset"
        ),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(tmp_path, moments, message):
    with pytest.raises(InputError, match=message) as error:
        open_series_csv(write(tmp_path, "2024-11-03", moments))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("moment", ["20240105T000000+0100", "20240105T0000Z"])
def test_an_offset_is_never_lost(tmp_path, moment):
    (tmp_path / "a.csv").write_text(f"t,a\n{moment},1\n")
    with pytest.raises(InputError, match=r"line 2, column 1: .* is not a time such as"):
        open_series_csv(tmp_path / "a.csv")


def test_no_fraction_is_no_fraction(tmp_path):
    (tmp_path / "a.csv").write_text("t,a\n2024-01-05 00:00:00.000,1\n2024-01-05 00:05:00.000,1\n")
    assert np.diff(open_series_csv(tmp_path / "a.csv").times).astype(int) == 300


@pytest.mark.parametrize("moment", ["now", "today", "03/04/2024 08:00", "4.3.2024", "1e9", "2024"])
def test_what_only_a_parser_would_understand_is_refused(tmp_path, moment):
    (tmp_path / "a.csv").write_text(f"t,a\n{moment},1\n")
    with pytest.raises(InputError, match=r"line 2, column 1: .* is not a time such as 2015-01-31 08:15:00"):
        open_series_csv(tmp_path / "a.csv")


def test_a_late_clock_is_refused_or_snapped(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path, "2024-11-03", [moment[:8] for moment in ("08:00:00", "08:05:01", "08:10:00", "08:15:00")])
    with pytest.raises(InputError, match="expected whole steps of 300 s"):
        load_dataset(str(path), adjacency=tmp_path / "g.csv")
    data = load_dataset(str(path), adjacency=tmp_path / "g.csv", snap=1)
    assert set(np.diff(data.times).astype(int)) == {300}
    assert data.times[0] == np.datetime64("2024-11-03T08:00:00")


def test_snapping_moves_the_clock_on_the_wall_alike(tmp_path):
    late = [moment.replace("01:30:00-08", "01:30:01-08") for moment in AUTUMN]
    data = load_dataset(str(write(tmp_path, "2024-11-03", late)), adjacency=tmp_path / "g.csv", snap=2)
    assert data.calendar()[:, 0].tolist() == [1, 2, 3, 2, 3, 4]
    assert data.clock.tolist() == np.array([f"2024-11-03T{m[:8]}" for m in AUTUMN], "M8[s]").tolist()
