"""Q8TA_TUNE=1 measures the kernels of a shape class and keeps the winner in a file for later processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_process import HERE, python, script

import q8ta_ops
from q8ta_ops import _C

DEVICE = os.environ["Q8TA_DEVICE"]

pytestmark = [
    pytest.mark.skipif(DEVICE == "host", reason="the session computes on the host"),
    pytest.mark.timeout(300),
]

HEADER = "q8ta-ops tuning 1"

COMPUTE = """
    import warnings
    import torch
    import q8ta_ops
    from q8ta_ops import _C
    from samples import make_sample

    _C.seed_driver_fault({fault!r}, "linear_gemm.int_dot")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for M, K, N in {shapes}:
            sample = make_sample((M,), K, N)
            for op in {ops}:
                with q8ta_ops.profile() as profile:
                    assert torch.equal(sample.call(op), sample.expected(op))
                (ran,) = (d for d in profile.dispatches if d.kernel.startswith("linear_"))
                print("ran", ran.kernel, ran.workgroups)
    for each in caught:
        print("warning", each.category.__name__, each.message)
    print("tuned", _C.tuned_classes())
"""


def compute(
    cache: Path,
    tune: str | None = None,
    shapes: tuple[tuple[int, int, int], ...] = ((40, 40, 70),),
    ops: tuple[str, ...] = ("linear",),
    fault: str = "none",
) -> tuple[list[str], list[str]]:
    """Runs ops in a process of its own. Returns what ran ("kernel workgroups") and what was warned of."""
    done = script(
        COMPUTE.format(shapes=shapes, ops=ops, fault=fault), Q8TA_TUNE=tune, Q8TA_TUNE_CACHE=str(cache)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    return (
        [line.removeprefix("ran ") for line in lines if line.startswith("ran ")],
        [line.removeprefix("warning ") for line in lines if line.startswith("warning ")],
    )


def entries(cache: Path) -> list[list[str]]:
    header, *lines = cache.read_text().splitlines()
    assert header == HEADER and cache.read_text().endswith("\n")
    return [line.split("\t") for line in lines]


def write(cache: Path, *lines: list[str]) -> None:
    cache.write_text("\n".join([HEADER, *("\t".join(line) for line in lines)]) + "\n")


def candidates(sizes: tuple[int, int, int]) -> dict[str, str]:
    """variant -> "kernel workgroups"."""
    return {
        variant: f"{kernel} {workgroups}"
        for variant, kernel, workgroups in _C.linear_candidates(sizes, False)
    }


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The contents of a file with the shape class of 40 x 40 x 70."""
    cache = tmp_path_factory.mktemp("tuning") / "folder that is not there yet" / "tuning.txt"
    ran, warned = compute(cache, "1", ops=("linear", "linear"))
    assert warned == [] and len(set(ran)) == 1
    ((device, driver, _, shape, variant, nanoseconds),) = entries(cache)
    default = q8ta_ops.default_device()
    assert device == default.device.name and driver == default.device.driver
    assert shape.startswith("M64 K40 N70 int8") and int(nanoseconds) > 0
    assert candidates((40, 40, 70))[variant] == ran[0]
    assert {path.name for path in cache.parent.iterdir()} == {"tuning.txt", "tuning.txt.lock"}
    return cache.read_text()


@pytest.fixture
def cache(tuned: str, tmp_path: Path) -> Path:
    path = tmp_path / "tuning.txt"
    path.write_text(tuned)
    return path


def other_variant(cache: Path) -> tuple[list[str], str]:
    """The file's entry with another variant, and what then has to run."""
    (entry,) = entries(cache)
    usual = next(iter(candidates((40, 40, 70))))
    variant, ran = next(
        (variant, ran) for variant, ran in candidates((40, 40, 70)).items() if variant != usual
    )
    return [*entry[:4], variant, entry[5]], ran


def test_the_file_is_used_without_measuring(cache: Path) -> None:
    entry, ran = other_variant(cache)
    write(cache, entry)
    assert compute(cache) == ([ran], [])
    assert compute(cache, "0", shapes=((33, 40, 70), (64, 40, 70)))[1] == []
    assert compute(cache, "1") == ([ran], []), "what is known is not measured again"
    assert entries(cache) == [entry]


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    ran, warned = compute(tmp_path / "tuning.txt")
    assert ran == [next(iter(candidates((40, 40, 70)).values()))] and warned == []
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_problem_can_be_tuned(tmp_path: Path) -> None:
    cache = tmp_path / "tuning.txt"
    shapes = ((1, 40, 22), (3, 40, 22), (9, 17, 5))
    ran, warned = compute(cache, "1", shapes, ops=("linear", "linear_dequant"))
    assert warned == [] and len(ran) == 6
    assert len({entry[3] for entry in entries(cache)}) == 6
    assert compute(cache, None, shapes, ops=("linear", "linear_dequant")) == (ran, [])


