"""RAG-Token on Natural Questions, open domain (Lee et al. 2019): short answers, a training pair for each of a
question's.

    python train.py configs/paper/nq_token.py --workdir runs/nq_token

79,168 questions for training, 8,757 for development; NQ-open's files have these fields but for the names:
`question`, `answer`. The rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("nq", "token", questions=79_168, answers="all")
