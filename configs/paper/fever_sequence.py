"""RAG-Sequence on FEVER (Thorne et al. 2018), three classes: whether passages support or refute a claim, or tell
too little.

    python train.py configs/paper/fever_sequence.py --workdir runs/fever_sequence

145,450 claims for training, 10,000 for development; `question` is the claim, `answers` its class in one word:
"supported", "refuted" or "unknown". Classify with `rag-jax answer --labels supported refuted unknown`. The rest
is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("fever", "sequence", questions=145_450, max_target=8)
