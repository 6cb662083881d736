"""Program files that are refused by their form: the zip, its entries, the tensors, the texts.

The attacks that need several of these together are in test_program_files_attacks.py.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from program_files import CONSTANTS, MODEL, WEIGHTS, exported, with_files, with_json
from samples import random_int8

import q8ta_ops
from q8ta_ops.program_file import containers, expressions, operators, text

WEIGHT = "archive/data/weights/weight_0"  # int8 [16, 21] in rows of 32 bytes


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "program.pt2"
    q8ta_ops.save(exported(), path)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        q8ta_ops.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "archive/../evil",
        "archive/data/weights/../weight_9",
        "archive/data\\weights\\weight_9",
        "/archive/data/weights/weight_9",
        "archive/data/weights/",
        "archive/data/weights/weight_9.so",
        "archive/data/executorch/model.pte",
        "archive/extra/notes.txt",
        "weight_9",
    ],
)
def test_entry_with_another_name(name: str, saved: Path, tmp_path: Path) -> None:
    refused(
        with_files(saved, tmp_path / "bad.pt2", added={name: b"x"}),
        "which is nothing that a program file may hold",
    )


@pytest.mark.parametrize("folder", ["..", ".", "", "a\\b", "other"])
def test_entries_in_another_folder(folder: str, saved: Path, tmp_path: Path) -> None:
    added = {f"{folder}/data/weights/weight_9": b"x"}
    refused(with_files(saved, tmp_path / "bad.pt2", added=added), "are not in one folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entry_that_is_there_twice(saved: Path, tmp_path: Path) -> None:
    refused(with_files(saved, tmp_path / "bad.pt2", added={WEIGHT: b"x"}), "weight_0' twice")


def test_compressed_entries(saved: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    refused(bad, "is compressed")


def central_field(data: bytes, name: str, offset: int) -> int:
    """Where a field of an entry's record in the directory of a zip lies."""
    at = data.index(name.encode(), data.index(b"PK\x01\x02"))
    return at - 46 + offset


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (20, 0x7FFFFFFF, "compressed"),  # of one size more than of the other
        (42, 0x7FFFFFFF, "outside the file"),
        (16, 0x12345678, "CRC"),
    ],
)
def test_entry_that_lies(offset: int, value: int, message: str, saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    at = central_field(bytes(data), WEIGHT, offset)
    data[at : at + 4] = value.to_bytes(4, "little")
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(data)
    refused(bad, message)


def test_entry_larger_than_the_file(saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    for offset in (20, 24):  # both sizes
        at = central_field(bytes(data), WEIGHT, offset)
        data[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(data)
    refused(bad, "larger than its [0-9]+ bytes")


def test_another_name_in_front_of_the_bytes(saved: Path, tmp_path: Path) -> None:
    """A reader that believes the headers and one that believes the directory would read different files."""
    data = saved.read_bytes()
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(data.replace(b"archive/models/model.json", b"archive/models/other.json", 1))
    refused(bad, "differ")


def test_every_bit_of_the_weights_counts(saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        content = archive.read(WEIGHT)
    data[bytes(data).index(content) + 100] ^= 4
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(data)
    refused(bad, "CRC")


def test_padding_that_is_not_0(saved: Path, tmp_path: Path) -> None:
    bad = with_files(
        saved, tmp_path / "bad.pt2", lambda name, data: data[:-1] + b"\1" if name == WEIGHT else data
    )
    refused(bad, "'first.weights' have other bytes than 0 behind their rows")


def number(value: object) -> dict[str, object]:
    return {"as_int": value}


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("first.weights", "sizes", [number(17), number(21)], "reaches outside its 512 bytes"),
        ("first.weights", "sizes", [number(2**40), number(21)], "reaches outside"),
        ("first.weights", "sizes", [number(16), number(-1)], "not numbers from 0"),
        ("first.weights", "sizes", [number(16)], "1 sizes and 2 strides"),
        ("first.weights", "strides", [number(33), number(1)], "reaches outside"),
        ("first.weights", "strides", [number(-32), number(1)], "not numbers from 0"),
        ("first.weights", "strides", [number(2**62), number(2**62)], "reaches outside"),
        ("first.weights", "strides", [number(16), number(1)], "not the layout PACKED_INT8_4W"),
        ("first.weights", "storage_offset", number(12), "reaches outside"),
        ("first.weights", "storage_offset", number(1), "not the layout PACKED_INT8_4W"),
        ("first.weights", "storage_offset", number(2**63), "PayloadMeta|SymInt"),
        ("first.weights", "dtype", 5, "reaches outside"),
        ("first.weights", "dtype", 99, "99 is not a valid ScalarType"),
        ("first.weights", "dtype", 1, "not the layout PACKED_INT8_4W"),
        ("first.weights", "layout", 2, "not strided"),
        (
            "first.weights",
            "device",
            {"type": "meta", "index": None},
            "'meta' is not a device that holds data",
        ),
        ("first.sums", "sizes", [number(17)], "'first.sums': .*reaches outside its 64 bytes"),
    ],
)
def test_tensor_that_does_not_fit(
    name: str, field: str, value: object, message: str, saved: Path, tmp_path: Path
) -> None:
    def edit(content: dict) -> None:
        content["config"][name]["tensor_meta"][field] = value

    refused(with_json(saved, tmp_path / "bad.pt2", WEIGHTS, edit), message)


@pytest.mark.parametrize("name", ["first.sums", "first.scales"])
def test_sums_and_scales_of_another_length(name: str, saved: Path, tmp_path: Path) -> None:
    def edit(content: dict) -> None:
        content["config"][name]["tensor_meta"]["sizes"] = [number(15)]

    program = q8ta_ops.load(with_json(saved, tmp_path / "short.pt2", WEIGHTS, edit))
    with pytest.raises((RuntimeError, ValueError), match=f"weight_{name.split('.')[1]}"):
        program.module()(torch.ones(4, 21, dtype=torch.int8))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("content", [b"", b"\xff", b"nul", b"[]", b"null", nested(100_000), b"9" * 100_000])
@pytest.mark.parametrize("name", [MODEL, WEIGHTS, CONSTANTS])
def test_json_that_is_none(name: str, content: bytes, saved: Path, tmp_path: Path) -> None:
    bad = with_files(
        saved, tmp_path / "bad.pt2", lambda entry, data: content if entry == f"archive/{name}" else data
    )
    refused(bad, "bad.pt2 cannot be loaded")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["graph_module"].pop("graph"), "GraphModule.graph is missing"),
        (lambda m: m["graph_module"].update(surprise="text"), "GraphModule.surprise: torch does not know it"),
        (lambda m: m["graph_module"]["graph"].update(nodes={}), r"Graph.nodes: \{\} is not of the type list"),
        (lambda m: m["graph_module"]["graph"].update(inputs=[{"as_tensor": 3}]), "Argument.as_tensor: 3"),
        (lambda m: m["graph_module"]["graph"].update(inputs=[{"as_any": 3}]), "'as_any' is none of its"),
        (
            lambda m: m["graph_module"]["graph"].update(
                inputs=[{"as_custom_obj": {"name": "x", "class_fqn": "y"}}]
            ),
            "CustomObjArgument.name: 'x': a program file may not hold that",
        ),
        (lambda m: m["schema_version"].update(major=10**30), "SchemaVersion.major"),
        (lambda m: m["schema_version"].update(major=True), "SchemaVersion.major"),
        (
            lambda m: m.update(range_constraints={"u999999999999": {"min_val": 0, "max_val": 1}}),
            "symbolic size",
        ),
    ],
)
def test_model_of_another_form(
    edit: Callable[[dict], object], message: str, saved: Path, tmp_path: Path
) -> None:
    refused(with_json(saved, tmp_path / "bad.pt2", MODEL, edit), message)


