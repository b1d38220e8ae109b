"""``python -m stlora_kernels.data``: list, prepare, download, and how they end."""

import errno
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stlora_kernels.data import load_dataset
from stlora_kernels.data.__main__ import main
from stlora_kernels.data.commands import download as download_command
from stlora_kernels.data.fingerprint import check_file, check_set
from stlora_kernels.data.layout import install
from stlora_kernels.data.mirrors import Mirror
from stlora_kernels.data.registry import DATASETS
from stlora_kernels.errors import InputError
from stlora_kernels.training.cli import run

TAXI = DATASETS["sz-taxi"]


@pytest.fixture
def command(capsys, monkeypatch):
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*argv: object) -> tuple[int, str, str]:
        code = run(main, [str(argument) for argument in argv])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def bare_taxi(tmp_path):
    """SZ-TAXI as T-GCN publishes it, with made-up speeds: no column of times."""
    folder = tmp_path / "bare"
    folder.mkdir()
    speeds = np.random.default_rng(0).integers(0, 60, (TAXI.num_steps, TAXI.num_nodes))
    header = ",".join(str(90000 + i) for i in range(TAXI.num_nodes))
    np.savetxt(folder / "sz_speed.csv", speeds, fmt="%d", delimiter=",", header=header, comments="")
    graph = np.zeros((TAXI.num_nodes, TAXI.num_nodes), dtype=int)
    pairs = [(i, j) for i in range(TAXI.num_nodes) for j in (i + 1, i + 2) if j < TAXI.num_nodes][: TAXI.edges // 2]
    for i, j in pairs:
        graph[i, j] = graph[j, i] = 1
    np.savetxt(folder / "sz_adj.csv", graph, fmt="%d", delimiter=",")
    return folder, speeds


@pytest.fixture
def refusing(tmp_path, monkeypatch):
    """A folder in which nothing can be made, not even by root, and the reason, to be changed."""
    folder, reason = tmp_path / "refusing", [errno.EROFS]
    folder.mkdir()

    def inside(path) -> bool:
        return folder in (Path(path), *Path(path).parents)

    def replace(owner, name, place=lambda path, *_, **__: path):
        given = getattr(owner, name)

        def refuse(*arguments, **options):
            path = place(*arguments, **options)
            if path is not None and inside(path) and not (name == "mkdir" and Path(path).exists()):
                raise OSError(reason[0], os.strerror(reason[0]), str(path))
            return given(*arguments, **options)

        monkeypatch.setattr(owner, name, refuse)

    for name in ("mkdir", "touch", "unlink"):
        replace(Path, name)
    replace(tempfile, "mkdtemp", lambda suffix=None, prefix=None, dir=None: dir)
    monkeypatch.setattr("os.access", lambda path, mode: not inside(path))
    return folder, reason


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param("convert synthetic {to}/out", id="convert"),
        pytest.param("prepare SZ-TAXI --source {bare} --data-dir {to}", id="prepare"),
        pytest.param("prepare SZ-TAXI --source {bare}.zip --data-dir {to}", id="prepare-from-an-archive"),
        pytest.param("prepare SZ-TAXI --source {bare}.zip --data-dir {to}/new", id="prepare-into-a-new-folder"),
        pytest.param("download SZ-TAXI --data-dir {to}", id="download"),
        pytest.param("check synthetic --picture {to}/x.png", id="picture"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_named(command, refusing, bare_taxi, argv):
    (folder, _), (bare, _) = refusing, bare_taxi
    with zipfile.ZipFile(f"{bare}.zip", "w") as archive:
        for file in TAXI.files:
            archive.write(bare / file, file)
    code, out, err = command(*argv.format(to=folder, bare=bare).split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"cannot write to {folder}" in err


@pytest.mark.parametrize(
    "argv",
    ["convert synthetic {to}/out", "prepare SZ-TAXI --source {bare} --data-dir {to}"],
    ids=["convert", "prepare"],
)
def test_a_full_disk_is_not_taken_for_a_folder_that_was_ill_chosen(command, refusing, bare_taxi, argv):
    (folder, reason), (bare, _) = refusing, bare_taxi
    reason[0] = errno.ENOSPC
    code, _, err = command(*argv.format(to=folder, bare=bare).split())
    assert (code, err.count("\n")) == (1, 1)
    assert "No space left on device" in err


def test_list_shows_every_set_and_what_is_there_of_it(command, tmp_path):
    (tmp_path / "METR-LA").mkdir()
    (tmp_path / "METR-LA" / "adj_mx.pkl").touch()
    code, out, _ = command("list", "--data-dir", tmp_path)
    out = "\n".join(line.strip() for line in out.splitlines())
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line[-1:].isdigit()}
    assert code == 0
    assert rows["METR-LA"] == ["METR-LA", "207", "1515", "34272", "5", "2012-03-01", "speed", "7:1:2", "1/2"]
    kinds = {line.removeprefix("download: ") for line in out.splitlines() if line.startswith("download: ")}
    assert {"one address per file, no mirror of it", "no address without a login is known"} < kinds  # LargeST
    assert rows["LargeST-CA"][:5] == ["LargeST-CA", "8600", "201363", "175296", "15"]
    for info in DATASETS.values():
        assert rows[info.name][1:3] == [str(info.num_nodes), str(info.edges)]
        assert info.licence in out
        assert info.source in out


def test_prepare_adds_the_times_that_a_bare_table_lacks(command, tmp_path, bare_taxi):
    source, speeds = bare_taxi
    code, out, _ = command("prepare", "sz-taxi", "--source", source, "--data-dir", tmp_path / "data")
    data = load_dataset("SZ-TAXI", tmp_path / "data")
    assert code == 0
    assert f"converted to {tmp_path / 'data' / 'SZ-TAXI' / 'sz_speed.csv'}" in out
    assert "532 edges between 156 sensors" in out
    assert out.splitlines()[-1] == f"SZ-TAXI is ready: --dataset SZ-TAXI --data-dir {tmp_path / 'data'}"
    np.testing.assert_array_equal(data.values[:, :, 0], speeds)
    assert data.times[[0, -1]].tolist() == np.array(["2015-01-01T00:00", "2015-01-31T23:45"], "M8[s]").tolist()
    assert data.sensor_ids[0] == "90000"
    before = (tmp_path / "data" / "SZ-TAXI" / "sz_speed.csv").stat().st_mtime_ns
    again = command("prepare", "SZ-TAXI", "--data-dir", tmp_path / "data")[1]
    assert again.count("in place") == 2
    assert (tmp_path / "data" / "SZ-TAXI" / "sz_speed.csv").stat().st_mtime_ns == before


def test_prepare_refuses_a_bare_table_of_another_length(command, tmp_path, bare_taxi):
    source, _ = bare_taxi
    lines = (source / "sz_speed.csv").read_text().splitlines()
    (source / "sz_speed.csv").write_text("\n".join(lines[:-1]))
    code, _, err = command("prepare", "SZ-TAXI", "--source", source, "--data-dir", tmp_path / "data")
    assert code == 2
    assert "has 2975 rows of 156 columns and no times, SZ-TAXI has 2976 steps of 156 sensors" in err
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_prepare_knows_files_by_the_names_of_the_mirrors_also_in_archives(command, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", data=np.resize(np.arange(500.0, dtype=np.float32), (200, 170, 3)))
    roads = "".join(f"{i % 170},{(i + 1 + i // 170) % 170},{i}\n" for i in range(295))
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.write(tmp_path / "a.npz", "../../pems08.npz")
        archive.writestr("x/distance.csv", roads)
    code, out, _ = command("prepare", "PEMS08", "--source", tmp_path / "download.zip", "--data-dir", tmp_path / "data")
    assert code == 0
    assert "200 steps of 170 sensors, 3 channels: a part of PEMS08, which has 17856 steps of 170 sensors" in out
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        *("PEMS08.csv", "PEMS08.npz", "a.npz", "download.zip"),
    ]


def test_prepare_says_what_is_missing_and_how_to_get_it(command, tmp_path):
    code, _, err = command("prepare", "PEMS03", "--data-dir", tmp_path)
    assert code == 2
    assert err.startswith(f"error: PEMS03: no PEMS03.npz, PEMS03.csv, PEMS03.txt in {tmp_path / 'PEMS03'}, {tmp_path}")
    assert f"python -m stlora_kernels.data download PEMS03 --data-dir {tmp_path}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param(["download", "PEMS05"], "no files are known of data set 'PEMS05', expected one of", id="unknown"),
        pytest.param(["prepare", "synthetic"], "no files are known of data set 'synthetic'", id="synthetic"),
        pytest.param(["download", "PEMS08", "--files", "a"], "--files: PEMS08 has no 'a', expected some", id="file"),
        pytest.param(["download", "PEMS08", "--timeout", "0"], "--timeout: got 0, expected", id="timeout"),
        pytest.param(["prepare", "PEMS08", "--source", "/no/where"], "no file or folder /no/where", id="source"),
        pytest.param(["fetch"], "fetch", id="no-such-command"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(command, argv, message):
    code, _, err = command(*argv)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_failed_download_ends_with_the_places_for_the_files(command, tmp_path, monkeypatch):
    nobody = {"PEMS04": {file: (Mirror("http://127.0.0.1:9/" + file),) for file in ("PEMS04.npz", "PEMS04.csv")}}
    monkeypatch.setattr("stlora_kernels.data.download.MIRRORS", nobody)
    code, _, err = command("download", "PEMS04", "--data-dir", tmp_path)
    assert code == 2
    for file in ("PEMS04.npz", "PEMS04.csv"):
        assert f"  {tmp_path / 'PEMS04' / file}\n    tried http://127.0.0.1:9/{file}: " in err
    assert err.splitlines()[-1].startswith("error: PEMS04: 2 of 2 files could not be downloaded")


def test_a_set_without_free_mirrors_says_so(command, tmp_path):
    code, _, err = command("download", "LargeST-GBA", "--data-dir", tmp_path, "--files", "gba_rn_adj.npy")
    assert code == 2
    assert "LargeST-GBA/gba_rn_adj.npy\n    no address without a login is known\n" in err


def test_a_download_is_read_as_a_whole_at_the_end(command, tmp_path, bare_taxi, monkeypatch):
    source, _ = bare_taxi

    def download(self, info, files=None):
        for file in info.files:
            install(info, file, source / file, self.folder, downloaded=True)

    monkeypatch.setattr(download_command.Downloader, "download", download)
    code, out, _ = command("download", "SZ-TAXI", "--data-dir", tmp_path / "data")
    assert code == 0
    assert "SZ-TAXI: windows: 2067 training, 295 validation, 591 test" in out


@pytest.mark.parametrize("right", [True, False])
def test_the_full_set_has_to_have_the_published_scaler(tmp_path, bare_taxi, monkeypatch, right):
    source, _ = bare_taxi
    for file in TAXI.files:
        install(TAXI, file, source / file, tmp_path)
    mean, std = (float(word.rstrip(",")) for word in check_set(TAXI, tmp_path)[-1].split() if "." in word)
    object.__setattr__(TAXI, "scaler", (mean, std * (1 if right else 1.001)))
    try:
        if right:
            assert check_set(TAXI, tmp_path)[-1].endswith(", as published")
        else:
            with pytest.raises(InputError, match=r"SZ-TAXI: mean and standard deviation .* these are other values"):
                check_set(TAXI, tmp_path)
    finally:
        object.__setattr__(TAXI, "scaler", None)


def test_a_year_of_largest_is_known_by_its_labels(tmp_path):
    h5py = pytest.importorskip("h5py")
    info = DATASETS["largest-ca"]
    path = tmp_path / "year.h5"
    for steps, fits in ((105408, True), (105120, False)):  # 2020 was a leap year
        with h5py.File(path, "w") as file:
            file["t/axis0"] = file["t/block0_items"] = np.zeros(8600, "S6")
            file["t/axis1"] = np.zeros(steps, np.int64)
            file["t/axis1"].attrs["kind"] = "datetime64"
            file.create_dataset("t/block0_values", (steps, 8600), "i1", chunks=True)  # nothing of it is written
        if fits:
            assert check_file(info, "ca_his_raw_2020.h5", path).text == "105408 steps of 8600 sensors, 2020"
        else:
            with pytest.raises(InputError, match="has 105120 steps of 8600 sensors, LargeST-CA of 2020 has 105408"):
                check_file(info, "ca_his_raw_2020.h5", path)


def test_edges_in_an_archive_become_the_matrix_of_largest(tmp_path):
    info = DATASETS["largest-gba"]
    ends = np.stack(np.unravel_index(np.arange(2 * info.edges), (info.num_nodes, info.num_nodes)))
    ends = ends[:, ends[0] != ends[1]][:, : info.edges]
    weights = np.full(info.edges, 0.5, np.float32)
    np.savez_compressed(tmp_path / "adj.npz", edge_index=ends, edge_weight=weights)
    finding = install(info, "gba_rn_adj.npy", tmp_path / "adj.npz", tmp_path)
    matrix = np.load(tmp_path / "LargeST-GBA" / "gba_rn_adj.npy")
    assert finding.text == "61246 edges between 2352 sensors"
    assert (matrix.diagonal() == 1).all()
    assert (matrix[tuple(ends)] == 0.5).all()
    np.savez_compressed(tmp_path / "adj.npz", edge_index=ends[:, 1:], edge_weight=weights[1:])
    with pytest.raises(InputError, match="has 61245 edges between different sensors, LargeST-GBA has 61246"):
        install(info, "gba_rn_adj.npy", tmp_path / "adj.npz", tmp_path)
    np.savez_compressed(tmp_path / "adj.npz", edge_index=ends + 1, edge_weight=weights)
    with pytest.raises(InputError, match=r"ends \[2, E\] between the 2352 sensors of LargeST-GBA and weights \[E\]"):
        install(info, "gba_rn_adj.npy", tmp_path / "adj.npz", tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "LargeST-GBA" / "gba_rn_adj.npy"), matrix)  # the first one stays


@pytest.mark.parametrize(
    ("name", "part"), [("PEMS08", True), ("METR-LA", True), ("PEMS-BAY", True), ("SZ-TAXI", False)]
)
def test_published_parts_are_recognised(real_data, command, name, part):
    code, out, _ = command("prepare", name, "--data-dir", real_data)
    assert code == 0
    assert ("a part of" in out) == part
    assert out.count("in place") == 2
    assert f"{name} is ready" in out


@pytest.mark.parametrize("name", ["PEMS03", "PEMS04", "PEMS07", "PEMS08"])
def test_the_edges_of_the_registry_are_those_of_the_files(real_data, name):
    info = DATASETS[name.lower()]
    text = check_file(info, f"{name}.csv", real_data / name / f"{name}.csv").text
    assert text == f"{info.edges} distances between {info.num_nodes} sensors"
