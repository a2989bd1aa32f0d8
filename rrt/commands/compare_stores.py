"""What fewer bytes for an image cost: rerankers on a test set whose store is cut, rounded or coded, as one table.

    python tools/compare_stores.py with temp_dir=logs/stores dataset.landmarks model.RRT
    resume=logs/rrt_landmarks/best.pt
        fusion=logs/rrt_landmarks/fusion.json codes_from=data/landmarks_train/delg_r50.h5
        "variants=['whole','int8','bits 50']"

Every variant is made of the test set's store with rrt.store.compress (words: float16 or int8 or bits, of local
descriptors; a number, the local descriptors kept of an image) and measured with the same neighbours, so that reranking
alone differs. bits are 128-bit codes by ITQ learned on codes_from (a store of training images; codes_list, a list of
some of them), or a random rotation without it. Takes the settings of tools/compare.py and of the methods. Writes
stores.md, stores.csv and stores.json into temp_dir, and the stores, each in a folder of its own.
"""

from pathlib import Path

from rrt.configs import make_command, read_settings
from rrt.evaluation.store_comparison import CompareStoresSettings, as_markdown, compare_stores, write_store_comparison
from rrt.files.locks import owned

ex = make_command(globals(), "compare_stores", CompareStoresSettings)


@ex.main
def main(_config):
    """Print the table and write it as Markdown, CSV and JSON."""
    settings = read_settings(CompareStoresSettings, _config)
    folder = Path(settings.temp_dir)
    with owned(folder, "comparing there"):
        rows = compare_stores(settings)
        write_store_comparison(folder, rows, settings)
    print(as_markdown(rows), end="")
    print(f"wrote stores.md, .csv, .json and a store of each variant in {folder}")
    return {f"{row['store']} {row['method']}": row["map"] for row in rows}
