"""Config files that fail, define something else, or hold values of other types and out of range."""

from collections.abc import Iterator

from faults.case import Case

SOURCES = {
    "empty": "",
    "no Python": "config = Config(",
    "not UTF-8": "\udcff",
    "a NUL byte": "config = 1\0",
    "an import that is missing": "import bananas",
    "an error": "1 / 0",
    "an error of several lines": "raise ValueError('one\\ntwo\\nthree')",
    "an error without a message": "raise AssertionError",
    "an error whose message fails": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
    "an escape sequence": "raise ValueError('\\x1b[2J')",
    "an exit": "import sys\nsys.exit(0)",
    "an exit with a message": "import sys\nsys.exit('gone')",
    "endless recursion": "def f(): f()\nf()",
    "no config": "x = 1",
    "a config of a number": "config = 17",
    "a config of a dictionary": "config = {'steps': 1}",
    "the class itself": "from rag_jax.config.config import Config\nconfig = Config",
    "a config that is not complete": "from rag_jax.config.config import Config\nconfig = Config()",
    "a keyword that does not exist": "from rag_jax.config.config import Config\nconfig = Config(bananas=1)",
    "a warning as an error": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('x')",
}
VALUES = {  # of fields of config.py
    "steps": ("'1'", "1.5", "True", "None", "[]", "0", "-1", "float('nan')", "10**30", "object()"),
    "batch_size": ("'1'", "0", "-5", "1.0"),
    "seed": ("-1", "2**40", "'x'"),
    "buckets": ("()", "((0, 0),)", "((1,),)", "((1, 2, 3),)", "1", "(('a', 'b'),)", "((16, 10**9),)"),
    "data": ("None", "{}", "1", "replace(c.data, train=Path('none.jsonl'))", "replace(c.data, passages=3)",
             "replace(c.data, passage_words=0)", "replace(c.data, answers='best')", "replace(c.data, train=None)"),
    "optimizer": ("replace(c.optimizer, learning_rate=float('nan'))", "replace(c.optimizer, learning_rate=-1.0)",
                  "replace(c.optimizer, learning_rate='high')", "replace(c.optimizer, kind='sgd2')",
                  "replace(c.optimizer, warmup=-1)", "replace(c.optimizer, clip=0.0)"),
    "retriever": ("replace(c.retriever, tower='none')", "replace(c.retriever, tower=7)",
                  "replace(c.retriever, tower='')", "replace(c.retriever, num_docs=0)",
                  "replace(c.retriever, num_docs=10**9)", "replace(c.retriever, vector_norm=float('inf'))",
                  "replace(c.retriever, passage_template='{bananas}')", "replace(c.retriever, engine='google')",
                  "replace(c.retriever, max_question=10**9)", "replace(c.retriever, train=('(',))",
                  "replace(c.retriever, vector_width=10**6)", "replace(c.retriever, vector_width=0)"),
    "generator": ("replace(c.generator, width=7)", "replace(c.generator, heads=0)",
                  "replace(c.generator, dropout=1.5)", "replace(c.generator, dropout=float('nan'))",
                  "replace(c.generator, checkpoint='none')", "replace(c.generator, max_target=0)",
                  "replace(c.generator, vocabulary=1)", "replace(c.generator, max_input=1)",
                  "replace(c.generator, lengths=(5, 4))", "replace(c.generator, tokenizer='none.json')"),
}  # fmt: skip
OVERRIDES = (
    *(("--bananas", "1"), ("--data.bananas", "1"), ("--steps",), ("--steps", "x"), ("--steps=",), ("bananas",)),
    *(("--", "1"), ("---steps", "1"), ("--steps", "1", "2"), ("--optimizer", "1"), ("--model", "rag"), ("--=1",)),
)


def cases() -> Iterator[Case]:
    """Every bad config."""
    argv = "train", "bad.py", "--workdir", "new"
    for name, source in SOURCES.items():
        yield Case(f"configs: files: {name}", argv, _write(source), says="bad.py")
    for field, values in VALUES.items():
        for value in values:
            source = f"{HEAD}\nconfig = replace(c, {field}={value})\n"
            yield Case(f"configs: {field}: {value}", argv, _write(source), seconds=40)
    for given in OVERRIDES:
        yield Case(f"configs: {' '.join(given)}", ("train", "config.py", "--workdir", "new", *given), seconds=40)
    for name in ("none.py", "none", "tower", "config.json", "passages.jsonl", "", "/dev/null", "."):
        yield Case(f"configs: named {name!r}", ("train", name, "--workdir", "new"), says=name)
    for words in ((), ("bananas",), ("train",), ("experiment", "bananas"), ("benchmark", "x"), ("demo", "x"), ("",)):
        yield Case(f"configs: {' '.join(('rag-jax', *words))!r}", words, gives=_prints_usage if not words else None)


def _prints_usage(ended) -> bool:
    return ended.out.startswith("usage: rag-jax")


HEAD = "from dataclasses import replace\nfrom pathlib import Path\nfrom config import config as c"


def _write(source: str):
    return lambda here: (here / "bad.py").write_bytes(source.encode("utf-8", "surrogateescape"))
