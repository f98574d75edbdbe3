"""RAG-Token on CuratedTREC (Baudiš & Šedivý 2015): short answers, given as regular expressions.

    python train.py configs/paper/curatedtrec_token.py --workdir runs/curatedtrec_token

635 questions for training, 134 for development. `answers` hold strings: write the expression's most frequent
match in the question's first 1,000 passages, as the paper does. It starts from the model that
configs/paper/nq_token.py has trained. The rest is told in configs/paper/recipe.py.

Not yet measured.
"""

from recipe import recipe

config = recipe("curatedtrec", "token", questions=635, start_from="runs/nq_token")
