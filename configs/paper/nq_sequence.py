"""RAG-Sequence on Natural Questions, open domain (Lee et al. 2019): one training pair per gold answer.

    rag-jax train paper/nq_sequence --workdir runs/nq_sequence

79,168 questions for training, 8,757 for development; the files of NQ-open are read as they are.
Everything else is in recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("nq", "sequence", questions=79_168, answers="all")
