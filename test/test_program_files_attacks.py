"""Program files are data: what a crafted file tries to run, import, unpickle or open is refused.

Every attack would make a marker in the test's folder if any of it were run, whether the program is loaded,
made a module, or called.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from program_files import CONSTANTS, MANIFEST, MODEL, WEIGHTS, exported, with_files, with_json

import q8ta_ops

Attack = Callable[[Path, Path, str], Path]  # saved file, folder, marker's path -> crafted file


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "program.pt2"
    q8ta_ops.save(exported(), path)
    return path


class MakesMarker:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.marker,)


def pickled(marker: str) -> bytes:
    return pickle.dumps(MakesMarker(marker))


def torch_pickled(marker: str) -> bytes:
    file = io.BytesIO()
    torch.save(MakesMarker(marker), file)
    return file.getvalue()


def code(marker: str) -> str:
    return f"__import__('os').mkdir({marker!r})"


def in_model(edit: Callable[[dict, str], object]) -> Attack:
    """An attack that edits the model's JSON; `edit` gets it and the marker."""
    return lambda saved, folder, marker: with_json(
        saved, folder / "crafted.pt2", MODEL, lambda model: edit(model, marker)
    )


def entry(saved: Path, folder: Path, name: str, data: bytes) -> Path:
    """An attack that adds a file, or replaces it."""
    whole = f"archive/{name}"
    return with_files(
        saved, folder / "crafted.pt2", lambda each, old: None if each == whole else old, {whole: data}
    )


def pickled_weight(saved: Path, folder: Path, marker: str) -> Path:
    def edit(config: dict) -> None:
        config["config"]["first.weights"].update(use_pickle=True, path_name="weight_9")

    changed = with_json(saved, folder / "changed.pt2", WEIGHTS, edit)
    return entry(changed, folder, "data/weights/weight_9", torch_pickled(marker))


def pickled_constant(prefix: str, use_pickle: bool) -> Attack:
    def attack(saved: Path, folder: Path, marker: str) -> Path:
        def edit(config: dict) -> None:
            config["config"]["it"] = {
                "path_name": prefix + "0",
                "is_param": False,
                "use_pickle": use_pickle,
                "tensor_meta": None,
            }

        changed = with_json(saved, folder / "changed.pt2", CONSTANTS, edit)
        make = pickled if prefix == "opaque_obj_" else torch_pickled
        return entry(changed, folder, f"data/constants/{prefix}0", make(marker))

    return attack


def graph(model: dict) -> dict:
    return model["graph_module"]["graph"]


def call(model: dict, target: str, *arguments: dict, **named: dict) -> None:
    """Adds a node in front of the others, whose result nobody uses."""
    inputs = [{"name": "", "arg": each, "kind": 1} for each in arguments]
    inputs += [{"name": name, "arg": each, "kind": 2} for name, each in named.items()]
    node = {
        "target": target,
        "inputs": inputs,
        "outputs": [{"as_tensor": {"name": "attack"}}],
        "metadata": {},
    }
    graph(model)["nodes"].insert(0, node | {"is_hop_single_tensor_return": None, "name": "attack"})
    graph(model)["tensor_values"]["attack"] = graph(model)["tensor_values"]["x"]


def rename(content: dict, old: str, new: str) -> None:
    """Renames a value wherever a JSON file speaks of it."""
    text = json.dumps(content)
    for form in ('"name": {}}}', '"node": {},', '{}: {{"dtype"', '_name": {},', '"name": {}, "layout"'):
        text = text.replace(form.format(json.dumps(old)), form.format(json.dumps(new)))
    content.clear()
    content.update(json.loads(text))


def renamed(old: str, new: Callable[[str], str]) -> Attack:
    """An attack that gives a value or a buffer another name in all files, so that only the name is wrong."""

    def attack(saved: Path, folder: Path, marker: str) -> Path:
        for number, name in enumerate([MODEL, MANIFEST, WEIGHTS]):
            target = folder / f"crafted{number}.pt2"
            saved = with_json(saved, target, name, lambda content: rename(content, old, new(marker)))
        return saved

    return attack


def symbolic(model: dict, expression: str) -> None:
    x = graph(model)["tensor_values"]["x"]
    x["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": {"as_int": 4}}}


def signature(model: dict) -> dict:
    return model["graph_module"]["module_call_graph"][0]["signature"]


def tree(kind: str, context: object) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


def keyword_names(model: dict, marker: str) -> None:
    """Keys of keyword arguments are written into the generated code as they are."""
    specs = json.loads(signature(model)["in_spec"])
    args, kwargs = specs[1]["children_spec"]
    kwargs["children_spec"], args["children_spec"] = args["children_spec"], []
    kwargs["context"] = json.dumps([f"x':{code(marker)},'x"])
    signature(model)["in_spec"] = json.dumps(specs)


