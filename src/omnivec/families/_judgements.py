"""How a language model is asked whether a document answers a query: the prompts that rerankers
of this kind were trained with, and how each of them is shortened."""

from __future__ import annotations

from typing import NamedTuple

from omnivec.core.checkpoint import Checkpoint
from omnivec.families._files import tokenizer_settings
from omnivec.families._text import TASK

IN_QUERY = 3 / 4  # of the window is the most that a query has where it is tokenised alone


class Judgement(NamedTuple):
    """A prompt: `before`, the query's part, the document's part, `after`, each of the outer ones
    tokenised by itself.

    With `joint` the two parts are one text, cut at its end. Else they are two, with the tokens
    of `between` in the middle: a query has at most IN_QUERY of the window, and the document
    what is left. `words` are the answers whose logits are compared (the second may be None).
    `mark` is what a chat template of this kind says. What is `beyond` the window, `after` alone,
    was put behind pairs that had been cut to it.
    """

    before: tuple[str, ...]
    instruction: str
    query: str
    document: str
    after: tuple[str, ...]
    words: tuple[str, str | None]
    mark: str
    joint: bool = False
    between: tuple[str, ...] = ()
    default: str = ""
    beyond: bool = False

    def first(self, query: str, instruction: str) -> str:
        told = instruction or self.default
        return (self.instruction.format(told) if told else "") + self.query + query


QWEN3 = Judgement(
    before=(
        (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
            'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
            "<|im_end|>\n<|im_start|>user\n"
        ),
    ),
    instruction="<Instruct>: {}\n",
    query="<Query>: ",
    document="\n<Document>: ",
    after=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    words=("yes", "no"),
    mark="Judge whether the Document meets the requirements",
    joint=True,
    default=TASK,
)
MXBAI = Judgement(
    before=(
        (
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            "assistant.<|im_end|>\n<|im_start|>user\n"
        ),
    ),
    instruction="instruction: {}\n",
    query="query: ",
    document="document: ",
    after=(
        "\n",
        (
            "You are a search relevance expert who evaluates how well documents match search "
            "queries. For each query-document pair, carefully analyze the semantic relationship "
            "between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
            "relevant).\nRelevance:"
        ),
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    words=("1", "0"),
    mark="You are a search relevance expert",
    between=("\n",),
)
BGE_GEMMA = Judgement(
    before=("<bos>",),
    instruction="",
    query="A: ",
    document="B: ",
    after=(
        "\n",
        (
            "Given a query A and a passage B, determine whether the passage contains an answer to "
            "the query by providing a prediction of either 'Yes' or 'No'."
        ),
    ),
    words=("Yes", None),
    mark="Given a query A and a passage B",
    between=("\n",),
    beyond=True,
)
KNOWN = {
    "qwen3-reranker": QWEN3,
    "mxbai-rerank-v2": MXBAI,
    "bge-reranker-v2-gemma": BGE_GEMMA,
}
"""By the name under which a catalogue entry asks for one."""


def find(checkpoint: Checkpoint) -> Judgement | None:
    """As the catalogue says; else by its chat template, or by what it is called."""
    told = checkpoint.overrides.get("judgement")
    if told is not None:
        return KNOWN.get(str(told))
    template = chat_template(checkpoint)
    for judgement in KNOWN.values():
        if judgement.mark in template:
            return judgement
    names = (checkpoint.name, checkpoint.folder.name, checkpoint.config.get("_name_or_path"))
    for name in names:
        called = str(name or "").lower()
        if "qwen3-reranker" in called:
            return QWEN3
        if "mxbai-rerank" in called and "v2" in called:
            return MXBAI
        if "bge-reranker-v2-gemma" in called:
            return BGE_GEMMA
    return None


def chat_template(checkpoint: Checkpoint) -> str:
    """From its own file, or from the tokenizer's settings; "" where there is none."""
    if checkpoint.has("chat_template.jinja"):
        return checkpoint.read("chat_template.jinja").decode(errors="replace")
    told = tokenizer_settings(checkpoint).get("chat_template")
    return told if isinstance(told, str) else ""