@pytest.mark.parametrize("part", [0, 1, 2], ids=["device", "driver", "kernels"])
def test_what_was_measured_elsewhere_is_not_used(cache: Path, part: int) -> None:
    entry, _ = other_variant(cache)
    entry[part] = "another"
    write(cache, entry)
    usual = next(iter(candidates((40, 40, 70)).values()))
    assert compute(cache) == ([usual], [])
    assert entries(cache) == [entry]
    _, warned = compute(cache, "1")
    assert warned == []
    kept = [line for line in entries(cache) if line[part] == "another"]
    assert kept == ([entry] if part == 0 else []), "of this device only what is still true is kept"
    assert len(entries(cache)) == 1 + len(kept)


DAMAGED = {
    "empty": lambda text: "",
    "other header": lambda text: text.replace("tuning 1", "tuning 2"),
    "cut off": lambda text: text[:-3],
    "cut off after the line": lambda text: text[:-1],
    "field missing": lambda text: text.replace("\tM64", " M64"),
    "field too many": lambda text: text.replace("\tM64", "\tx\tM64"),
    "empty field": lambda text: text.replace("M64 K40 N70", "").replace("\t int8", "\t\t"),
    "no number": lambda text: text[:-2] + "x\n",
    "JSON": lambda text: '{"device": "x"}\n',
    "zeros": lambda text: "\0" * 4096,
    "bytes": lambda text: bytes(range(256)).decode("latin-1") * 20,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_ignored_and_rewritten(cache: Path, tuned: str, damage: str) -> None:
    damaged = DAMAGED[damage](tuned).encode("latin-1")
    assert damaged != tuned.encode()
    cache.write_bytes(damaged)
    usual = next(iter(candidates((40, 40, 70)).values()))
    ran, warned = compute(cache)
    assert ran == [usual] and len(warned) == 1, warned
    assert warned[0].startswith("RuntimeWarning") and str(cache) in warned[0] and "ignored" in warned[0]
    assert cache.read_bytes() == damaged
    if damage not in ("empty", "cut off", "bytes"):
        return  # one process each is enough to see that it is rewritten
    ran, warned = compute(cache, "1")
    assert warned and all("ignored" in warning for warning in warned)
    assert len(entries(cache)) == 1
    assert compute(cache) == (ran, [])


@pytest.mark.parametrize("kind", ["pipe", "endless", "huge", "folder"])
def test_what_is_no_file_of_ours_is_not_read(cache: Path, kind: str) -> None:
    """A pipe that nobody writes to would be waited for, a device without end be read for ever."""
    cache.unlink()
    if kind == "pipe":
        os.mkfifo(cache)
    elif kind == "endless":
        cache.symlink_to("/dev/zero")
    elif kind == "folder":
        cache.mkdir()
    else:
        with cache.open("wb") as file:
            file.truncate(1 << 33)
    ran, warned = compute(cache)
    assert ran == [next(iter(candidates((40, 40, 70)).values()))]
    assert len(warned) == 1 and "is damaged or something else, and is ignored" in warned[0]


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    cache = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.txt"))
    cache.write_text("something else")
    ran, warned = compute(cache)
    assert len(ran) == 1 and len(warned) == 1 and "is ignored" in warned[0]


FUZZED = r"""
    import json, os, random, sys, warnings
    from pathlib import Path
    import torch
    import q8ta_ops
    from q8ta_ops import _C
    from samples import make_sample

    torch.set_num_threads(1)  # libgomp's own threads do not survive a fork
    warnings.simplefilter("ignore")
    path, right, number = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
    (entry,) = [line.split("\t") for line in right.decode().splitlines()[1:]]
    odd = ["", "0", "-1", "9" * 400, "x\0y", "\u00fc", "a" * 100_000, entry[3], *json.loads(sys.argv[3])]
    sample = make_sample((40,), 40, 70)
    expected = sample.expected("linear")
    for seed in range(number):
        choice = random.Random(seed)
        if seed % 2:  # lines of the right form that name the wrong things
            fields = list(entry)
            fields[choice.choice([3, 4, 4, 4, 5])] = choice.choice(odd)
            lines = [fields] * choice.choice([1, 2, 500])
            data = "\n".join(["q8ta-ops tuning 1", *("\t".join(line) for line in lines)]).encode() + b"\n"
        else:
            data = bytearray(right)
            for _ in range(choice.randint(1, 6)):
                at = choice.randrange(len(data) + 1)
                data[at : at + choice.randrange(8)] = choice.randbytes(choice.randrange(8))
        path.write_bytes(data)
        if os.fork() == 0:  # the file is read when a process opens the device
            os._exit(0 if torch.equal(sample.call("linear"), expected) else 3)
        _, status = os.wait()
        assert status == 0, (seed, status, path)
"""


def test_any_file_gives_the_right_result(cache: Path) -> None:
    """Damaged ones, and those that name kernels made for other shapes."""
    others = [variant for sizes in ((1, 40, 70), (64, 4096, 70)) for variant in candidates(sizes)]
    done = python(
        *("-c", textwrap.dedent(FUZZED), str(cache), "12", json.dumps([*others, *candidates((40, 40, 70))])),
        seconds=280,
        Q8TA_TUNE=None,
        Q8TA_TUNE_CACHE=str(cache),
        Q8TA_VALIDATION="0",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_variant_that_does_not_exist_is_ignored(cache: Path) -> None:
    (entry,) = entries(cache)
    write(cache, [*entry[:4], "linear_gemm.int_dot 1 2 3", entry[5]])
    assert compute(cache) == ([next(iter(candidates((40, 40, 70)).values()))], [])


def test_a_kernel_that_fails_the_self_test_is_not_read_from_the_file(cache: Path, tmp_path: Path) -> None:
    sizes = (1, 200, 22)
    gemm = next((each for each in candidates(sizes) if each.startswith("linear_gemm.int_dot")), None)
    if gemm is None:
        pytest.skip("the device computes without the int8 dot product")
    _, warned = compute(tmp_path / "measured.txt", "1", (sizes,), fault="int_dot")
    (entry,) = entries(tmp_path / "measured.txt")
    assert not entry[4].startswith("linear_gemm.") and warned == []
    write(cache, [*entry[:4], gemm, entry[5]])
    assert compute(cache, shapes=(sizes,)) == ([candidates(sizes)[gemm]], [])
    ran, warned = compute(cache, shapes=(sizes,), fault="int_dot")
    assert ran[0].startswith("linear_gemv/") and len(warned) == 1
    assert "failed the self-test" in warned[0] and gemm in warned[0]


@pytest.mark.parametrize("place", ["a folder", "below a file"])
def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path, place: str) -> None:
    if place == "a folder":
        cache = tmp_path
    else:
        (tmp_path / "file").write_text("")
        cache = tmp_path / "file" / "tuning.txt"
    ran, warned = compute(cache, "1")
    assert len(ran) == 1 and any("is not kept" in warning for warning in warned), warned
    if place == "below a file":
        assert (tmp_path / "file").read_text() == ""


def test_processes_that_write_at_once(cache: Path) -> None:
    """Each adds its own shapes; none is lost, whoever writes when."""
    program = """
        import sys
        from samples import make_sample
        for K in range(1, 9):
            make_sample((1,), K, int(sys.argv[1])).call("linear")
    """
    # What is there stays: scripts/sanitize.sh has the package that it has built in PYTHONPATH.
    paths = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "Q8TA_TUNE": "1", "Q8TA_TUNE_CACHE": str(cache), "PYTHONPATH": paths}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import q8ta_ops\n" + textwrap.dedent(program), str(columns)],
            env=environment,
        )
        for columns in (5, 6, 7)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0, 0]
    shapes = {entry[3].split(" int8")[0] for entry in entries(cache)}
    assert shapes == {"M64 K40 N70"} | {f"M1 K{K} N{N}" for K in range(1, 9) for N in (5, 6, 7)}