def test_things_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        q8ta_ops.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")  # nobody writes to it: reading would wait
    refused(Path("/dev/zero"), "not a regular file")


S = "Symbol('s77', positive=True, integer=True)"


@pytest.mark.parametrize(
    "expression",
    [
        *(
            S,
            "Symbol('u0', integer=True)",
            "Integer(-3)",
            "Rational(1, 2)",
            "true",
            "Float('0.5', precision=53)",
        ),
        *(f"Add(Mul(Integer(2), {S}), Integer(-1))", f"FloorDiv({S}, Integer(8))", f"Pow({S}, Integer(2))"),
        *(f"StrictLessThan({S}, Integer(4))", f"And(Equality({S}, Integer(1)), Not(false))"),
    ],
)
def test_expressions_of_sizes(expression: str) -> None:
    assert expressions.expression(expression) == expression


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "",
            "s77",
            "1",
            "Integer(1",
            "Integer(1))",
            "Integer('1')",
            "Integer()",
            "Symbol(s77)",
            "Symbol('x')",
        ),
        *("Symbol('s77', a=b)", f"{S}.subs", f"{S} + 1", "Integer(1);Integer(1)", "lambda: 1", "open('x')"),
        *(
            "Pow(Integer(9), Integer(9))",
            f"Pow({S}, Integer(99))",
            "LShift(Integer(1), Integer(99))",
            "Add()",
        ),
        *("sympify(Integer(1))", "Add(Integer(1),Integer(1))", "Add(" * 3000, "Integer(" + "9" * 30 + ")"),
    ],
)
def test_what_is_no_expression_of_sizes(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a symbolic expression"):
        expressions.expression(expression)


@pytest.mark.parametrize(
    "guard",
    [
        "L['x'].size()[0] >= 3",
        "L['x']['k'][0].size()[1]**2 < 2*max(1, L['y'].size()[0] // 4) % 7",
        "torch.sym_max(1, L['x'].size()[0]) == math.floor(L['y'].size()[0] / 2)",
    ],
)
def test_guards(guard: str) -> None:
    assert text.guard(guard) == guard


@pytest.mark.parametrize(
    "guard",
    [
        *("torch.load", "torch.sym_max.x", "torch.sym_maximum", "math.factorial(9)"),
        *(
            "L['x'].data",
            "L['x'].__class__",
            "x",
            "9**9",
            "(9)**9",
            "L['x'].size()[0]**2**9**9",
            "'a'",
            "[1]",
        ),
        *(
            "print(1)",
            "L['x'].size()[0] if 1 else 2",
            "1\n2",
            "1;2",
            "L['x'].size()[0] << 9",
            "lambda: 1",
            "1 " * 999,
        ),
    ],
)
def test_what_is_no_guard(guard: str) -> None:
    with pytest.raises(ValueError, match="is not a comparison of sizes"):
        text.guard(guard)


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.q8ta.linear.default", "torch.ops.aten.add_.Tensor", "torch.ops.aten._softmax.default"),
        *("torch.ops.aten.linear.default", "torch.ops.aten.einsum.default", "torch.ops.aten.lstm.input"),
        *("_operator.floordiv", "torch.sym_max", "torch.ops.higher_order.cond"),
    ],
)
def test_operators_that_a_graph_may_call(target: str) -> None:
    assert operators.call_target(target) == target


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.ops.aten._print.default"),
        *("torch.ops.aten.set_.source_Storage_storage_offset", "torch.ops.aten.resize_.default"),
        *("torch.ops.aten._reshape_alias.default", "torch.ops.aten._unsafe_index.Tensor"),
        *("torch.ops.aten.linear", "torch.ops.aten.linear.nothing", "torch.ops.aten.nothing.default"),
        *("torch.ops.aten.linear.default.__call__", "torch.ops.aten.__class__.mro", "torch.ops.load_library"),
        *(
            "torch.ops.q8ta.__init__.default",
            "torch.ops.mkldnn._linear_pointwise.default",
            "torch.hub.load",
            "",
        ),
        *(
            "_operator.attrgetter",
            "_operator.pow",
            "_operator.call",
            "math.factorial",
            "#namespace:name",
            "print",
        ),
        *("torch.ops.higher_order.triton_kernel_wrapper_functional", "torch.load", "torch.jit.load"),
    ],
)
def test_functions_that_a_graph_may_not_call(target: str) -> None:
    with pytest.raises(ValueError, match="which the graph in a program file may not"):
        operators.call_target(target)


