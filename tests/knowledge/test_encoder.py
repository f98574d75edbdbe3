"""The passage tower over many texts."""

import numpy as np

from stores import PASSAGES, encoder


def test_vectors_are_each_text_s_own_in_the_order_of_the_texts() -> None:
    texts = [encoder().read(passage) for passage in PASSAGES]
    heard = []
    together = encoder()(texts, heard.append)
    alone = np.concatenate([encoder()([text]) for text in texts[:10]])
    np.testing.assert_allclose(together[:10], alone, rtol=1e-6)
    assert sum(heard) == len(PASSAGES)


def test_a_passage_without_a_title_is_its_text() -> None:
    assert encoder().read(PASSAGES[1]) == "Town 1. people and 1 more"
    assert encoder().read(PASSAGES[1]._replace(title="")) == "people and 1 more"
