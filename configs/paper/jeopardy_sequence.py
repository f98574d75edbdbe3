"""RAG-Sequence on Jeopardy question generation (SearchQA, Dunn et al. 2017): from an answer to the clue about it.

    rag-jax train paper/jeopardy_sequence --workdir runs/jeopardy_sequence

97,392 pairs for training, 13,714 for development; `question` is the answer entity, `answers` the clue alone. The
limit of 64 tokens is ours: the paper states no length. Everything else is in recipe.py.

Not yet measured.
"""

from recipe import BEAMS, recipe

config = recipe("jeopardy", "sequence", questions=97_392, num_docs=10, max_target=64, decoding=BEAMS["sequence"])
