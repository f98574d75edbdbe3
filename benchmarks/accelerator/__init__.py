"""Right, and how fast, on an accelerator: bash benchmarks/accelerator.sh OUT [--minutes 8]

Each part is a process of its own with a time limit of its own, and writes its figures as soon as it has them: a run
that is cut short still has what it measured. `OUT` receives accelerator.json and accelerator.md, nothing else.
"""
