"""Validation of a task's documents: content that cannot be rendered or scored, or that lm-eval silently scores wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jinja2
from jinja2 import meta
from lm_eval import utils
from lm_eval.api.task import ConfigurableTask

from finetune_stages.sdk.fault import first_line

_FIELDS = ("doc_to_text", "doc_to_choice", "doc_to_target")
_SHOWN = 60
_NOT_RENDERED = object()


def template_fault(task: ConfigurableTask, field: str) -> str | None:
    """Return the syntax error of a template of the task, if it has one."""
    template = getattr(task.config, field)
    if not isinstance(template, str) or template in task.features:
        return None
    try:
        utils.env.parse(template)
    except jinja2.TemplateSyntaxError as error:
        return f"{field} is not a valid template ({error.message} in line {error.lineno})"
    return None


def document_fault(task: ConfigurableTask, document: Any) -> str | None:
    """Return the fault of a document, to follow "row 17"; ``None`` for a good one."""
    values = {}
    for field in _FIELDS:
        if field == "doc_to_choice" and task.config.doc_to_choice is None:
            continue
        try:
            values[field] = getattr(task, field)(document)
        except Exception as error:  # noqa: BLE001 - a template or a function of the user's raises what it likes
            return f"{_field(task, field)} cannot be rendered ({type(error).__name__}: {first_line(error, 200)})"
        problem = _null_printed(task, field, document, values[field])
        if problem:
            return problem
    return _DocumentValidator(task, values).fault()


def _field(task: ConfigurableTask, field: str) -> str:
    """Return the task's field and the column that it refers to."""
    value = getattr(task.config, field)
    return f"{field} ({value})" if isinstance(value, str) and value in task.features else field


def _null_printed(task: ConfigurableTask, field: str, document: Any, value: Any) -> str | None:
    """Return the fault of a null value, which a template renders as the text ``None``."""
    template = getattr(task.config, field)
    if not isinstance(document, dict) or not isinstance(template, str):
        return None
    if template in task.features:
        return f"{_field(task, field)} is null or missing" if value is None else None
    nulls = {name for name, item in document.items() if item is None}
    if not nulls or "None" not in str(value):
        return None
    for name in sorted(nulls & meta.find_undeclared_variables(utils.env.parse(template))):
        without = utils.env.from_string(template).render(**{**document, name: ""})
        if without.count("None") < utils.env.from_string(template).render(**document).count("None"):
            return f"{field} renders column {name}, which is null or missing"
    return None


class _DocumentValidator:
    """Validator of a document's rendered parts for the task's type of output."""

    def __init__(self, task: ConfigurableTask, values: dict[str, Any]) -> None:
        self.task = task
        self.text, self.target = values["doc_to_text"], values["doc_to_target"]
        self.choices = values.get("doc_to_choice", _NOT_RENDERED)

    def fault(self) -> str | None:
        """Return the fault, or ``None``."""
        if self.task.multiple_input:
            if not isinstance(self.text, int):
                return f"{self._named('doc_to_text')} is {_shown(self.text)}, and the first document's is the number of a choice"
        elif not isinstance(self.text, str):
            return f"{self._named('doc_to_text')} is {_shown(self.text)}, which is not text"
        problem = self._choices_fault() if self.choices is not _NOT_RENDERED else None
        if problem or callable(self.task.config.process_results):
            return problem
        kinds: dict[str, Callable[[], str | None]] = {
            "multiple_choice": self._choice_target_fault, "generate_until": self._text_target_fault,
            "loglikelihood": self._scored_text_fault, "loglikelihood_rolling": self._scored_text_fault,
        }  # fmt: skip
        return kinds[self.task.OUTPUT_TYPE]()

    def _named(self, field: str) -> str:
        return _field(self.task, field)

    def _choices_fault(self) -> str | None:
        name = self._named("doc_to_choice")
        if not isinstance(self.choices, (list, tuple)) or not self.choices:
            return f"{name} is {_shown(self.choices)}, which is not a list of texts"
        for number, choice in enumerate(self.choices):
            if not isinstance(choice, str):
                return f"{name}[{number}] is {_shown(choice)}, which is not text"
            if not choice:
                return f"{name}[{number}] is empty"
        return None

    def _mixed_fault(self) -> str | None:
        """Return the fault of a target whose kind, one answer or a list, differs from the first document's, which lm-eval assumes."""
        if isinstance(self.target, list) == bool(self.task.multiple_target):
            return None
        kinds = ("one answer", "a list of answers")
        mine, first = kinds if self.task.multiple_target else reversed(kinds)
        return f"{self._named('doc_to_target')} is {_shown(self.target)}, {mine}, and the first document's is {first}"

    def _choice_target_fault(self) -> str | None:
        field = "doc_to_text" if self.task.multiple_input else "doc_to_target"
        gold = self.text if self.task.multiple_input else self.target
        if not self.task.multiple_input:
            problem = self._mixed_fault()
            if problem:
                return problem
        several = gold if isinstance(gold, list) else [gold]
        if not several:
            return f"{self._named(field)} is an empty list"
        numbers = [self._number(each, allow_text=not isinstance(gold, list)) for each in several]
        for each, number in zip(several, numbers, strict=True):
            if number is None:
                return f"{self._named(field)} is {_shown(each)}, which is none of its {len(self.choices)} choices ({self._numbered()})"
        return self._duplicate_fault([number for number in numbers if number is not None])

    def _duplicate_fault(self, numbers: Sequence[int]) -> str | None:
        """Return the fault of equal choices: the first one always wins, so the second can never be right."""
        for number in numbers:
            equal = [position for position, choice in enumerate(self.choices) if choice == self.choices[number]]
            if not set(equal) <= set(numbers):
                positions = " and ".join(f"[{position}]" for position in equal)
                return f"its right answer {_shown(self.choices[number])} is among its choices more than once, at {positions}"
        return None

    def _number(self, gold: Any, allow_text: bool) -> int | None:
        """Return the number of the right choice; ``None`` if it is invalid."""
        if isinstance(gold, str):
            return self.choices.index(gold) if allow_text and gold in self.choices else None
        if isinstance(gold, float) and gold.is_integer():
            gold = int(gold)
        return int(gold) if isinstance(gold, int) and 0 <= gold < len(self.choices) else None

    def _numbered(self) -> str:
        return f"0 to {len(self.choices) - 1}"

    def _text_target_fault(self) -> str | None:
        name = self._named("doc_to_target")
        if self.choices is not _NOT_RENDERED:
            number = self._number(self.target, allow_text=False)
            return (
                None
                if number is not None
                else f"{name} is {_shown(self.target)}, which is not the number of a choice ({self._numbered()})"
            )
        problem = self._mixed_fault()
        if problem:
            return problem
        if isinstance(self.target, list):
            wrong = [each for each in self.target if not isinstance(each, str)]
            if wrong or not self.target:
                return f"{name} is {_shown(self.target)}, which is not a list of texts"
        elif not isinstance(self.target, (str, int, float)):
            return f"{name} is {_shown(self.target)}, which is not text"
        return None

    def _scored_text_fault(self) -> str | None:
        if isinstance(self.target, str) and self.target:
            return None
        return f"{self._named('doc_to_target')} is {_shown(self.target)}, which is not text"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value) if not isinstance(value, str) else f'"{value}"' if value else "empty"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
