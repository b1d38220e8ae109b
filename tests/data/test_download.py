"""Downloads from a local server that breaks off, lies, stalls and vanishes."""

import hashlib
import io
import os
import resource
import signal
import threading
import time
import zipfile

import numpy as np
import pytest
from data.http_server import serve

from stlora_kernels.data import load_dataset
from stlora_kernels.data.download import STAGE, Downloader, DownloadError
from stlora_kernels.data.mirrors import Mirror
from stlora_kernels.data.registry import DATASETS
from stlora_kernels.errors import InputError

PEMS08 = DATASETS["pems08"]
ROADS = 295


def npz(steps: int = PEMS08.num_steps, sensors: int = PEMS08.num_nodes) -> bytes:
    """A PEMS08 of made-up flow; compressible, so that the shape of the full set is small on the wire."""
    flow = np.random.default_rng(0).integers(0, 300, 500, dtype=np.uint16)
    file = io.BytesIO()
    np.savez_compressed(file, data=np.resize(flow, (steps, sensors, 1)))
    return file.getvalue()


VALUES = npz()
GRAPH = "".join(["from,to,cost\n", *(f"{i % 170},{(i + 1 + i // 170) % 170},{i}\n" for i in range(ROADS))]).encode()


@pytest.fixture
def site():
    with serve() as site:
        yield site


@pytest.fixture
def get(site, tmp_path):
    """Download PEMS08 from the given addresses of its values; returns what was said."""

    def get(*mirrors: str | Mirror, timeout: float = 5.0, files: dict | None = None, folder=tmp_path) -> list[str]:
        values = tuple(m if isinstance(m, Mirror) else Mirror(m) for m in mirrors)
        files = files or {"PEMS08.npz": values, "PEMS08.csv": (Mirror(site.put("/graph", GRAPH)),)}
        said: list[str] = []
        Downloader(folder, {"PEMS08": files}, said.append, timeout=timeout, pause=0.01).download(PEMS08)
        return said

    return get


def sha(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def placed(folder) -> list[str]:
    """Files under their final names."""
    return sorted(path.name for path in (folder / "PEMS08").iterdir() if path.name != STAGE)


def staged(folder) -> list[str]:
    return sorted(path.name for path in (folder / "PEMS08" / STAGE).iterdir() if path.name != "lock")


def test_a_download_is_loaded_by_name(site, get, tmp_path):
    said = get(Mirror(site.put("/values", VALUES), sha(VALUES)))
    assert load_dataset("PEMS08", tmp_path).values.shape == (17856, 170, 1)
    assert "PEMS08.npz: 17856 steps of 170 sensors, 1 channel" in said
    assert "PEMS08.csv: 295 distances between 170 sensors" in said
    assert (placed(tmp_path), staged(tmp_path)) == (["PEMS08.csv", "PEMS08.npz"], [])


def test_the_bytes_are_counted_as_they_come(site, tmp_path):
    graph = {"PEMS08": {"PEMS08.csv": (Mirror(site.put("/graph", GRAPH)),)}}
    seen: list[tuple] = []
    Downloader(tmp_path, graph, progress=lambda *told: seen.append(told)).download(PEMS08, ("PEMS08.csv",))
    assert seen[-1] == ("PEMS08.csv", len(GRAPH), len(GRAPH))


def test_what_is_there_is_not_downloaded_again(site, get, tmp_path):
    url = site.put("/values", VALUES)
    get(url)
    said = get(url)
    assert "PEMS08.npz: is there already, 17856 steps of 170 sensors, 1 channel" in said
    assert len(site.pages["/values"].requests) == 1


def test_a_part_that_is_there_is_kept_and_said_to_be_one(site, get, tmp_path):
    (tmp_path / "PEMS08.npz").write_bytes(npz(steps=100))
    said = " ".join(get(site.put("/values", VALUES)))
    assert "a part of PEMS08, which has 17856 steps" in said
    assert "to download the full set, move" in said


def test_a_later_run_goes_on_from_the_bytes_of_an_earlier_one(site, get, tmp_path):
    url = site.put("/values", VALUES, breaks=[5000], statuses=[])
    site.pages["/values"].breaks += [0, 0, 0]
    with pytest.raises(DownloadError):
        get(url)
    assert len(staged(tmp_path)) == 2  # the bytes and what the server said of them
    assert placed(tmp_path) == ["PEMS08.csv"]
    site.pages["/values"].breaks.clear()
    get(url)
    assert site.pages["/values"].requests[-1] == "bytes=5000-"
    assert (tmp_path / "PEMS08" / "PEMS08.npz").read_bytes() == VALUES


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param({"statuses": [404]}, "HTTP status 404 Not Found", id="404"),
        pytest.param({"statuses": [500] * 3}, "HTTP status 500 Internal Server Error", id="500"),
        pytest.param(
            {"body": VALUES, "breaks": [100, 0, 0, 0, 0]},
            "Connection broken: IncompleteRead(0 bytes",
            id="half-a-body-every-time",
        ),
        pytest.param({"body": npz(steps=20)}, "a part of PEMS08", id="part-of-the-set"),
        pytest.param({"body": npz(20, 12)}, "has 12 sensors, PEMS08 has 170", id="another-set"),
        pytest.param({"body": npz(17857)}, "has 17857 steps", id="too-many-steps"),
        pytest.param({"body": VALUES[:9000]}, "cannot be read as an .npz file", id="truncated-at-the-source"),
        pytest.param({"body": b"<!DOCTYPE html><p>Sign in"}, "is a web page", id="web-page"),
        pytest.param({"body": b"version https://git-lfs.github.com/spec/v1"}, "git-lfs pointer", id="lfs-pointer"),
        pytest.param({"redirect": "/values"}, "redirect", id="redirects-in-a-circle"),
        pytest.param({"redirect": "file:///etc/hostname"}, "No connection adapters", id="redirect-to-a-file"),
        pytest.param({}, "cannot be read", id="empty-body"),
    ],
)
def test_a_bad_mirror_is_named_and_the_next_one_used(site, get, tmp_path, bad, reason):
    said = get(site.put("/values", **bad), site.put("/good", VALUES))
    assert any("not from there" in line and reason in line for line in said), said
    assert (tmp_path / "PEMS08" / "PEMS08.npz").read_bytes() == VALUES
    assert staged(tmp_path) == []


