"""Builds q8ta_ops: CMake makes the three libraries, setuptools packs them. The metadata is in pyproject.toml."""

import os
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


class CMakeBuild(build_ext):
    """Runs CMake once and installs the libraries into the package folder (the source's own for `-e`)."""

    def build_extension(self, ext: Extension) -> None:
        package = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / "cmake"
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            "-G",
            "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DQ8TA_DEPS={vulkan_packages()}",
            f"-DQ8TA_SPIRV_DIR={os.environ.get('Q8TA_SPIRV_DIR', '')}",
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel"], check=True)
        subprocess.run(
            ["cmake", "--install", str(build), "--prefix", str(package), "--component", "python", "--strip"],
            check=True,
        )


setup(ext_modules=[Extension("q8ta_ops._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
