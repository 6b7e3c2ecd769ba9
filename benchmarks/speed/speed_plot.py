"""The README's plot of speeds."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt


def plot(rates: dict[str, float], title: str, path: Path) -> None:
    """Draws a bar per way: pairs per second, this package's in colour."""
    figure, axes = plt.subplots(figsize=(7.5, 0.34 * len(rates) + 0.7), layout="constrained")
    names = list(rates)[::-1]
    colors = ["#1f6f8b" if name.startswith("this package") else "#9aa7b1" for name in names]
    bars = axes.barh(names, [rates[name] for name in names], color=colors)
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
    axes.set(xlabel="pairs per second", title=title, xlim=(0, 1.1 * max(rates.values())))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
