"""The addresses that downloads are tried from."""

from stlora_kernels.data.mirrors import MIRRORS
from stlora_kernels.data.registry import DATASETS


def test_every_registered_file_has_several_mirrors_over_https():
    for name, mirrors in MIRRORS.items():
        info = DATASETS[name.lower()]
        assert set(mirrors) == set(info.files)
        for file, several in mirrors.items():
            assert len({mirror.url for mirror in several}) == len(several)
            assert len(several) >= (1 if name.startswith("LargeST") else 2), file
            assert all(mirror.url.startswith("https://") for mirror in several)
            drive = ["drive.google" in mirror.url or "drive.usercontent.google" in mirror.url for mirror in several]
            assert drive == sorted(drive), f"{file}: Google Drive is the last resort"
            for mirror in several:
                kind, _, digits = (mirror.checksum or "md5:" + 32 * "0").partition(":")
                assert len(digits) == {"md5": 32, "sha256": 64}[kind]
                int(digits, 16)
