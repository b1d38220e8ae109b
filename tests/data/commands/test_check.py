"""``check``: what the report says of data that are sound, odd or broken, and what the exit code says."""

import numpy as np
import pytest

from stlora_kernels.data.__main__ import main
from stlora_kernels.data.inspection.calendar import calendar_of
from stlora_kernels.data.inspection.scan import duplicates, scan
from stlora_kernels.data.inspection.suspicion import suspicions
from stlora_kernels.training.cli import run

DAY = np.datetime64("2024-05-04T00:00:00", "s")
GRAPH = "from,to,weight\na,b,0.5\nb,c,1\n"


@pytest.fixture
def check(capsys):
    """Exit code, the report's lines joined, and stderr."""

    def check(*argv: object) -> tuple[int, str, str]:
        code = run(main, ["check", *(str(argument) for argument in argv)])
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), err

    return check


def moments(steps: int, minutes: int = 30) -> np.ndarray:
    return DAY + np.arange(steps) * np.timedelta64(minutes * 60, "s")


@pytest.fixture
def city(tmp_path):
    """Three sensors for three days; a gap of four steps, b misses a day, c has one spike and zeros."""
    rng = np.random.default_rng(0)
    times = np.delete(moments(148), range(60, 64))
    values = rng.uniform(20, 60, (144, 3)).round(1)
    values[80:130, 1] = np.nan
    values[7, 2], values[100:103, 2] = 5000, 0
    rows = [
        f"{time},{','.join('' if v != v else str(v) for v in row)}" for time, row in zip(times, values, strict=True)
    ]
    (tmp_path / "city.csv").write_text("\n".join(["time,a,b,c", *rows]))
    (tmp_path / "g.csv").write_text(GRAPH)
    (tmp_path / "places.csv").write_text("id,lat,lon\na,34.1,-118\nb,34.2,-118\nc,34.3,-118.1\n")
    return tmp_path


def test_what_is_in_a_file_and_what_is_odd_in_it(check, city):
    code, out, _ = check(city / "city.csv", "--adjacency", city / "g.csv")
    assert code == 0
    assert "city: measurements, 3 sensors, 144 steps" in out
    assert "2024-05-04 00:00:00 to 2024-05-07 01:30:00, 144 steps of 30 min" in out
    assert "gaps: 1, steps missing: 4, 4 before 2024-05-05 08:00:00" in out
    assert "11.57 % of all values: NaN 11.57 %" in out  # 50 of 432
    assert "zeros count as measurements; if they mean nothing was measured: --null-value 0" in out
    assert "3 nodes, 2 directed edges, 0 isolated; 2 non-zeros, 0 self-loops, 1 components" in out
    assert "85 / 12 / 24 windows of 12 + 12 steps" in out
    assert "b │ 34.72 % │ 34.72 % │ 0 % │ 1.0 days" in out
    assert "c │ goes up to 5000, and 99 % of the time stays below" in out
    assert "b │ nothing for 1.0 days from 2024-05-05 18:00:00" in out
    assert "│ a │ " not in out.partition("Sensors to look at")[2]


def test_zeros_are_missing_where_the_user_says_so(check, city):
    _, out, _ = check(city / "city.csv", "--null-value", "0")
    assert "12.27 % of all values: NaN 11.57 %, zeros 0.69 %" in out  # 53 and 3 of 432


def test_a_null_value_is_no_part_of_averages_here_either(check, city):
    rows = [f"2024-05-04 00:{minute:02},{10 if minute % 10 else 0},{minute}" for minute in range(0, 60, 5)]
    (city / "zeros.csv").write_text("\n".join(["time,a,b", *rows]))
    _, out, _ = check(city / "zeros.csv", "--resample", "10", "--null-value", "0")
    assert "values 5 to 52.5" in out


def test_sensors_of_the_same_id_are_named_before_their_graph(check, city):
    (city / "twice.csv").write_text("time,a,b,b\n2024-01-01 00:00,1,2,3\n2024-01-01 00:05,2,3,4\n")
    code, out, err = check(city / "twice.csv", "--adjacency", city / "g.csv")
    assert code == 2
    assert "twice.csv: two sensors have the id 'b'" in err
    assert "graph none: " in out
    assert "Error" not in out


def test_without_a_graph_the_rest_is_shown(check, city):
    code, out, _ = check(city / "city.csv")
    assert code == 0
    assert "graph none: " in out
    assert "training needs a graph, if only --graph correlation or identity; then 85 / 12 / 24 windows" in out


