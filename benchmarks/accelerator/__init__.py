"""Right, and how fast, on an accelerator: bash benchmarks/accelerator.sh OUT [--minutes 8]

Each part is a process of its own with a time limit of its own, and writes its figures as soon as it has them: a run
that is cut short still has what it measured. `OUT` receives accelerator.json and accelerator.md, nothing else.
"""

SHARES = {  # of the time, in the order of their worth; what a part leaves goes to those behind it
    "weights": 8,
    "rightness": 6,
    "roofline": 3,
    "search": 4,
    "search_torch": 3,
    "train": 14,
    "train_torch": 5,
    "decode": 8,
    "decode_torch": 4,
}
READ_WEIGHTS = {"train", "train_torch", "decode", "decode_torch"}  # parts that need what `weights` writes
