"""Builds q8ta_ops: CMake makes the three libraries, setuptools packs them (metadata: pyproject.toml)."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def vulkan_packages() -> str:
    """The prefix with Vulkan-Headers, volk and VMA where they are not the system's own."""
    local = ROOT / ".deps" / "sysroot" / "usr"
    return os.environ.get("Q8TA_DEPS", str(local) if local.is_dir() else "")


def build_folder() -> Path:
    """Kept between builds, one for each Python; made anew for another torch, or once the checkout moved."""
    folder = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
    cache = folder / "CMakeCache.txt"
    torch = importlib.util.find_spec("torch")
    if cache.is_file() and torch is not None:  # without torch CMake says what is missing
        made_with = cache.read_text()
        library = Path(torch.origin).parent / "lib" / "libtorch_cpu.so"
        wanted = (f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n", f"TORCH_CPU_LIBRARY:FILEPATH={library}\n")
        if not all(entry in made_with for entry in wanted):
            shutil.rmtree(folder)
    return folder


class CMakeBuild(build_ext):
    """Runs CMake and installs its libraries into the package: the wheel's, or the source's own for `-e`."""

    def build_extension(self, ext: Extension) -> None:
        in_source = self.inplace or self.editable_mode
        package = ROOT / "q8ta_ops" if in_source else Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = build_folder()
        settings = {
            "Python_EXECUTABLE": sys.executable,
            "Q8TA_DEPS": vulkan_packages(),
            "Q8TA_SPIRV_DIR": os.environ.get("Q8TA_SPIRV_DIR", ""),
        }
        definitions = [f"-D{name}={value}" for name, value in settings.items()]
        install = ["--prefix", str(package), "--component", "python", "--strip"]
        for command in (
            ["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *definitions],
            ["cmake", "--build", str(build), "--parallel"],
        ):
            subprocess.run(command, check=True)
        # The libraries work only with those of the same build. An earlier one may have left others, which
        # nothing would overwrite: for another torch, or for another Python.
        for library in package.glob("*.so"):
            library.unlink()
        subprocess.run(["cmake", "--install", str(build), *install], check=True)

    def copy_extensions_to_source(self) -> None:
        """Nothing: build_extension has installed all libraries into the source already."""


setup(ext_modules=[Extension("q8ta_ops._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
