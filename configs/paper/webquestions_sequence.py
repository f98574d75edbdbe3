"""RAG-Sequence on WebQuestions (Berant et al. 2013): one training pair per gold answer.

    rag-jax train paper/webquestions_sequence --workdir runs/webquestions_sequence

3,417 questions for training, 361 for development. That is too few from scratch: the run starts from the model trained
by nq_sequence. Everything else is in recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("webquestions", "sequence", questions=3_417, answers="all", start_from="runs/nq_sequence")