ATTACKS: dict[str, tuple[Attack, str]] = {
    # what is pickled
    "pickled weight": (pickled_weight, "weight_9.*pickle"),
    "pickled constant": (pickled_constant("tensor_", True), "pickle"),
    "opaque constant": (pickled_constant("opaque_obj_", True), "pickle"),
    "opaque constant that denies it": (pickled_constant("opaque_obj_", False), "opaque_obj_0"),
    "custom object": (pickled_constant("custom_obj_", True), "pickle"),
    "legacy weights": (
        lambda saved, folder, marker: entry(saved, folder, "data/weights/model.pt", torch_pickled(marker)),
        "data/weights/model.pt",
    ),
    "legacy constants": (
        lambda saved, folder, marker: entry(saved, folder, "data/constants/model.pt", torch_pickled(marker)),
        "data/constants/model.pt",
    ),
    "second model": (
        lambda saved, folder, marker: entry(saved, folder, "models/other.json", b"{}"),
        "models/other.json",
    ),
    "library": (
        lambda saved, folder, marker: entry(saved, folder, "data/aotinductor/model/a.so", b"\x7fELF"),
        "data/aotinductor/model/a.so",
    ),
    # text that torch evaluates
    "size": (in_model(lambda m, marker: symbolic(m, code(marker))), "symbolic expression"),
    "size in a known function": (
        in_model(lambda m, marker: symbolic(m, f"Add(Symbol('s77'), {code(marker)})")),
        "symbolic expression",
    ),
    "name of a symbol": (
        in_model(
            lambda m, marker: symbolic(m, f"Symbol('s77', positive={code(marker)}, integer=True)"),
        ),
        "symbolic expression",
    ),
    "guard": (in_model(lambda m, marker: m["guards_code"].append(code(marker))), "guards_code"),
    # functions that a graph would call
    "function of os": (
        in_model(lambda m, marker: call(m, "torch.os.mkdir", {"as_string": marker})),
        "'torch.os.mkdir'",
    ),
    "function of os, through an operator": (
        in_model(lambda m, marker: call(m, "torch.ops.os.mkdir", {"as_string": marker})),
        "'torch.ops.os.mkdir'",
    ),
    "method caller": (
        in_model(lambda m, marker: call(m, "_operator.methodcaller", {"as_string": "x"})),
        "'_operator.methodcaller'",
    ),
    "file that an aten operator makes": (
        in_model(
            lambda m, marker: call(
                m,
                "torch.ops.aten.from_file.default",
                filename={"as_string": marker},
                shared={"as_bool": True},
                size={"as_int": 8},
            )
        ),
        "'torch.ops.aten.from_file.default'",
    ),
    "function as an argument": (
        in_model(
            lambda m, marker: call(
                m,
                "torch.ops.higher_order.wrap_with_set_grad_enabled",
                {"as_bool": False},
                {"as_operator": "torch.os.mkdir"},
                {"as_string": marker},
            )
        ),
        "as_operator",
    ),
    # names that become code
    "name of an input": (renamed("x", lambda marker: f"x={code(marker)}"), "identifier"),
    "name of a node": (
        renamed("requantize", lambda marker: f"requantize = {code(marker)}\n    y"),
        "identifier",
    ),
    # An attribute whose name is no identifier is read as getattr(self, "name").
    "name of a buffer": (renamed("first.weights", lambda marker: f'a"+{code(marker)})or("'), "name"),
    "name of a parameter of forward": (
        in_model(
            lambda m, marker: signature(m).update(forward_arg_names=[f"x={code(marker)}"]),
        ),
        "identifier",
    ),
    "name of a keyword": (in_model(keyword_names), "in_spec.*quotes"),
    "keyword of a call": (
        in_model(
            lambda m, marker: call(
                m,
                "torch.ops.higher_order.wrap_with_set_grad_enabled",
                **{f"enable_grad={code(marker)},b": {"as_bool": False}},
            )
        ),
        "identifier",
    ),
    # containers that import
    "enumeration in a container": (
        in_model(
            lambda m, _: signature(m).update(
                out_spec=tree(
                    "builtins.dict",
                    json.dumps([{"__enum__": True, "fqn": "makes_marker:it", "name": "it"}]),
                )
            )
        ),
        "out_spec",
    ),
    "factory of a container": (
        in_model(
            lambda m, _: signature(m).update(
                out_spec=tree(
                    "collections.defaultdict",
                    {
                        "default_factory_module": "makes_marker",
                        "default_factory_name": "it",
                        "dict_context": ["a"],
                    },
                )
            )
        ),
        "collections.defaultdict",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, message = ATTACKS[name]
    marker = tmp_path / "marker"
    (tmp_path / "makes_marker.py").write_text(f"import os; os.mkdir({str(marker)!r}); it = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "makes_marker", raising=False)
    crafted = attack(saved, tmp_path, str(marker))
    error: Exception | None = None
    try:
        module = q8ta_ops.load(crafted).module()
        module(torch.ones(4, 21, dtype=torch.int8))
    except Exception as raised:
        error = raised
    assert not marker.exists(), f"the file has run code; then: {error}"
    with pytest.raises(ValueError, match=message):
        q8ta_ops.load(crafted)


def test_example_inputs_are_not_unpickled(saved: Path, tmp_path: Path) -> None:
    """A file of an earlier version has them; they are left where they are."""
    marker = tmp_path / "marker"
    crafted = entry(saved, tmp_path, "data/sample_inputs/model.pt", torch_pickled(str(marker)))
    x = torch.ones(3, 21, dtype=torch.int8)
    assert torch.equal(q8ta_ops.load(crafted).module()(x), q8ta_ops.load(saved).module()(x))
    assert not marker.exists()
