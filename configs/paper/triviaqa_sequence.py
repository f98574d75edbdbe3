"""RAG-Sequence on TriviaQA, unfiltered (Joshi et al. 2017): short answers.

    rag-jax train paper/triviaqa_sequence --workdir runs/triviaqa_sequence

78,785 questions for training, 8,837 for development. Training uses the first answer. As in the paper, put one first
that occurs in the question's top 1,000 passages, and leave out questions without any. Everything else is in
recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("triviaqa", "sequence", questions=78_785)