def test_a_dead_mirror_is_passed_at_once(site, get, tmp_path):
    with serve() as dead:
        gone = dead.url
    said = get(f"{gone}/values", site.put("/good", VALUES))
    assert any("Connection refused" in line for line in said)
    assert (tmp_path / "PEMS08" / "PEMS08.npz").is_file()


def test_a_wrong_checksum_is_refused_though_the_content_is_right(site, get, tmp_path):
    with pytest.raises(DownloadError) as error:
        get(Mirror(site.put("/values", VALUES), sha(b"other")))
    assert f"another checksum than {sha(b'other')}" in error.value.instructions
    assert (placed(tmp_path), staged(tmp_path)) == (["PEMS08.csv"], [])


def test_wrong_content_is_refused_though_its_checksum_is_right(site, get, tmp_path):
    body = npz(sensors=169)
    with pytest.raises(DownloadError) as error:
        get(Mirror(site.put("/values", body), sha(body)))
    assert "has 169 sensors, PEMS08 has 170" in error.value.instructions
    assert (placed(tmp_path), staged(tmp_path)) == (["PEMS08.csv"], [])


def test_a_graph_of_another_set_is_refused(site, get, tmp_path):
    with pytest.raises(DownloadError) as error:
        get(files={"PEMS08.csv": (Mirror(site.put("/g", GRAPH[: GRAPH.rstrip().rindex(b"\n") + 1])),)})
    assert "has 294 distances, PEMS08 has 295" in error.value.instructions


@pytest.mark.parametrize("how", [{"slow": 5.0}, {"drip": True}], ids=["silent", "a-byte-now-and-then"])
def test_a_slow_server_is_given_up(site, get, tmp_path, how):
    said = get(site.put("/values", VALUES, **how), site.put("/good", VALUES), timeout=0.3)
    assert any("not from there" in line and ("timed out" in line or "bytes came in" in line) for line in said), said
    assert (tmp_path / "PEMS08" / "PEMS08.npz").read_bytes() == VALUES