@pytest.mark.parametrize("name", ["", "a.b.0", "encoder.layer-1.weight", "layer@1", "größe"])
def test_names_of_tensors(name: str) -> None:
    assert text.qualified_name(name) == name


@pytest.mark.parametrize("name", [".", "a.", "a..b", "a b", "a'", "a.__class__", "a\n", "a/b", "a@b", "a()"])
def test_what_is_no_name_of_a_tensor(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        text.qualified_name(name)


def test_containers_of_this_process_may_be_used() -> None:
    leaf = '{"type": null, "context": null, "children_spec": []}'
    for kind, context in (("builtins.list", '"null"'), ("builtins.dict", '"[\\"a\\"]"')):
        spec = f'[1, {{"type": "{kind}", "context": {context}, "children_spec": [{leaf}]}}]'
        assert kind in containers.outputs(spec)


def test_what_was_saved_before_with_other_folder_and_inputs_is_read(saved: Path, tmp_path: Path) -> None:
    """Earlier versions of torch named the folder after the file."""
    renamed = tmp_path / "renamed.pt2"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(renamed, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename.replace("archive/", "my_model-1.0/", 1), old.read(info))
    x = random_int8(torch.Generator().manual_seed(1), 3, 21)
    assert torch.equal(q8ta_ops.load(renamed).module()(x), q8ta_ops.load(saved).module()(x))
