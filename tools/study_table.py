"""Keeps what the runs of tools/study.sh came to, and makes their table.

    python3 tools/study_table.py keep runs/study/lare-1 >> experiments/study.csv   # a line for each split and task
    python3 tools/study_table.py show experiments/study.csv                        # Markdown

A line has the outcomes question by question (1 right, 0 not), so that modes can be paired after their runs are gone.
"""

import csv
import json
import random
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


def share(outcomes):
    return 100 * outcomes.count("1") / len(outcomes)


def against(ours, theirs, draws=2000):
    """Points by which `ours` is ahead, both lists of rows for each seed, and 95 % of draws of the questions: the same draw for all
    seeds of both, since they were asked the same questions. Says nothing of other seeds."""
    places = sorted({(row["split"], row["task"]) for row in ours[0]})
    columns = {}
    for place in places:
        of = lambda runs: [next(row["outcomes"] for row in run if (row["split"], row["task"]) == place) for run in runs]
        mine, other = of(ours), of(theirs)
        columns[place] = [mean(o[i] == "1" for o in mine) - mean(o[i] == "1" for o in other) for i in range(len(mine[0]))]
    def ahead(pick):
        splits = defaultdict(list)
        for (split, _), column in columns.items():
            splits[split].append(100 * mean(pick(column)))
        return mean(mean(values) for values in splits.values())
    dice = random.Random(1)
    drawn = sorted(ahead(lambda column: dice.choices(column, k=len(column))) for _ in range(draws))
    return ahead(list), drawn[int(0.025 * draws)], drawn[int(0.975 * draws)]


def show(path):
    runs = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader(open(path)):
        runs[row["mode"]][row["seed"]].append(row)
    splits = ["iid", "style", "hops", "dense", "size"]
    heads = ["mode", "seeds", "right, %", *splits, "`lare` ahead by", "inference tokens", "positions", "hits, %"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    right = lambda row: share(row["outcomes"])
    order = sorted(runs, key=lambda mode: -mean(over(rows, right) for rows in runs[mode].values()))
    for mode in order:
        seeds = list(runs[mode].values())
        each = [over(rows, right) for rows in seeds]
        spread = f" ({min(each):.1f} to {max(each):.1f})" if len(each) > 1 else ""
        of_split = [mean(mean(right(row) for row in rows if row["split"] == split) for rows in seeds) for split in splits]
        use = lambda name: mean(over(rows, lambda row: float(row[name] or 0)) for rows in seeds)
        ahead = ""
        if mode != "lare" and "lare" in runs:
            # Seeds that both have, so that no mode is compared by its luckier ones.
            both = sorted(set(runs["lare"]) & set(runs[mode]))
            if both:
                ahead = "{:.1f} [{:.1f}, {:.1f}]".format(*against(*([runs[m][seed] for seed in both] for m in ("lare", mode))))
        tokens = sum(use(name) for name in ("text_tokens", "latent_steps", "appended_visual_tokens"))
        looked = any(row["hits"] for rows in seeds for row in rows)
        cells = [mode, len(seeds), f"{mean(each):.1f}{spread}", *(f"{x:.1f}" for x in of_split), ahead, f"{tokens:.1f}",
                 f"{use('processed_positions'):.1f}", f"{100 * use('hits'):.1f}" if looked else ""]
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