def test_a_converted_folder_shows_its_own_graph(check, city):
    assert (
        run(main, ["convert", *(str(city / name) for name in ("city.csv", "out")), "--adjacency", f"{city}/g.csv"]) == 0
    )
    code, out, _ = check(city / "out")
    assert code == 0
    assert "city: measurements, 3 sensors, 144 steps" in out
    assert "3 nodes, 2 directed edges" in out


def test_a_folder_of_a_registered_set_is_known_by_its_files(check, tmp_path):
    flow = np.random.default_rng(0).uniform(1, 9, (100, 170, 1))
    flow[40:50] = 0
    np.savez(tmp_path / "PEMS08.npz", data=flow)
    code, out, _ = check(tmp_path)
    assert code == 0
    assert "PEMS08: flow in veh/5min, 170 sensors, 100 steps (the whole set has 170 and 17856)" in out
    assert "10.00 % of all values: NaN 0 %, zeros 10.00 %" in out  # its null value is the field's
    assert "graph none: PEMS08: no PEMS08.csv, looked for" in out


BROKEN = "time,a,b\n2024-01-01 00:00,1,x\n2024-01-01 00:05,,3\n2024-01-01 00:05,7,4\nfoo,1\n"


@pytest.mark.parametrize("name", ["broken.csv", "broken.CSV"])
def test_a_broken_file_is_shown_as_far_as_it_can_be_read(check, tmp_path, name):
    (tmp_path / name).write_text(BROKEN)
    code, out, err = check(tmp_path / name)
    for line in (
        "line 2, column b: 'x' is not a number",
        "line 5 has 2 cells, expected 3",
        "times that cannot be read: 1, the first is 'foo'",
        "2024-01-01 00:00:00 to 2024-01-01 00:05:00, 4 steps of 5 min",
        "steps with the time of the one before: 1",
        "training refuses it: ",
    ):
        assert line in out
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {tmp_path / name}, line 2, column b")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param(["empty.csv"], "line 1: one column", id="empty"),
        pytest.param(["noise.csv"], "cannot be read as a csv of measurements", id="noise"),
        pytest.param(["noise.h5"], "cannot be read as a pandas .h5 file", id="noise-h5"),
        pytest.param(["long.csv"], "long.csv, line 2, column speed: 'x' is not a number", id="broken-long"),
        pytest.param(["nope.csv"], "no file", id="no-file"),
        pytest.param(["nope*.csv"], "no file fits", id="no-file-fits"),
        pytest.param(["PEMS05"], "unknown data set", id="unknown"),
        pytest.param(["own.npz"], "own.npz: measurements of one's own are read from .csv and .h5", id="own-npz"),
        pytest.param(["good.csv", "--null-value", "nan"], "--null-value: got nan, expected a finite", id="null-value"),
        pytest.param(["."], "is a folder, but neither of a converted data set", id="folder"),
        pytest.param(["PEMS08", "--snap", "2"], "--snap is not an option of data set 'PEMS08'", id="snap-of-a-set"),
        pytest.param(["good.csv", "--picture", "x.jpeg"], "--picture: got x.jpeg, expected a name that", id="format"),
        pytest.param(["good.csv", "--picture", "no/x.png"], "--picture: no/x.png cannot be written", id="no-folder"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(check, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).bytes(3000)
    (tmp_path / "noise.csv").write_bytes(noise)
    (tmp_path / "noise.h5").write_bytes(noise)
    np.savez(tmp_path / "own.npz", data=np.ones((50, 3, 1)))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "long.csv").write_text("time,sensor,flow,speed\n2024-01-01 00:00,a,1,x\n")
    (tmp_path / "good.csv").write_text("time,a\n2024-01-01 00:00,1\n2024-01-01 00:05,2\n")
    code, out, err = check(*argv, "--data-dir", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_files_that_were_named_have_to_be_sound(check, city):
    (city / "bad.csv").write_text("from,to,weight\na,z,1\n")
    for option in ("--adjacency", "--locations"):
        code, out, err = check(city / "city.csv", option, city / "bad.csv")
        assert "city: measurements" in out
        assert (code, err.splitlines()[-1].startswith(f"error: {city / 'bad.csv'}")) == (2, True)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_saved_whole(check, city, suffix):
    picture = city / f"x.{suffix}"
    code, out, _ = check(city / "city.csv", "--locations", city / "places.csv", "--picture", picture)
    assert (code, f"Picture: {picture}" in out) == (0, True)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert len(content) > 20_000
    assert [path for path in city.iterdir() if path.name.endswith(".part")] == []


def test_a_picture_of_broken_data_too(check, tmp_path):
    (tmp_path / "broken.csv").write_text(BROKEN)
    code, _, _ = check(tmp_path / "broken.csv", "--picture", tmp_path / "x.png")
    assert (code, (tmp_path / "x.png").stat().st_size > 20_000) == (2, True)


def test_the_calendar_counts_every_kind_of_disorder():
    times = moments(20)
    times[5:] += np.timedelta64(3600, "s")  # two steps are missing
    times[9] = times[8]
    times[12] += np.timedelta64(60, "s")
    times[15] = times[2]
    times[18] = np.datetime64("NaT")
    found = calendar_of(times)
    assert (found.step, found.repeated, found.backward, found.unreadable) == (1800, 1, 1, 1)
    assert found.uneven == 2  # to the shifted one, and from it
    assert (5, 2) in found.gaps
    assert not found.sound
    assert calendar_of(moments(30)).sound
    assert calendar_of(times[:1]) is None


@pytest.mark.parametrize("null_value", [None, 0.0])
def test_one_pass_in_slices_counts_what_numpy_counts(monkeypatch, null_value):
    monkeypatch.setattr("stlora_kernels.data.inspection.scan.SLICE", 50)  # many slices
    rng = np.random.default_rng(1)
    values = rng.integers(-2, 5, (300, 7)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[3, 2] = np.inf
    values[100:140, 4] = 3
    found = scan(values, null_value, calendar_of(moments(300)))
    there = np.isfinite(values) & (values != 0 if null_value == 0 else True)
    masked = np.where(there, values, np.nan)
    np.testing.assert_array_equal(found.measured, there.sum(axis=0))
    np.testing.assert_array_equal(found.nan, np.isnan(values).sum(axis=0))
    np.testing.assert_array_equal(found.zero, (values == 0).sum(axis=0))
    np.testing.assert_array_equal(found.negative, (masked < 0).sum(axis=0))
    np.testing.assert_allclose(found.mean, np.nanmean(masked, axis=0, dtype=np.float64))
    np.testing.assert_allclose(found.std, np.nanstd(masked, axis=0, dtype=np.float64))
    np.testing.assert_array_equal(found.highest, np.nanmax(masked, axis=0))
    for node in range(7):
        assert found.outage.length[node] == max(map(len, "".join(".x"[bool(ok)] for ok in there[:, node]).split("x")))
        slot = masked[np.arange(300) % 48 == 20, node]
        weekday = np.isin((np.arange(300)[np.arange(300) % 48 == 20] // 48 + 5) % 7, range(5))  # day 0 is a Saturday
        np.testing.assert_allclose(found.profile[0, 20, node], np.nanmean(slot[weekday]))
    assert (found.stuck.start[4], found.stuck.length[4]) == (101, 39)


def test_sensors_with_the_same_series_are_grouped():
    values = np.random.default_rng(0).uniform(0, 9, (50, 5)).astype(np.float32)
    values[4] = np.nan
    values[:, 3] = values[:, 0]
    values[:, 4] = 1  # alike, but nothing to be learned from it
    assert duplicates(values, scan(values, None, None)) == [[0, 3]]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param({"where": slice(None), "value": np.nan}, "never measures anything", id="silent"),
        pytest.param({"where": slice(None), "value": 7}, "is always 7", id="constant"),
        pytest.param({"where": 4, "value": np.inf}, "infinite values: 1", id="infinite"),
        pytest.param({"where": 4, "value": 900}, "goes up to 900", id="spike"),
        pytest.param({"where": 4, "value": -5}, "negative values: 1, down to -5", id="negative"),
        pytest.param({"where": slice(100, 160), "value": 30}, "does not change for 1.2 days", id="stuck"),
        pytest.param({"where": slice(100, 160), "value": np.nan}, "nothing for 1.2 days from 2024-05-06", id="outage"),
    ],
)
def test_a_spoilt_sensor_is_named_with_the_reason_and_no_other_is(spoil, reason):
    values = np.random.default_rng(0).uniform(20, 60, (480, 30)).astype(np.float32)
    values[spoil["where"], 3] = spoil["value"]
    calendar = calendar_of(moments(480))
    reasons = suspicions(scan(values, None, calendar), 48, calendar.times)
    assert list(reasons) == [3]
    assert any(text.startswith(reason) for text in reasons[3])
