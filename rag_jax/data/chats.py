"""Conversations as tokens, in the tokenizer's own chat template, with the tokens that are learnt.

    <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHow can I help?<|im_end|>\n
                                                              ^^^^^^^^^^^^^^^^^^^^^^^^^^

These are the contents of the assistant's messages with the end token behind each, by which it ends its turn. Where a
content stands is found by rendering the template with stand-ins for all contents. Special tokens of the template are
special; in a content they are plain text. The text between two special tokens is tokenised as a whole.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from rag_jax.data import templates
from rag_jax.data.conversations import Conversation, Message
from rag_jax.data.prompts import render_chat
from rag_jax.data.templates import Pieces
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.errors import InputError

REMEDY = "give a tokenizer with another chat template"


@dataclass(frozen=True)
class Example:
    """A conversation, or a question with its answer, as tokens; its length is their number."""

    id: str
    location: str  # for messages
    tokens: Int[np.ndarray, " S"]
    targets: Int[np.ndarray, " T"]  # the positions of the tokens that are learnt

    def __len__(self) -> int:
        return len(self.tokens)


class _Skeleton(NamedTuple):
    """What a template writes before, between and behind the contents."""

    texts: list[str]
    pieces: list[Pieces]  # the same, split at special tokens


class _Text(NamedTuple):
    """A conversation as the texts between its special tokens, alternating with these."""

    pieces: Pieces
    responses: list[tuple[int, int]]  # the index of a text, and where a response begins in it; it ends the text


@dataclass(frozen=True)
class ChatTokenizer:
    """Converts conversations to examples.

    Args:
        settings: of the tokenizer, its `chat_template` included.
        system_prompt: put before conversations that have none.
        source: of the tokenizer, for error messages.
    """

    tokenizer: GeneratorTokenizer
    settings: dict[str, Any]
    system_prompt: str
    source: str

    def __call__(self, conversations: Sequence[Conversation]) -> list[Example]:
        """Render and tokenise.

        Raises `InputError` for a template that changes the messages, cannot be rendered with them, or does not end
        those of the assistant by the tokenizer's end token.
        """
        skeletons: dict[tuple[str, ...], _Skeleton] = {}
        texts = []
        for conversation in conversations:
            messages = self._prompted(conversation)
            roles = tuple(message.role for message in messages)
            if roles not in skeletons:
                skeletons[roles] = self._skeleton(roles, conversation)
            self._check_unchanged(skeletons[roles].texts, messages, conversation)
            texts.append(_fill(skeletons[roles].pieces, messages))
        return self._tokenize(conversations, texts)

    def _prompted(self, conversation: Conversation) -> tuple[Message, ...]:
        has_own = conversation.messages[0].role == "system" or not self.system_prompt
        return conversation.messages if has_own else (Message("system", self.system_prompt), *conversation.messages)

    def _render(self, messages: Sequence[Message], location: str) -> str:
        remedy = "change the order of its messages" if messages[0].role != "system" else "leave out its system prompt"
        named, template = [message._asdict() for message in messages], self.settings["chat_template"]
        return render_chat(template, named, self.settings, f"{location}: {self.source}", remedy)

    def _skeleton(self, roles: Sequence[str], first: Conversation) -> _Skeleton:
        messages = [Message(role, f"<<content {number}>>") for number, role in enumerate(roles)]
        split = re.split(r"<<content (\d+)>>", self._render(messages, first.location))
        if split[1::2] != [str(number) for number in range(len(roles))]:
            problem = "its chat template does not keep the messages in their order"
            raise InputError(f"{self.source}: {problem} ({first.location}); {REMEDY}")
        texts = split[::2]
        pieces = [templates.split_at_special_tokens(text, self.tokenizer.tokenizer) for text in texts]
        for role, behind in zip(roles, pieces[1:], strict=True):
            if role == "assistant" and (behind[1:2] != [self.tokenizer.eos] or str(behind[0]).strip()):
                end = self.tokenizer.token(self.tokenizer.eos)
                problem = f"its chat template does not end the assistant's messages by the end token {end}"
                raise InputError(f"{self.source}: {problem}; set eos_token to the token that does, or {REMEDY}")
        return _Skeleton(texts, pieces)

    def _check_unchanged(self, texts: Sequence[str], messages: Sequence[Message], conversation: Conversation) -> None:
        """Reject a conversation whose contents the template changes, as it cannot change stand-ins."""
        expected = texts[0] + "".join(f"{each.content}{text}" for each, text in zip(messages, texts[1:], strict=True))
        if self._render(messages, conversation.location) != expected:
            problem = f"its chat template changes the messages of {conversation.location}"
            raise InputError(f"{self.source}: {problem}; change or remove that conversation, or {REMEDY}")

    def _tokenize(self, conversations: Sequence[Conversation], texts: Sequence[_Text]) -> list[Example]:
        goes_on = not templates.begins_anew(self.tokenizer.tokenizer)
        plain = [
            (str(piece), goes_on and number > 0) for text in texts for number, piece in enumerate(text.pieces[::2])
        ]
        encoded = iter(templates.encode_texts(self.tokenizer.tokenizer, plain))
        examples = []
        for conversation, (pieces, responses) in zip(conversations, texts, strict=True):
            tokens, targets, begins = [], [], dict(responses)
            for index, piece in enumerate(pieces):
                if isinstance(piece, int):
                    tokens.append(piece)
                    continue
                encoding = next(encoded)
                if index in begins:
                    ends = np.asarray([end for _, end in encoding.offsets])
                    first = int(np.argmax(ends > begins[index]))  # the first token that reaches into the response
                    # up to the end token, which is the next piece
                    targets += range(len(tokens) + first, len(tokens) + len(encoding.ids) + 1)
                tokens += encoding.ids
            if targets[0] == 0:
                problem = "begins with the response, which nothing before it predicts"
                raise InputError(f"{conversation.location}: {problem}; write a message of the user before it")
            arrays = np.asarray(tokens[: targets[-1] + 1], np.int32), np.asarray(targets, np.int32)
            examples.append(Example(conversation.id, conversation.location, *arrays))
        return examples


def _fill(skeleton: Sequence[Pieces], messages: Sequence[Message]) -> _Text:
    pieces, responses = list(skeleton[0]), []
    for message, behind in zip(messages, skeleton[1:], strict=True):
        if message.role == "assistant":
            responses.append((len(pieces) - 1, len(str(pieces[-1]))))
        pieces[-1] = f"{pieces[-1]}{message.content}{behind[0]}"
        pieces += behind[1:]
    return _Text(pieces, responses)
