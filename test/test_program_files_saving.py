"""What saving leaves behind when it fails, is stopped or refused; and the file that it makes."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from program_files import Program, exported
from samples import random_int8
from test_process import python
from torch import Tensor, nn

import q8ta_ops
from q8ta_ops.program_file import writer

SAVE_WITH_A_LIMIT = """
    import os, resource, signal, sys
    from pathlib import Path
    import q8ta_ops
    from program_files import exported

    path, program = Path(sys.argv[1]), exported(K=256, N=256)
    q8ta_ops.save(program, path)
    size = path.stat().st_size
    q8ta_ops.save(exported(), path)
    before = path.read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # At the first byte, in the weights, between them, in the model, and in what is written at the end.
    for limit in (0, 1, 100, 4096, 30_000, 65_536, 66_000, size - 12_000, size - 4_000, size - 500, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            q8ta_ops.save(program, path)
        except OSError as error:
            assert "File too large" in str(error), error
        else:
            raise AssertionError(f"saved in {limit} bytes")
        assert path.read_bytes() == before and os.listdir(path.parent) == [path.name], limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    q8ta_ops.save(program, path)
    q8ta_ops.load(path)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    done = python("-W", "ignore", "-c", textwrap.dedent(SAVE_WITH_A_LIMIT), str(tmp_path / "program.pt2"))
    assert done.returncode == 0, done.stdout + done.stderr


KILLED = """
    import os, signal, sys
    import q8ta_ops
    from program_files import exported
    from q8ta_ops.program_file import writer

    q8ta_ops.save(exported(), sys.argv[1])
    print("saved", flush=True)
    write, written = writer._Output.write, 0

    def killed_in_the_middle(self, data):
        global written
        written += len(data)
        if written > 5000:
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, data)

    writer._Output.write = killed_in_the_middle
    q8ta_ops.save(exported(K=256, N=256), sys.argv[1])
"""


def test_killed_while_saving(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    done = python("-W", "ignore", "-c", textwrap.dedent(KILLED), str(path))
    assert done.returncode == -signal.SIGKILL and done.stdout == "saved\n", done.stderr
    x = random_int8(torch.Generator().manual_seed(1), 3, 21)
    assert torch.equal(q8ta_ops.load(path).module()(x), exported().module()(x))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["write", "flush", "fsync", "replace"])
def test_failures_at_every_step(
    where: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, program = tmp_path / "program.pt2", exported()
    q8ta_ops.save(program, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise error

    class File(io.FileIO):
        pass

    if where in ("write", "flush"):
        setattr(File, where, fail)
        monkeypatch.setattr(writer, "open", File, raising=False)
    else:
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)):
        q8ta_ops.save(exported(K=32), path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["program.pt2"]
    q8ta_ops.save(program, path)


def test_mode_of_the_file(tmp_path: Path) -> None:
    path, program = tmp_path / "program.pt2", exported()
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            q8ta_ops.save(program, path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("target", ["missing folder/program.pt2", "folder"])
def test_places_where_no_file_can_be(target: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        q8ta_ops.save(exported(), tmp_path / target)
    assert os.listdir(tmp_path) == ["folder"]


def test_no_pickle_is_written(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    q8ta_ops.save(exported(), path)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("archive/data/sample_inputs/model.pt") == b""
    args, kwargs = q8ta_ops.load(path).example_inputs
    assert kwargs == {} and len(args) == 1
    assert args[0].shape == (4, 21) and args[0].dtype == torch.int8 and not args[0].any()


@torch.library.custom_op("q8ta_test::identity", mutates_args=())
def identity(x: Tensor) -> Tensor:
    return x.clone()


@identity.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class WithAnotherOperator(Program):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.ops.q8ta_test.identity(x))


class Subclass(Tensor):
    pass


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    x = torch.ones(4, 21, dtype=torch.int8)
    with pytest.raises(
        ValueError, match="program: it cannot be saved: .*'torch.ops.q8ta_test.identity.default'"
    ):
        q8ta_ops.save(torch.export.export(WithAnotherOperator(21, 16), (x,)), tmp_path / "program.pt2")
    program = exported()
    scales = program.state_dict["first.scales"]
    program.state_dict["first.scales"] = nn.Parameter(scales).as_subclass(Subclass)
    with pytest.raises(ValueError, match="program: it cannot be saved: .*'first.scales'.* is a pickle"):
        q8ta_ops.save(program, tmp_path / "program.pt2")
    assert os.listdir(tmp_path) == []
