"""Builds q8ta_ops: CMake makes the three libraries, setuptools packs them (metadata: pyproject.toml)."""

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
    """Kept between builds, one for each Python, and made anew when the checkout has moved."""
    folder = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
    cache = folder / "CMakeCache.txt"
    if cache.is_file() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
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
            ["cmake", "--install", str(build), *install],
        ):
            subprocess.run(command, check=True)

    def copy_extensions_to_source(self) -> None:
        """Nothing: build_extension has installed all libraries into the source already."""


setup(ext_modules=[Extension("q8ta_ops._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
