"""Where the files of the data sets can be had: for every file several addresses, the first that answers is used.

None of these addresses could be tried from the machine this was written on, which reaches no web site. Each was seen in
public material in November 2026; the comment beside it says where. A checksum stands where one was found published for
the very file behind that address (copies differ in line endings or compression); what arrives is compared with the
facts of the registry in any case, checksum or not.
"""

from dataclasses import dataclass

ZENODO_PEMS = "https://zenodo.org/records/7816008/files"  # "Traffic data sets"; md5 sums in several download scripts
ZENODO_BAY = "https://zenodo.org/records/4263971/files"  # doi 10.5281/zenodo.4263971, PEMS-BAY
HUB = "https://huggingface.co/datasets/jimmygao3218"  # named with sha256 sums in the scripts of a benchmark
FLASH_ST = "https://huggingface.co/datasets/bjdwh/FlashST-DATA/resolve/main"  # in the Hub's listing
ASTGCN = "https://github.com/Davidham3/ASTGCN/raw/master/data"  # the authors' repository, in many scripts
SWITCH = "https://drive.switch.ch/index.php/s"  # what the library tsl (TorchSpatiotemporal) downloads from
# The commit whose graphs are hashed in public audits of these files.
DCRNN = "https://raw.githubusercontent.com/liyaguang/DCRNN/602afd9d767d3aa1c9b3eac51710d6aeee12c227/data/sensor_graph"
DCRNN_MASTER = "https://raw.githubusercontent.com/liyaguang/DCRNN/master/data/sensor_graph"
GOOGLE_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
T_GCN = "https://raw.githubusercontent.com/lehaifeng/T-GCN/master/data"  # the authors'; in PyG-Temporal's loader

METR_LA_SHA = "sha256:64784b76d6fb8ec9bff4b6decafb354da2bb37840468fdccee5044e511277c05"
PEMS_BAY_SHA = "sha256:65d69fb0a2323dba9867179eb7af47c8b814186bc459ff0a4937d21614153c8f"
PEMS04_SHA = "95a3c9b720fffdb85f0330d09bfab41b0b3cad0ca86c0d7d5f3accacb4ac999a"
PEMS08_SHA = "e1d03ce74e9fb79149e6e7c37c680214822c4a285baa2f42278cacabcd25c075"
ADJ_LA_SHA = "sha256:a35687c6e15aa228dc45027b0ed2a0ea0f4ec78f573deb992c595092d12f61b3"
ADJ_BAY_SHA = "sha256:116275f5704d0d492018e14c047f7ae5004385b450aa907f88424055a4a97370"


@dataclass(frozen=True)
class Mirror:
    """One address of one file.

    Args:
        url: where it is; no login, no captcha.
        checksum: of what the address sends, as ``md5:...`` or ``sha256:...``; None: none was found published.
        member: the file's name in the zip archive that the address sends; None: it sends the file itself.
    """

    url: str
    checksum: str | None = None
    member: str | None = None


Mirrors = dict[str, tuple[Mirror, ...]]  # by the file's name in the data directory


def _pems(
    name: str,
    npz_md5: str,
    csv_md5: str,
    archive: str,
    distances: str = "distance.csv",
    more_npz: tuple[Mirror, ...] = (),
    more_csv: tuple[Mirror, ...] = (),
) -> Mirrors:
    """Values and distances of PEMS03, 04, 07 or 08; ``archive`` at SWITCH has them as ``distances``."""
    zipped = f"{SWITCH}/{archive}/download"
    return {
        f"{name}.npz": (
            Mirror(f"{ZENODO_PEMS}/{name}.npz?download=1", f"md5:{npz_md5}"),
            *more_npz,
            Mirror(f"{FLASH_ST}/{name}/{name}.npz"),
            Mirror(zipped, member=f"{name.lower()}.npz"),
        ),
        f"{name}.csv": (
            Mirror(f"{ZENODO_PEMS}/{name}.csv?download=1", f"md5:{csv_md5}"),
            *more_csv,
            Mirror(f"{FLASH_ST}/{name}/{name}.csv"),
            Mirror(zipped, member=distances),
        ),
    }


def _largest_year(year: int) -> tuple[Mirror, ...]:
    """The authors host LargeST on Kaggle alone, which asks for a login; tsl's copy does not."""
    return (Mirror(f"{SWITCH}/nJgK7ca28hk7AMU/download?path=%2F{year}&files=data.h5"),)