def test_tensors_on_vk_are_tuned_too(tmp_path: Path) -> None:
    cache = tmp_path / "tuning.txt"
    done = script(
        """
        import torch
        import q8ta_ops
        from samples import make_sample
        q8ta_ops.enable_vk_device()
        for rows in (1, 20):
            sample = make_sample((rows,), 40, 22)
            on_vk = sample.mapped(lambda tensor: tensor.to("vk"))
            assert torch.equal(on_vk.call("linear").cpu(), sample.expected("linear"))
        """,
        Q8TA_TUNE="1",
        Q8TA_TUNE_CACHE=str(cache),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [entry[3].split()[0] for entry in entries(cache)] == ["M1", "M32"]


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    done = script(
        """
        import q8ta_ops
        from samples import make_sample
        for _ in range(2):
            try:
                make_sample((1,), 4, 4).call("linear")
            except (RuntimeError, ValueError) as error:
                print("error:", error)
        """,
        Q8TA_TUNE="yes",
        Q8TA_TUNE_CACHE=str(tmp_path / "tuning.txt"),
    )
    assert done.stdout.count("Q8TA_TUNE: expected 0 or 1, got 'yes'") == 2, done.stdout + done.stderr


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Q8TA_TUNE_CACHE", "/a/b.txt")
    assert _C.tuning_file() == "/a/b.txt"
    monkeypatch.delenv("Q8TA_TUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert _C.tuning_file() == "/caches/q8ta-ops/tuning.txt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    folder = "Library/Caches" if sys.platform == "darwin" else ".cache"
    assert _C.tuning_file() == f"/home/someone/{folder}/q8ta-ops/tuning.txt"
    monkeypatch.delenv("HOME")
    assert _C.tuning_file() == ""
