"""RAG-Sequence on CuratedTREC (Baudiš & Šedivý 2015): short answers, given as regular expressions.

    rag-jax train paper/curatedtrec_sequence --workdir runs/curatedtrec_sequence

635 questions for training, 134 for development. `answers` hold strings: write the expression's most frequent match in
the question's first 1,000 passages, as the paper does. The run starts from the model trained by nq_sequence.
Everything else is in recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("curatedtrec", "sequence", questions=635, start_from="runs/nq_sequence")
