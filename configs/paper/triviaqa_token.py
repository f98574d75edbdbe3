"""RAG-Token on TriviaQA, unfiltered (Joshi et al. 2017): short answers.

    python train.py configs/paper/triviaqa_token.py --workdir runs/triviaqa_token

78,785 questions for training, 8,837 for development. The first answer is the one that is trained on: choose one
that is found in the question's first 1,000 passages, as the paper does, and leave out questions without. The
rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("triviaqa", "token", questions=78_785)
