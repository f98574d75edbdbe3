"""RAG-Token on FEVER (Thorne et al. 2018), two classes: whether passages support or refute a claim (Thorne &
Vlachos 2020).

    rag-jax train paper/fever2_token --workdir runs/fever2_token

96,966 claims for training, 6,666 for development; `question` is the claim, `answers` its class in one word:
"supported" or "refuted". Classify with `rag-jax answer --labels supported refuted`. Claims of the third class
are left out, the others renamed as in fever_token. Everything else is in recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("fever2", "token", questions=96_966, max_target=8)
