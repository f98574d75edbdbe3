"""The labels of a classification, one of which is chosen by its likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass

from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.classification import normalize_label


@dataclass(frozen=True)
class Labels:
    """The labels of a classification: as the gold answers name them, and as the generator is asked for them."""

    names: tuple[str, ...]
    texts: tuple[str, ...]

    @classmethod
    def parse(cls, values: Sequence[str]) -> "Labels":
        """From `NAME` or `NAME=TEXT`, as "SUPPORTED=true"."""
        pairs = [(name, text if sign else name) for name, sign, text in (value.partition("=") for value in values)]
        if not all(text.strip() for pair in pairs for text in pair):
            raise InputError(f"labels are {list(values)}; give each as NAME or NAME=TEXT, neither of them empty")
        names, texts = tuple(name for name, _ in pairs), tuple(text for _, text in pairs)
        if min(len(set(map(normalize_label, each))) for each in (names, texts)) < max(2, len(names)):
            raise InputError(
                f"labels are {list(values)}; give two or more that differ in more than case and punctuation"
            )
        own = {normalize_label(name): name for name in names}
        for name, text in zip(names, texts, strict=True):
            other = own.get(normalize_label(text), name)
            if other != name:
                raise InputError(
                    f'labels are {list(values)}: the text of "{name}" is the name of "{other}"; give another'
                )
        return cls(names, texts)

    def check(self, questions: Sequence[Question]) -> None:
        """Raise `InputError` for a question whose gold answers are not labels."""
        for question in questions:
            if len(question.answers) != 1:
                count = len(question.answers)
                raise InputError(f'question "{question.id}": has {count} gold answers; a classification has one label')
            if question.answers[0] not in self.names:
                odd = f'its gold answer "{question.answers[0]}" is none of the labels {", ".join(self.names)}'
                raise InputError(f'question "{question.id}": {odd}; name it, NAME or NAME=TEXT')

    def names_of(self, answers: Sequence[str]) -> list[str]:
        """The names of the labels that predicted answers are, by text or name; any other answer as it is."""
        named = [*zip(self.texts, self.names, strict=True), *zip(self.names, self.names, strict=True)]
        known = {normalize_label(text): name for text, name in named}
        return [known.get(normalize_label(answer), answer) for answer in answers]

    def decoded_names(self, tokenizer: GeneratorTokenizer) -> dict[str, str]:
        """The name of each label by what its tokens decode to, which may differ from its text in spaces or case."""
        decoded = [tokenizer.text(ids) for ids in tokenizer.targets(self.texts)]
        if len(set(decoded)) < len(decoded):
            raise InputError(f"labels {list(self.texts)}: two of them are the same to the generator; give others")
        return dict(zip(decoded, self.names, strict=True))