def test_files_come_out_of_archives_and_only_to_their_place(site, get, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../../pems08.npz", VALUES)
        archive.writestr("/distance.csv", GRAPH)
        archive.writestr("../evil.txt", "x")
    url = site.put("/zip", packed.getvalue())
    folder = tmp_path / "a" / "b"
    get(
        files={"PEMS08.npz": (Mirror(url, member="pems08.npz"),), "PEMS08.csv": (Mirror(url, member="distance.csv"),)},
        folder=folder,
    )
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {f"a/b/PEMS08/{file}" for file in ("PEMS08.npz", "PEMS08.csv", f"{STAGE}/lock")}
    assert len(site.pages["/zip"].requests) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"PK\x03\x04 nonsense", "cannot be read as a zip archive", id="broken"),
        pytest.param("empty", "has 0 files named pems08.npz, expected one", id="without-the-file"),
    ],
)
def test_bad_archives_are_refused(site, get, tmp_path, body, reason):
    if body == "empty":
        packed = io.BytesIO()
        zipfile.ZipFile(packed, "w").close()
        body = packed.getvalue()
    with pytest.raises(DownloadError) as error:
        get(Mirror(site.put("/zip", body), member="pems08.npz"))
    assert reason in error.value.instructions
    assert staged(tmp_path) == []


def test_what_an_archive_would_unpack_to_has_to_fit_on_the_disk(site, get, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pems08.npz", bytes(10**6))
    free = len(packed.getvalue())  # room for the archive alone
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())
    with pytest.raises(DownloadError) as error:
        get(files={"PEMS08.npz": (Mirror(site.put("/zip", packed.getvalue()), member="pems08.npz"),)})
    assert "has 1000000 bytes, more than is free at" in error.value.instructions
    assert staged(tmp_path) == []


def test_when_nothing_works_the_message_says_which_file_to_put_where(site, get, tmp_path):
    urls = [site.put("/values", statuses=[404]), site.url + "/nowhere"]
    with pytest.raises(DownloadError) as error:
        get(*urls)
    place = tmp_path / "PEMS08"
    assert str(error.value) == (
        f"PEMS08: 1 of 2 files could not be downloaded: PEMS08.npz; put them into {place} by hand, or try again later"
    )
    lines = error.value.instructions.splitlines()
    assert f"  {place / 'PEMS08.npz'}" in lines
    assert [line for line in lines if "tried" in line] == [
        f"    tried {url}: HTTP status 404 Not Found" for url in urls
    ]
    assert PEMS08.source in error.value.instructions
    assert lines[-1] == f"  Then: python -m stlora_kernels.data prepare PEMS08 --data-dir {tmp_path}"
    assert (place / "PEMS08.csv").is_file()  # the other file has come all the same


def test_a_folder_that_cannot_be_written_is_named(site, get, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*/file: Not a directory; --data-dir"):
        get(site.put("/values", VALUES), folder=tmp_path / "file")


def test_a_disk_without_room_is_noticed_before_the_first_byte(site, get, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match=rf"no space for {len(VALUES):,} bytes, 10 are free; --data-dir"):
        get(site.put("/values", VALUES))
    assert placed(tmp_path) == []


def test_a_disk_that_fills_up_on_the_way_ends_in_one_line(site, get, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(VALUES) // 2, before[1]))
    try:
        with pytest.raises(InputError, match=r"File too large; --data-dir or STLORA_DATA") as error:
            get(site.put("/values", VALUES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert placed(tmp_path) == []


def test_after_ctrl_c_the_same_command_goes_on(site, get, tmp_path):
    url = site.put("/values", VALUES, slow=20)
    page = site.pages["/values"]
    part = tmp_path / "PEMS08" / STAGE / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"

    def press() -> None:
        page.halfway.wait(20)
        while not part.exists():
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt, match="what has come of PEMS08 is kept; the same command goes on"):
            get(url, timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert placed(tmp_path) == []
    have = part.stat().st_size
    page.slow = 0
    get(Mirror(url, sha(VALUES)))
    assert have > 0
    assert page.requests == [None, f"bytes={have}-"]


def test_two_processes_at_once_download_once(site, get, tmp_path):
    url = site.put("/values", VALUES, slow=1.0)
    said: list[list[str]] = []
    first = threading.Thread(target=lambda: said.append(get(url)))
    first.start()
    assert site.pages["/values"].halfway.wait(20)
    second = get(url)
    first.join()
    assert "PEMS08: another process downloads it; waiting for that one" in second
    assert "PEMS08.npz: has come in the meantime" in second
    assert len(site.pages["/values"].requests) == 1
