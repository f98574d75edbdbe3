"""RAG-Sequence on WebQuestions (Berant et al. 2013): short answers, a training pair for each of a question's.

    python train.py configs/paper/webquestions_sequence.py --workdir runs/webquestions_sequence

3,417 questions for training, 361 for development. Too few to begin with: it starts from the model that
configs/paper/nq_sequence.py has trained. The rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("webquestions", "sequence", questions=3_417, answers="all", start_from="runs/nq_sequence")
