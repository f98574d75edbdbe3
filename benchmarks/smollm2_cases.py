"""What SmolLM2 is asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from rag_jax.models import registry
from rag_jax.models.architecture import GeneratorConfig

PARAGRAPHS = 3  # K, the passages about a topic
MIXTURE, GREEDY, TRAINING = "RAG-Token", "greedy", "training"
RATE, DECAY, CLIP = 1e-5, 1e-3, 1.0  # of AdamW


@dataclass(frozen=True)
class Case:
    """One measurement. B questions, K passages, W beams, T target tokens."""

    decoder: str = MIXTURE
    questions: int = 4
    docs: int = PARAGRAPHS
    beams: int = 4
    target: int = 16  # in training: at most

    def flops(self, config: GeneratorConfig, inputs: Sequence[int], labels: Sequence[int]) -> float:
        """The multiplications and additions of all matrix products: each prompt once, each token of each beam once.

        The beams part after the first token. The backward pass costs two forward passes.

        Args:
            inputs: the tokens of each prompt, without the one that decoding starts from.
            labels: the tokens of each question's target, which training counts.
        """
        count, t = registry.generator_of(config).flops, self.target
        if self.decoder == TRAINING:
            targets = [length for length in labels for _ in range(self.docs)]
            return 3 * sum(count(config, *lengths) for lengths in zip(inputs, targets, strict=True))
        one = sum(count(config, length, 1) for length in inputs)
        return one + self.beams * (sum(count(config, length, t) for length in inputs) - one)


CASES = {
    "rag-token": (Case(),),
    "greedy": tuple(Case(GREEDY, questions, 1, 1, target) for questions in (4, 1) for target in (16, 64)),
    "training": (Case(TRAINING, beams=1),),
}
TINY = {
    "rag-token": (Case(questions=2, beams=2, target=4),),
    "greedy": (Case(GREEDY, 2, 1, 1, 4),),
    "training": (Case(TRAINING, questions=2, beams=1),),
}
