"""RAG-Sequence on FEVER (Thorne et al. 2018), three classes: whether passages support or refute a claim, or are
insufficient.

    rag-jax train paper/fever_sequence --workdir runs/fever_sequence

145,450 claims for training, 10,000 for development; `question` is the claim, `answers` its class in one word:
"supported", "refuted" or "unknown". Classify with `rag-jax answer --labels supported refuted unknown`. FEVER's
own files have other words: sed 's/"SUPPORTS"/"supported"/; s/"REFUTES"/"refuted"/; s/"NOT ENOUGH INFO"/"unknown"/'.
Everything else is in recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("fever", "sequence", questions=145_450, max_target=8)
