"""Train from a checkout: python train.py configs/NAME.py [--dotted.overrides VALUE] --workdir DIR

The same as `rag-jax train`, whose help lists all options.
"""

import sys

from rag_jax.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
