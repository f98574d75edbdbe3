"""RAG-Sequence on Jeopardy question generation (SearchQA, Dunn et al. 2017): from an answer to the clue about it.

    python train.py configs/paper/jeopardy_sequence.py --workdir runs/jeopardy_sequence

97,392 pairs for training, 13,714 for development; `question` is the answer entity, `answers` the clue alone.
Clues of 64 tokens are ours: the paper tells no length. The rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import BEAMS, recipe

config = recipe("jeopardy", "sequence", questions=97_392, num_docs=10, max_target=64, decoding=BEAMS["sequence"])
