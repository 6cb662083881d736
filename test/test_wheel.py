"""What is packed: wheels and source distributions by setup.py, and the libraries that CMake makes."""

from __future__ import annotations

import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import q8ta_ops
from q8ta_ops import device

ROOT = Path(__file__).parent.parent
PACKAGE = Path(q8ta_ops.__file__).parent
EXTENSION = importlib.machinery.EXTENSION_SUFFIXES[0]

needs_sources = pytest.mark.skipif(
    not (ROOT / "setup.py").exists(), reason="these tests were copied away from the sources"
)

# Stands for CMake where only setup.py is tested: "builds" these libraries in no time.
MADE = ("libq8ta_vulkan.so", "_torch_ops.so", f"_C{EXTENSION}")
CMAKE = f"""#!{sys.executable}
import pathlib, sys
if "--install" in sys.argv:
    package = pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1])
    package.mkdir(parents=True, exist_ok=True)
    for name in {MADE}:
        (package / name).write_text("of this build")
elif "-B" in sys.argv:
    pathlib.Path(sys.argv[sys.argv.index("-B") + 1]).mkdir(parents=True, exist_ok=True)
"""


def copy_sources(folder: Path, *names: str) -> None:
    """Copies files and folders of the checkout, but nothing that is built."""
    built = shutil.ignore_patterns("*.so", "*.o", "__pycache__", "*.egg-info")
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=built)
        else:
            shutil.copy(ROOT / name, folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Python half of the sources, in which earlier builds have left libraries."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    copy_sources(copy, "q8ta_ops", *(path.name for path in ROOT.iterdir() if path.is_file()))
    (copy / "q8ta_ops" / f"_vk_device_torch_0_1{EXTENSION}").write_text("of another torch")
    (copy / "q8ta_ops" / "_C.cpython-30-x86_64-linux-gnu.so").write_text("of another Python")
    (tmp_path / "programs").mkdir()
    program = tmp_path / "programs" / "cmake"
    program.write_text(CMAKE)
    program.chmod(0o755)
    return copy


def build(checkout: Path, kind: str) -> Path:
    """Runs what pip runs. Returns the wheel (kind "wheel") or the source distribution (kind "sdist")."""
    out = checkout.parent / "dist"
    path = os.pathsep.join([str(checkout.parent / "programs"), os.environ["PATH"]])
    code = f"import setuptools.build_meta as backend; backend.build_{kind}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=checkout,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@needs_sources
def test_a_wheel_holds_the_package_and_the_libraries_of_one_build(checkout: Path) -> None:
    for _ in range(2):  # the second build meets what the first has left
        wheel = build(checkout, "wheel")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            libraries = {name: archive.read(name) for name in names if name.endswith(".so")}
        assert libraries == {f"q8ta_ops/{name}": b"of this build" for name in MADE}
        (checkout / "q8ta_ops" / f"_vk_device_torch_0_2{EXTENSION}").write_text("of another torch, too")
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "q8ta_ops").rglob("*.py")}
    info = f"q8ta_ops-{q8ta_ops.__version__}.dist-info/"
    others = {name.removeprefix(info) for name in names if name.startswith(info)}
    assert sources | {"q8ta_ops/manifest.schema.json"} == {
        name for name in names if not name.startswith(info) and name not in libraries
    }
    expected = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    assert others == expected
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{tag}-{tag}-" in wheel.name


@needs_sources
def test_a_source_distribution_holds_what_builds_it(checkout: Path) -> None:
    folders = ("csrc", "shaders", "cmake", "test")
    copy_sources(checkout, *folders)
    with tarfile.open(build(checkout, "sdist")) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for folder in (*folders, "q8ta_ops"):
        files = {
            path.relative_to(checkout).as_posix()
            for path in (checkout / folder).rglob("*")
            if path.is_file() and path.suffix not in (".so", ".spv", ".pyc")
        }
        assert files and files - names == set(), folder
    assert {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert [name for name in names if name.endswith((".so", ".pyc", ".spv"))] == []


@needs_sources
@pytest.mark.parametrize("change", ["none", "checkout moved", "another torch"])
def test_a_build_folder_of_other_places_is_not_used(checkout: Path, change: str) -> None:
    folder = checkout / "build" / f"cmake-{sys.implementation.cache_tag}"
    folder.mkdir(parents=True)
    (folder / "made earlier").touch()
    home = checkout.parent if change == "checkout moved" else checkout
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if change == "another torch":
        library = Path("/elsewhere/torch/lib/libtorch_cpu.so")
    (folder / "CMakeCache.txt").write_text(
        f"CMAKE_HOME_DIRECTORY:INTERNAL={home}\nTORCH_CPU_LIBRARY:FILEPATH={library}\n"
    )
    build(checkout, "wheel")
    assert (folder / "made earlier").exists() == (change == "none")


def libraries() -> list[Path]:
    found = sorted(PACKAGE.glob("*.so"))
    assert found
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_libraries_are_found_beside_each_other_and_nowhere_else() -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("there is no readelf")
    for library in libraries():
        dynamic = subprocess.run([readelf, "-d", library], capture_output=True, text=True, check=True).stdout
        paths = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", dynamic)
        assert paths in (["$ORIGIN"], []), library.name
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        assert [name for name in needed if "/" in name] == [], library.name


def test_libraries_hold_no_path_of_the_build_machine() -> None:
    absolute = re.compile(rb"(?<![\w.+-])(?:/[\w.+-]+)+\.(?:h|cpp|c|py|so)\b")
    for library in libraries():
        paths = {path.decode() for path in absolute.findall(library.read_bytes())}
        leaked = [path for path in paths if not path.startswith(("/usr/include/", "/usr/lib/"))]
        assert leaked == [], library.name


def test_a_vk_device_of_another_torch_says_what_it_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    minor = "_".join(torch.__version__.split(".")[:2])
    if list(PACKAGE.glob(f"_vk_device_torch_{minor}.*")):
        monkeypatch.setattr(torch, "__version__", "2.99.1")
    built = "|".join(
        path.name.split(".")[0].removeprefix("_vk_device_torch_").replace("_", r"\.")
        for path in PACKAGE.glob("_vk_device_torch_*")
    )
    this = re.escape(torch.__version__)  # 2.11.0+cu130
    with pytest.raises(RuntimeError, match=rf"built for ({built}).*this is torch {this}"):
        device._load_library()
