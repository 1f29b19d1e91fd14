"""Labels on their way in, and what models found of them on the way out.

An NLI model judges a hypothesis about each label ("This example is {}."), so an item becomes
as many units as there are labels. The scores are those of transformers' pipelines
`zero-shot-classification` and `text-classification` (with top_k=None).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Card, Class, Extract, Findings, Output, Relevance

LONGEST_TEMPLATE = 1000
"""Characters: each label's hypothesis is as long."""
LISTED = 20
"""Labels that a refusal names."""


def check_labels(task: Extract, card: Card, most: int) -> None:
    """Raises BadRequest for labels, a template or pairs of an item and a label (more than
    `most`) that the model does not take."""
    _check_template(task.template)
    for index, label in enumerate(task.labels):
        if not label.strip() or not _is_unicode(label):
            raise BadRequest(
                "A label must be a text that is not empty, of whole Unicode characters.",
                param=f"labels[{index}]",
            )
    if card.zero_shot and not task.labels:
        raise BadRequest("This model looks for labels of yours: name at least one.", param="labels")
    if card.labels and not set(task.labels) <= set(card.labels):
        raise BadRequest(f"This model's labels are {_listed(card.labels)}.", param="labels")
    if len(task.items) * units_each(task, card) > most:
        raise BadRequest(
            f"At most {most} pairs of an item and a label are taken at once.", param="labels"
        )


def units_each(task: Extract, card: Card) -> int:
    """How many units of model work an item becomes."""
    return len(_distinct(task.labels)) if card.template else 1


def hypotheses(task: Extract, card: Card) -> list[str]:
    """One for each label that is not there twice; none where the model takes none."""
    template = task.template or card.template
    if not card.template:
        return []
    return [template.replace("{}", label) for label in _distinct(task.labels)]


def find(task: Extract, card: Card, outputs: Sequence[Output]) -> list[Findings]:
    """The outputs of all units as each item's findings."""
    if card.template:
        labels = _distinct(task.labels)
        judged = [output for output in outputs if isinstance(output, Relevance)]
        rows = (judged[at : at + len(labels)] for at in range(0, len(judged), len(labels)))
        found = [_judged(labels, row, multi_label=bool(task.multi_label)) for row in rows]
    else:
        found = [output.classes for output in outputs if isinstance(output, Findings)]
    return [Findings(_kept(classes, task)) for classes in found]


def _judged(
    labels: Sequence[str], judged: Sequence[Relevance], *, multi_label: bool
) -> tuple[Class, ...]:
    """Each label's entailment against its contradiction, or one label against the others."""
    if multi_label or len(labels) == 1:
        scores = [one.value for one in judged]
    else:
        highest = max(one.raw for one in judged)
        powers = [math.exp(one.raw - highest) for one in judged]
        total = math.fsum(powers)
        scores = [power / total for power in powers]
    return tuple(map(Class, labels, scores))


def _kept(classes: Sequence[Class], task: Extract) -> tuple[Class, ...]:
    wanted, least = set(task.labels), task.threshold
    kept = [
        one
        for one in classes
        if (not wanted or one.label in wanted) and (least is None or one.score >= least)
    ]
    return tuple(sorted(kept, key=lambda one: -one.score)[: task.top])


def _distinct(labels: Sequence[str]) -> list[str]:
    """A label that is there twice would take its share of the others' scores twice."""
    return list(dict.fromkeys(labels))


def _check_template(template: str | None) -> None:
    if template is None:
        return
    fits = template.count("{}") == 1 and len(template) <= LONGEST_TEMPLATE
    if not fits or not _is_unicode(template):
        raise BadRequest(
            "The template must be a sentence with one {} where the label goes, of at most "
            f"{LONGEST_TEMPLATE} characters.",
            param="template",
        )


def _is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no UTF-8 has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - LISTED
    return ", ".join(labels[:LISTED]) + (f" and {more} more" if more > 0 else "")
