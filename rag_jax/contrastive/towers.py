"""The two towers of a contrastive run: their checkpoints, their networks in training, and the trained ones again."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array
from tokenizers import Tokenizer

from rag_jax import hub
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.data.tower_inputs import QuestionTokenizer
from rag_jax.errors import InputError
from rag_jax.hub import adapters, loading
from rag_jax.index.encoder import TextEncoder
from rag_jax.models import registry
from rag_jax.models.architecture import TowerConfig
from rag_jax.parallel import devices
from rag_jax.pipeline import networks
from rag_jax.pipeline.assembly import checked_tower, passage_encoder
from rag_jax.types import BiEncoderParams, Params, Tower


class Side(NamedTuple):
    """A tower as it was loaded, with the config's changes."""

    source: str
    checkpoint: hub.TowerCheckpoint
    tokenizer: Tokenizer


class Towers(NamedTuple):
    """The towers that a run starts from."""

    question: Side
    passage: Side
    shares: bool  # whether one set of parameters encodes both

    @property
    def params(self) -> BiEncoderParams:
        """The parameters that training starts from."""
        passage = None if self.shares else self.passage.checkpoint.params
        return BiEncoderParams(self.question.checkpoint.params, passage)

    def with_params(self, params: BiEncoderParams) -> "Towers":
        """The same towers with other parameters."""
        question, passage = (
            side._replace(checkpoint=dataclasses.replace(side.checkpoint, params=own))
            for side, own in zip(self[:2], (params.question_tower, passage_params(params)), strict=True)
        )
        return self._replace(question=question, passage=passage)

    def interpolated(self, params: BiEncoderParams, share: float) -> BiEncoderParams:
        """The parameters between those of the checkpoints and trained ones: start + share * (trained - start).

        Source: WiSE-FT, Wortsman et al. 2022, equation 1. On the host, so that any machine computes the same bits.
        """
        if share == 1:
            return params

        def between(start: Array, end: Array) -> np.ndarray:
            first = np.asarray(start)
            return first + np.asarray(share, first.dtype) * (np.asarray(end) - first)  # equal ones stay as they are

        return jax.tree.map(between, self.params, devices.whole(params))

    def question_tokenizer(self, config: ContrastiveConfig) -> QuestionTokenizer:
        """Converts questions to the question tower's input."""
        fed, longest = self.question.checkpoint.input_format, config.retriever.max_question
        return QuestionTokenizer(self.question.tokenizer, fed.question, min(longest, fed.max_length or longest))

    def passage_encoder(self, config: ContrastiveConfig, params: BiEncoderParams) -> TextEncoder:
        """The passage tower with some parameters, and its tokenizer."""
        encoder = passage_encoder(config, self.passage.source, self.passage.checkpoint, self.passage.tokenizer)
        return dataclasses.replace(encoder, params=devices.whole(passage_params(params)))

    def question_encoder(self, config: ContrastiveConfig, params: BiEncoderParams) -> TextEncoder:
        """The question tower with some parameters; its `encode` takes the rows of `question_tokenizer`."""
        tower = registry.tower(self.question.checkpoint.config)
        params, longest = devices.whole(params.question_tower), config.retriever.max_question
        return TextEncoder(tower, params, self.question.tokenizer, longest)

    def checkpoints(self, params: BiEncoderParams) -> dict[str, hub.TowerCheckpoint]:
        """The towers with some parameters as checkpoints, by the name of their folder; "" for a shared one.

        Each states both templates, so that either folder alone reads passages or questions as the run did.
        """
        fed = self.question.checkpoint.input_format._replace(passage=self.passage.checkpoint.input_format.passage)
        question = dataclasses.replace(
            self.question.checkpoint, params=devices.whole(params.question_tower), input_format=fed
        )
        if self.shares:
            return {"": dataclasses.replace(question, side=None)}
        fed = self.passage.checkpoint.input_format._replace(question=fed.question)
        passage = dataclasses.replace(
            self.passage.checkpoint, params=devices.whole(passage_params(params)), input_format=fed
        )
        return {
            "question": dataclasses.replace(question, side="question"),
            "passage": dataclasses.replace(passage, side="passage"),
        }


def load(config: ContrastiveConfig) -> Towers:
    """Load the checkpoints. Raises `InputError` for towers that are missing or do not match."""
    c = config.retriever
    same = c.passage_tower is None
    question = hub.load_tower(c.tower)
    if same and question.side == "question":
        raise InputError(
            f"{c.tower}: reads questions only; name the tower of the passages too, retriever.passage_tower"
        )
    lengths = {"retriever.max_question": c.max_question} | ({"retriever.max_passage": c.max_passage} if same else {})
    question, tokenizer = checked_tower(config, c.tower, question, lengths)
    passage = question, tokenizer
    if c.passage_tower is not None:
        lengths = {"retriever.max_passage": c.max_passage}
        passage = checked_tower(config, c.passage_tower, hub.load_tower(c.passage_tower), lengths)
    width, passage_width = question.config.vector_width, passage[0].config.vector_width
    if width != passage_width:
        problem = f"makes vectors of width {passage_width}, the questions' tower of width {width}"
        raise InputError(f"{c.passage_tower}: {problem}; give two towers of the same width")
    norm, passage_norm = question.config.vector_norm, passage[0].config.vector_norm
    if config.contrastive.widths and norm != passage_norm:
        problem = f"scales its vectors to {passage_norm}, the questions' tower to {norm}"
        remedy = "contrastive.widths need one norm; set retriever.vector_norm"
        raise InputError(f"{c.passage_tower}: {problem}: {remedy}")
    if c.adapter is not None:
        params = adapters.load(c.adapter, question.params, loading.tower_modules(c.tower))
        question = dataclasses.replace(question, params=params)
    for source, checkpoint in ((c.tower, question), (c.passage_tower or c.tower, passage[0])):
        if c.dropout and not hasattr(checkpoint.config, "dropout"):
            problem = f"retriever.dropout is {c.dropout}, but {source} is a network without dropout"
            raise InputError(f"{problem}; leave it out")
    shares = c.trained == "shared"
    return Towers(Side(c.tower, question, tokenizer), Side(c.passage_tower or c.tower, *passage), shares)


def training_tower(config: ContrastiveConfig, sizes: TowerConfig, mesh: Mesh | None) -> Tower:
    """A tower as it is computed in training; on a mesh, activations are sharded by row."""
    c = config.compute
    sharding = None if mesh is None else NamedSharding(mesh, devices.BATCH)
    rate = config.retriever.dropout
    dropout = {} if rate is None else {"dropout": rate, "attention_dropout": rate}
    return networks.tower(sizes, c, scan=c.scan, remat=c.remat, sharding=sharding, **dropout)


def passage_params(params: BiEncoderParams) -> Params:
    """The parameters that encode passages."""
    return params.question_tower if params.passage_tower is None else params.passage_tower
