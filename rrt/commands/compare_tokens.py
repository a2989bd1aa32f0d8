"""How many local descriptors pay: Medium mAP against milliseconds a query of plain matching and of the transformer.

    python tools/compare_tokens.py with temp_dir=logs/tokens dataset.landmarks model.RRT
        resume=logs/rrt_landmarks/best.pt fusion=logs/rrt_landmarks/fusion.json

Needs what tools/compare.py needs and takes its settings; without resume plain matching is measured alone. For each
number of counts=: so many descriptors of both images; so many of a candidate and `most` of the query; and a cascade, so
many for the first num_first candidates, then `most` for the num_last best. Writes tokens.json, tokens.png and
rankings.npz (for tools/report.py) into temp_dir.
"""

from pathlib import Path

from rrt.configs import make_command, read_settings
from rrt.evaluation.comparison import as_markdown
from rrt.evaluation.token_costs import TokenSettings, compare_tokens
from rrt.files.locks import owned

ex = make_command(globals(), "compare_tokens", TokenSettings)


@ex.main
def main(_config):
    """Print the table, write it and the image."""
    settings = read_settings(TokenSettings, _config)
    with owned(settings.temp_dir, "comparing there"):
        found = compare_tokens(settings)
    print(as_markdown(found["rows"]), end="")
    print(f"wrote tokens.json, tokens.png and rankings.npz in {Path(settings.temp_dir)}")
    return {row["method"]: row["map"] for row in found["rows"]}