MIRRORS: dict[str, Mirrors] = {
    "METR-LA": {
        "metr-la.h5": (
            Mirror(f"{HUB}/METRLA/resolve/main/metr-la.h5", METR_LA_SHA),
            Mirror(
                "https://raw.githubusercontent.com/deepkashiwa20/DL-Traff-Graph/master/METRLA/metr-la.h5", METR_LA_SHA
            ),
            Mirror(
                "https://raw.githubusercontent.com/leilin-research/GCGRNN/master/data/METR-LA_traffic_speed/metr-la.h5",
                METR_LA_SHA,
            ),
            Mirror("https://huggingface.co/datasets/MintBruce/SkyTraffic/resolve/main/metr-la.h5"),
            Mirror(f"{GOOGLE_DRIVE}1pAGRfzMx6K9WWsfDcD1NMbIif0T0saFC"),  # in DCRNN's folder
        ),
        "adj_mx.pkl": (
            Mirror(f"{DCRNN}/adj_mx.pkl", ADJ_LA_SHA),
            Mirror(f"{DCRNN_MASTER}/adj_mx.pkl", ADJ_LA_SHA),
            Mirror(f"{HUB}/METRLA/resolve/main/adj_mx.pkl"),
        ),
    },
    "PEMS-BAY": {
        "pems-bay.h5": (
            Mirror(f"{ZENODO_BAY}/pems-bay.h5?download=1", "md5:bfa47e6ee7cc2d665e9b62c0c95c0b41"),
            Mirror(f"{HUB}/PEMSBAY/resolve/main/PEMS-BAY.h5", PEMS_BAY_SHA),
            Mirror(  # its git-lfs pointer names the checksum
                "https://media.githubusercontent.com/media/deepkashiwa20/DL-Traff-Graph/"
                "ccc038aeef05ffd43fab42e0752c8f94b90163a7/PEMSBAY/pems-bay.h5",
                PEMS_BAY_SHA,
            ),
            Mirror(f"{GOOGLE_DRIVE}1wD-mHlqAb2mtHOe_68fZvDh1LpDegMMq", PEMS_BAY_SHA),  # in DCRNN's folder
        ),
        "adj_mx_bay.pkl": (
            Mirror(f"{ZENODO_BAY}/adj_mx_bay.pkl?download=1", "md5:55d25daceac847312b7748c59ded6f77"),
            Mirror(f"{DCRNN}/adj_mx_bay.pkl", ADJ_BAY_SHA),
            Mirror(f"{HUB}/PEMSBAY/resolve/main/adj_mx_bay.pkl"),
        ),
    },
    "PEMS03": {
        **_pems(
            *("PEMS03", "651add9bb9eaf7f5eda2f2ee8778a182", "e6cf2ef1e1a9957aeec678a30b7ce7a7"),
            *("uHzXFWkLk4QcxD2", "distances.csv"),
        ),
        "PEMS03.txt": (
            Mirror(f"{ZENODO_PEMS}/PEMS03.txt?download=1", "md5:a52b864fbbe9d852ebdd08f6191a987f"),
            Mirror(f"{FLASH_ST}/PEMS03/PEMS03.txt"),
            Mirror(f"{SWITCH}/uHzXFWkLk4QcxD2/download", member="index.txt"),
        ),
    },
    "PEMS04": _pems(
        *("PEMS04", "5238832691101da85fcac772a32051da", "3990731ec980019a875a6d5723523855", "iyOIdo2KQQOxikk"),
        more_npz=(
            Mirror(f"{HUB}/PEMS04/resolve/main/PEMS04.npz", f"sha256:{PEMS04_SHA}"),
            Mirror(f"{ASTGCN}/PEMS04/pems04.npz"),
        ),
        more_csv=(
            Mirror(
                f"{HUB}/PEMS04/resolve/main/PEMS04.csv",
                "sha256:3e36226ec088ab5fb7d7896f5ae733153e6e27477a759427b65e64adb8be1d23",
            ),
        ),
    ),
    "PEMS07": _pems(
        *("PEMS07", "978d3d9b85fe640a446983a34271a48d", "cea609fed853ade176cb1c5eae0aeda0", "MEORmJbPECSfylK"),
    ),
    "PEMS08": _pems(
        *("PEMS08", "2a528d169c0d90294c9e24288a430132", "5e507b2b18d9235e95b63a20221cd4c5", "RZOxK3M3idN3IAu"),
        more_npz=(
            Mirror(f"{HUB}/PEMS08/resolve/main/PEMS08.npz", f"sha256:{PEMS08_SHA}"),
            Mirror(f"{ASTGCN}/PEMS08/pems08.npz"),
        ),
        more_csv=(
            Mirror(
                f"{HUB}/PEMS08/resolve/main/PEMS08.csv",
                "sha256:e5ab2a62f275741e6b07d3fba1623883ff9d692d406a44724d26efddc5e24b20",
            ),
        ),
    ),
    "SZ-TAXI": {
        "sz_speed.csv": (
            Mirror(f"{T_GCN}/sz_speed.csv"),
            Mirror("https://github.com/lehaifeng/T-GCN/raw/refs/heads/master/data/sz_speed.csv"),
        ),
        "sz_adj.csv": (
            Mirror(f"{T_GCN}/sz_adj.csv"),
            Mirror("https://github.com/lehaifeng/T-GCN/raw/refs/heads/master/data/sz_adj.csv"),
        ),
    },
    "LargeST-CA": {
        **{f"ca_his_raw_{year}.h5": _largest_year(year) for year in range(2017, 2022)},
        "ca_rn_adj.npy": (Mirror(f"{SWITCH}/nJgK7ca28hk7AMU/download?files=sensors.zip", member="adj.npz"),),
    },
}
