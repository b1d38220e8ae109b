"""One file over HTTP: what is gone on with after a break, and what is begun anew."""

import json

import numpy as np
import pytest
from data.http_server import serve

from stlora_kernels.data.transfer import ResumingDownloader, TransferError

BODY = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def site():
    with serve() as site:
        yield site


@pytest.fixture
def get(tmp_path):
    """Download an address; returns what has come, once it is taken for the whole."""

    def get(url: str) -> bytes:
        ResumingDownloader(tmp_path / "x.part", timeout=5, pause=0.01)(url, tmp_path / "x")
        return (tmp_path / "x").read_bytes()

    return get


@pytest.fixture
def begun(tmp_path):
    """Leave ``part`` as what an earlier run brought of a version."""

    def begun(part: bytes, version: str | None) -> None:
        (tmp_path / "x.part").write_bytes(part)
        (tmp_path / "x.part.json").write_text(json.dumps({"version": version}))

    return begun


def test_broken_transfers_are_resumed_where_they_broke(site, get):
    assert get(site.put("/x", BODY, breaks=[5000, 7000])) == BODY
    assert site.pages["/x"].requests == [None, "bytes=5000-", "bytes=12000-"]


def test_server_errors_that_pass_are_waited_for(site, get):
    assert get(site.put("/x", BODY, statuses=[503, 429])) == BODY
    assert len(site.pages["/x"].requests) == 3


def test_redirects_are_followed(site, get):
    site.put("/there", BODY, breaks=[4000])
    assert get(site.put("/x", redirect="/there")) == BODY
    assert site.pages["/there"].requests == [None, "bytes=4000-"]


@pytest.mark.parametrize("if_range", [True, False], ids=["If-Range", "server-ignores-If-Range"])
def test_halves_of_two_versions_are_not_put_together(site, get, begun, if_range):
    begun(b"an older version" * 1000, '"older"')
    assert get(site.put("/x", BODY, if_range=if_range)) == BODY  # with an ETag of its own
    assert site.pages["/x"].requests == ["bytes=16000-", *([] if if_range else [None])]


def test_a_version_that_the_server_itself_calls_vague_is_not_gone_on_with(site, get):
    assert get(site.put("/x", BODY, etag='W/"1"', breaks=[5000])) == BODY
    assert site.pages["/x"].requests == [None, None]


def test_a_server_without_ranges_is_asked_for_the_whole(site, get):
    assert get(site.put("/x", BODY, breaks=[5000], ranges=False)) == BODY
    assert site.pages["/x"].requests == [None, "bytes=5000-"]


def test_a_rest_that_begins_elsewhere_is_not_appended(site, get):
    assert get(site.put("/x", BODY, breaks=[5000], early=1000)) == BODY
    assert site.pages["/x"].requests == [None, "bytes=5000-", None]


def test_a_piece_of_the_rest_is_not_taken_for_all_of_it(site, get):
    assert get(site.put("/x", BODY, breaks=[50_000], most=20_000)) == BODY
    assert site.pages["/x"].requests == [None, "bytes=50000-", "bytes=70000-", "bytes=90000-"]


def test_a_server_that_breaks_off_and_never_gives_the_right_rest_is_given_up(site, get):
    url = site.put("/x", BODY, breaks=[5000] * 100, early=1000)
    with pytest.raises(TransferError):
        get(url)
    assert len(site.pages["/x"].requests) < 10


@pytest.mark.parametrize(
    ("surplus", "requests"),
    [
        pytest.param(b"", ["bytes=100000-"], id="complete"),
        pytest.param(b"x", ["bytes=100001-", None], id="longer-than-the-file"),
    ],
)
def test_where_nothing_is_left_to_send_only_a_file_of_the_right_size_is_taken(site, get, begun, surplus, requests):
    begun(BODY + surplus, '"1"')
    assert get(site.put("/x", BODY, etag='"1"')) == BODY
    assert site.pages["/x"].requests == requests
