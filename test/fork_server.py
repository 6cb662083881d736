"""Runs scripts in fresh processes without importing torch for each: it is imported once, then forked.

Nothing here may open Vulkan, which does not survive a fork; the scripts may.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from children import wait_for

HERE = Path(__file__).parent


class ForkServer:
    """The side of the tests."""

    def __init__(self) -> None:
        paths = [str(HERE), str(HERE / "vk"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: str, seconds: float = 60, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `script` with changed environment variables (None: removed). A script that hangs is killed."""
        request = {"script": script, "seconds": seconds, "environment": environment}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork server has died"
        return subprocess.CompletedProcess(script, *json.loads(answer))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)


def _child(request: dict, stdout: int, stderr: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    for name, value in request["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # What a shell runs in the background ignores it, and so do all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As the main module, so that what it leaves behind is there until the interpreter's end.
    exec(compile(request["script"], "<script>", "exec"), sys.modules["__main__"].__dict__)


def _serve() -> None:
    import gc

    import q8ta_ops  # noqa: F401

    gc.freeze()  # what is imported here is not searched when a script ends, which took most of its time

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            child = os.fork()
            if child == 0:
                _child(request, stdout.fileno(), stderr.fileno())
                return  # the script's process ends as any other
            status = wait_for(child, request["seconds"])
            written = []
            for file in (stdout, stderr):
                file.seek(0)
                written.append(file.read().decode())
        print(json.dumps([status, *written]), flush=True)


if __name__ == "__main__":
    _serve()
