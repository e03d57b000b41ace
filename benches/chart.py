"""Draws assets/speed.svg from the table of whole merges in benches/RESULTS.md (needs matplotlib).

    python3 benches/chart.py
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
METHODS = ["ties", "dare_ties", "slerp", "task_arithmetic"]
GREY = "#7d8590"  # legible on white and on black


def medians():
    """Median seconds of each row of the table."""
    rows = re.findall(r"^\| ([\w+/@]+) \| ([\d.]+) \|", (ROOT / "benches/RESULTS.md").read_text(), re.M)
    return {name: float(seconds) for name, seconds in reversed(rows)}


def main():
    seconds = medians()
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "magic", "font.family": "sans-serif", "font.size": 10})
    figure, axes = plt.subplots(figsize=(7.2, 2.6))
    for place, method in enumerate(reversed(METHODS)):
        for tool, shift, colour in [("mergekit", 0.19, GREY), ("magic", -0.19, "#c2571a")]:
            value = seconds[f"{tool}/{method}"]
            axes.barh(place + shift, value, 0.34, color=colour, label=tool if place == 0 else None)
            axes.text(value + 0.8, place + shift, f"{value:.1f} s", va="center", color=colour, fontsize=9)
    axes.set_yticks(range(len(METHODS)), reversed(METHODS), color=GREY)
    axes.set_xlim(0, 1.12 * max(seconds[f"mergekit/{method}"] for method in METHODS))
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.legend(handles, ["mergekit 0.1.5, CPU", "magic, CPU device"], loc="lower right", frameon=False)
    for text in legend.get_texts():
        text.set_color(GREY)
    figure.tight_layout()
    figure.savefig(ROOT / "assets/speed.svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
