"""RAG-Token on MS MARCO's natural-language generation task v2.1 (Nguyen et al. 2016): answers in sentences, over
Wikipedia.

    rag-jax train paper/msmarco_token --workdir runs/msmarco_token

153,726 questions for training, 12,468 for development; the passages that come with the questions are not used. The
limit of 64 tokens is ours: the paper states no length. Everything else is in recipe.py.

Not yet measured.
"""

from recipe import BEAMS, recipe

config = recipe("msmarco", "token", questions=153_726, num_docs=10, max_target=64, decoding=BEAMS["token"])
