"""Checks of the project as a whole: formatting, types, the C++ tests under sanitizers."""

import subprocess
from pathlib import Path

import pytest
from tools import tool

ROOT = Path(__file__).parent.parent
CPP = sorted(
    str(f)
    for folder in ("csrc", "python", "tests")
    for f in (ROOT / folder).rglob("*.[ch]*")
    if f.suffix in (".cpp", ".h", ".cu")
)


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["clang-format", "--dry-run", "-Werror", *CPP],
    ],
    ids=["ruff format", "ruff check", "mypy", "clang-format"],
)
def test_style_and_types(command):
    result = subprocess.run([tool(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_kernels_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    """Also the build with every warning an error."""
    configure = [
        tool("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-S", str(ROOT), "-B", str(tmp_path),
        "-DSTLORA_PYTHON=OFF", "-DSTLORA_TESTS=ON", "-DSTLORA_WERROR=ON", "-DSTLORA_SANITIZE=address,undefined",
    ]  # fmt: skip
    tests = [tool("ctest"), "--test-dir", str(tmp_path), "--output-on-failure"]
    for command in (configure, [tool("cmake"), "--build", str(tmp_path)], tests):
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "100% tests passed" in result.stdout
    assert all(f"{name} ..." in result.stdout for name in ("nall", "nsp", "scratch"))


def test_files_are_short_enough_to_be_read_at_once():
    long = {}
    for folder in ("stlora_kernels", "csrc", "python", "bench"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".cpp", ".h") and len(file.read_text().splitlines()) > 320:
                long[str(file.relative_to(ROOT))] = len(file.read_text().splitlines())
    assert not long
