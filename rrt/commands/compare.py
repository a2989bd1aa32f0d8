"""Reranking methods compared on one test set in one run: accuracy, time and memory, as tables and images.

    python tools/compare.py with temp_dir=logs/compare dataset.landmarks model.RRT resume=logs/rrt_landmarks/best.pt
        fusion=logs/rrt_landmarks/fusion.json whitening=data/landmarks_train/whitening_r50.npz

Needs what evaluate_revisited.py needs, and takes its settings and those of the methods (geometric.threshold=20). The
ranking before reranking is that of the neighbours file. Without methods= all are compared that have what they need:
rrt with resume=, asmk with asmk.codebook=; methods=baselines are plain matching, geometry and the transformer on the
same candidates and descriptors; gains and p are over the method of against=. Writes comparison.md, .csv, .tex and
.json, accuracy_time.png, accuracy_memory.png and rankings.npz (for tools/report.py) into temp_dir.
"""

from pathlib import Path

from rrt.configs import make_command, read_settings
from rrt.evaluation.comparison import CompareSettings, as_markdown, compare, write_comparison
from rrt.files.locks import owned

ex = make_command(globals(), "compare", CompareSettings)


@ex.main
def main(_config):
    """Print the table and write it as Markdown, CSV, LaTeX and images."""
    settings = read_settings(CompareSettings, _config)
    folder = Path(settings.temp_dir)
    with owned(folder, "comparing there"):
        rows = compare(settings)
        write_comparison(folder, rows, settings)
    print(as_markdown(rows), end="")
    print(
        f"wrote comparison.md, .csv, .tex, .json, accuracy_time.png, accuracy_memory.png and rankings.npz in {folder}"
    )
    return {row["method"]: row["map"] for row in rows}
