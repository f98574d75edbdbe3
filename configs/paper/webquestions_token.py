"""RAG-Token on WebQuestions (Berant et al. 2013): short answers, a training pair for each of a question's.

    python train.py configs/paper/webquestions_token.py --workdir runs/webquestions_token

3,417 questions for training, 361 for development. Too few to begin with: it starts from the model that
configs/paper/nq_token.py has trained. The rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("webquestions", "token", questions=3_417, answers="all", start_from="runs/nq_token")
