"""What the task in refocus_suite.yaml asks, and how its answers are graded: by the whole text, as `lare eval` grades the suite."""


def pictures(doc):
    return [doc["image"].convert("RGB")]


def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def graded(doc, results):
    said = results[0].strip().rstrip(".").lower()
    return {"right": float(said == doc["answer"].strip().lower())}
