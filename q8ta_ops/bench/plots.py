"""A roofline and a bar chart of one run, from its JSON document."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from .verdicts import main_us


def unavailable_because() -> str | None:
    """Why there can be no plots; None if there can."""
    if importlib.util.find_spec("matplotlib") is None:
        return "--plots needs matplotlib, which is not installed: pip install matplotlib"
    return None


def intensity(shape: list[int]) -> float:
    """int8 operations (2 a multiply-add) for each byte of x, weights and y."""
    M, K, N = shape
    return 2 * M * K * N / (M * K + K * N + M * N)


def roofline_points(document: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """For each contestant that computes on the GPU: (operations a byte, TOPS) of its shapes."""
    points: dict[str, list[tuple[float, float]]] = {}
    for result in document["results"]:
        if result["section"] in ("exact", "cpu", "vk"):
            continue
        for row in result["contestants"]:
            if "tops" in row:
                points.setdefault(row["name"], []).append((intensity(result["shape"]), row["tops"]))
    return points


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Writes bars.png and, if there is a GPU's roof, roofline.png; returns what it wrote."""
    import matplotlib

    matplotlib.use("Agg")  # needs no display
    folder.mkdir(parents=True, exist_ok=True)
    written = [_draw_bars(document, folder / "bars.png")]
    if "copy_gb_s" in document["roofs"]:
        written.append(_draw_roofline(document, folder / "roofline.png"))
    return written


def _draw_roofline(document: dict[str, Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    roofs = document["roofs"]
    figure, axes = plt.subplots(figsize=(10, 6))
    points = roofline_points(document)
    everything = [x for each in points.values() for x, _ in each] or [1.0]
    low, high = min(everything) / 2, max(everything) * 4
    ridge = roofs["tops"] * 1e3 / roofs["copy_gb_s"]
    xs = sorted({low, min(max(ridge, low), high), high})
    ys = [min(x * roofs["copy_gb_s"] * 1e-3, roofs["tops"]) for x in xs]
    axes.plot(xs, ys, color="black", label=f"roof: {roofs['copy_gb_s']:.0f} GB/s, {roofs['tops']:.3g} TOPS")
    for name, each in points.items():
        each.sort()
        axes.plot(*zip(*each, strict=True), marker="o", linestyle="none", label=name, alpha=0.8)
    axes.set(xscale="log", yscale="log", xlabel="int8 operations a byte", ylabel="TOPS")
    axes.set_title(document["environment"]["vulkan"]["name"])
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _draw_bars(document: dict[str, Any], path: Path) -> Path:
    """For each shape, the times of all contestants relative to ours: longer is slower."""
    import matplotlib.pyplot as plt

    groups = []
    for result in document["results"]:
        if result["section"] == "exact":
            continue
        ours = next((main_us(row)["median"] for row in result["contestants"] if row.get("ours")), None)
        if ours is not None:
            groups.append((result, ours))
    names = list(dict.fromkeys(row["name"] for result, _ in groups for row in result["contestants"]))
    colors = dict(zip(names, plt.get_cmap("tab20").colors * (len(names) // 20 + 1), strict=False))
    rows = sum(len(result["contestants"]) for result, _ in groups) + len(groups)
    figure, axes = plt.subplots(figsize=(10, max(4.0, 0.16 * rows)))
    position, ticks, labels, labelled = 0.0, [], [], set()
    for result, ours in groups:
        first = position
        for row in result["contestants"]:
            us = main_us(row)
            error = [[(us["median"] - us["q25"]) / ours], [(us["q75"] - us["median"]) / ours]]
            axes.barh(
                position,
                us["median"] / ours,
                xerr=error,
                color=colors[row["name"]],
                label=None if row["name"] in labelled else row["name"],
            )
            axes.text(us["median"] / ours, position, f" {us['median']:.1f} us", va="center", fontsize=5)
            labelled.add(row["name"])
            position += 1
        ticks.append((first + position - 1) / 2)
        labels.append(f"{result['section']} {'x'.join(map(str, result['shape']))}")
        position += 1
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="time relative to q8ta (longer is slower)")
    axes.legend(fontsize=6, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
