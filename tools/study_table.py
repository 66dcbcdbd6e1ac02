"""Keeps what the runs of tools/study.sh came to, and makes their table.

    python3 tools/study_table.py keep runs/study/lare-1 >> experiments/study.csv   # a line for each split and task
    python3 tools/study_table.py show experiments/study.csv                        # Markdown

A line has the outcomes question by question (1 right, 0 not), so that modes can be paired after their runs are gone.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

FIELDS = ["mode", "seed", "split", "task", "text_tokens", "latent_steps", "refocused_visual_tokens",
          "appended_visual_tokens", "processed_positions", "hits", "unparsed", "outcomes"]
USAGE = FIELDS[4:9]


def keep(run):
    mode, seed = run.name.rsplit("-", 1)
    for split in ["iid", "style", "hops", "dense", "size"]:
        tasks = defaultdict(list)
        for line in open(run / split / "items.jsonl"):
            item = json.loads(line)
            tasks[item["task"]].append(item)
        for task, items in tasks.items():
            hits = [hit for item in items for hit in item["hits"]]
            yield {
                "mode": mode, "seed": seed, "split": split, "task": task,
                **{name: f"{mean(item['usage'][name] for item in items):.2f}" for name in USAGE},
                "hits": f"{mean(hits):.4f}" if hits else "",
                "unparsed": sum(item["outcome"] == "unparsed" for item in items),
                "outcomes": "".join("01"[item["outcome"] == "correct"] for item in items),
            }


def over(rows, value):
    """Mean over tasks, then over splits."""
    splits = defaultdict(list)
    for row in rows:
        splits[row["split"]].append(value(row))
    return mean(mean(values) for values in splits.values())


def show(path):
    runs = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader(open(path)):
        runs[row["mode"]][row["seed"]].append(row)
    right = lambda row: 100 * row["outcomes"].count("1") / len(row["outcomes"])
    splits = ["iid", "style", "hops", "dense", "size"]
    print("| mode | seeds | right, % | " + " | ".join(splits) + " | text tokens | latent steps | appended | positions | hits, % |")
    print("|" + "---|" * (8 + len(splits)))
    order = sorted(runs, key=lambda mode: -mean(over(rows, right) for rows in runs[mode].values()))
    for mode in order:
        seeds = list(runs[mode].values())
        each = [over(rows, right) for rows in seeds]
        spread = f" ({min(each):.1f} to {max(each):.1f})" if len(each) > 1 else ""
        of_split = [mean(mean(right(row) for row in rows if row["split"] == split) for rows in seeds) for split in splits]
        use = lambda name: mean(over(rows, lambda row: float(row[name] or 0)) for rows in seeds)
        cells = [mode, len(seeds), f"{mean(each):.1f}{spread}", *(f"{x:.1f}" for x in of_split)]
        cells += [f"{use(name):.1f}" for name in ("text_tokens", "latent_steps", "appended_visual_tokens", "processed_positions")]
        looked = any(row["hits"] for rows in seeds for row in rows)
        cells.append(f"{100 * use('hits'):.1f}" if looked else "")
        print("| " + " | ".join(str(cell) for cell in cells) + " |")


def main():
    if sys.argv[1] == "show":
        return show(sys.argv[2])
    out = csv.DictWriter(sys.stdout, FIELDS)
    if not Path("experiments/study.csv").exists() or Path("experiments/study.csv").stat().st_size == 0:
        out.writeheader()
    for run in sys.argv[2:]:
        out.writerows(keep(Path(run)))


if __name__ == "__main__":
    main()
