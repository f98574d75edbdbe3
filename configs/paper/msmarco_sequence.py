"""RAG-Sequence on MS MARCO's natural-language generation task v2.1 (Nguyen et al. 2016): answers in sentences,
over Wikipedia.

    python train.py configs/paper/msmarco_sequence.py --workdir runs/msmarco_sequence

153,726 questions for training, 12,468 for development; the passages that come with the questions are not used.
Answers of 64 tokens are ours: the paper tells no length. The rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import BEAMS, recipe

config = recipe("msmarco", "sequence", questions=153_726, num_docs=10, max_target=64, decoding=BEAMS["sequence"])
