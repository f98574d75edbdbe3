"""The passage tower over many texts."""

import numpy as np

from rag_jax.data.tower_inputs import TITLE_AND_TEXT, fill_template
from stores import PASSAGES, encoder


def test_vectors_are_each_text_s_own_in_the_order_of_the_texts() -> None:
    texts = [fill_template(TITLE_AND_TEXT, passage.title, passage.text) for passage in PASSAGES]
    heard = []
    together = encoder()(texts, heard.append)
    alone = np.concatenate([encoder()([text]) for text in texts[:10]])
    np.testing.assert_allclose(together[:10], alone, rtol=1e-6)
    assert sum(heard) == len(PASSAGES)
