"""Check of a model's chat templates: they compile, and the default one renders a conversation.

Jinja has the same settings as in transformers (``_compile_jinja_template`` in transformers/utils/chat_template_utils.py), which is not in
the image of this stage.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.bounded import SECONDS, LimitExceeded, bounded
from finetune_stages.sdk.fault import first_line

from .files import CHAT_TEMPLATES
from .tokens import ROLES, special_tokens

T = TypeVar("T")
FILE = "chat_template.jinja"
_DEFAULT = "default"
_QUESTION, _ANSWER, _SYSTEM = "Which city is it?", "It is Lisbon.", "Answer in one sentence."
_TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "Find.", "parameters": {"type": "object", "properties": {}}},
}
_GENERIC_TOKENIZERS = (None, "PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend")
"""Tokenizer classes without default special tokens."""
_VALUES = (True, "x")
"""Trial values for template arguments."""
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")
"""Variables that transformers passes to every template, in addition to the special tokens."""


@dataclass(frozen=True)
class Template:
    """A chat template: its file, its name if the file has several, its text."""

    file: str
    name: str
    text: str

    @property
    def where(self) -> str:
        """The file, and the name of a template other than the default."""
        return self.file if self.name == _DEFAULT or self.file.endswith(".jinja") else f"{self.file} ({self.name})"


def check_templates(folder: Path, tokenizer: Mapping[str, Any], model: str, required: bool = True) -> list[str]:
    """Compile every chat template, render a conversation with the default one, and return warnings for the user.

    Raises:
        StageError: ``ChatTemplateMissing``: there is no default template, and it is ``required``. ``ChatTemplateInvalid``: one does not
            compile, or the default one does not render.
    """
    templates = find_templates(folder, tokenizer, model)
    default = next((template for template in templates if template.name == _DEFAULT and template.text.strip()), None)
    if default is None and required:
        raise StageError(reasons.CHAT_TEMPLATE_MISSING, f"{model}: it has no chat template {_missing(templates)}.")
    for template in templates:
        _bounded(template, model, partial(_compile, template, model))
    if default is None:
        return [f"{FILE}: the base model has no chat template, so that only documents and tokens can be trained on."]
    return _bounded(default, model, lambda: _try(default, _tokens(default, tokenizer), model))


def _bounded(template: Template, model: str, work: Callable[[], T]) -> T:
    try:
        return bounded(SECONDS, work)
    except LimitExceeded as limit:
        raise _invalid(template, model, None, f"it {limit} for a conversation") from limit


def find_templates(folder: Path, tokenizer: Mapping[str, Any], model: str) -> list[Template]:
    """Return the templates that transformers reads: template files override those in tokenizer_config.json.

    Raises:
        StageError: ``ChatTemplateInvalid``: a file is not text.
    """
    files = [(FILE, _DEFAULT)] if (folder / FILE).is_file() else []
    files += [(f"{CHAT_TEMPLATES}/{path.name}", path.stem) for path in sorted((folder / CHAT_TEMPLATES).glob("*.jinja"))]
    if files:
        return [_read(folder, Template(file, name, ""), model) for file, name in files]
    stated = tokenizer.get("chat_template")
    named = stated if isinstance(stated, list) else [{"name": _DEFAULT, "template": stated}]
    return [
        Template("tokenizer_config.json", str(entry.get("name")), entry["template"])
        for entry in named
        if isinstance(entry, dict) and isinstance(entry.get("template"), str)
    ]


def _tokens(template: Template, tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens for the template, with placeholders for unknown ones that the tokenizer's class defines."""
    if tokenizer.get("tokenizer_class") in _GENERIC_TOKENIZERS:
        return special_tokens(tokenizer)
    return {**{role: f"<{role}>" for role in ROLES if role in template.text}, **special_tokens(tokenizer)}


def _missing(templates: Sequence[Template]) -> str:
    if templates and any(template.name != _DEFAULT for template in templates):
        names = ", ".join(template.name for template in templates)
        return f"named default (it has {names}); add the one to use as {FILE}"
    return f"(neither {FILE} nor one in tokenizer_config.json); use its chat or instruct variant, or add one"


def _read(folder: Path, template: Template, model: str) -> Template:
    try:
        return replace(template, text=(folder / template.file).read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise _invalid(template, model, None, f"it is not UTF-8 ({error.reason} at byte {error.start})") from error


def _try(template: Template, tokens: Mapping[str, str], model: str) -> list[str]:
    """Render conversations until one succeeds, and return warnings: some templates require content parts, a system message or tools."""
    compiled = _compile(template, model)
    tools, first = _first_rendered(compiled, tokens)
    if first is None:
        return []
    if tools is not None:
        return [_needs(template, ["tools"], first)] if tools else []
    arguments = _arguments(compiled, template, tokens)
    if arguments:
        return [_needs(template, arguments, first)]
    raise _invalid(template, model, _line(first), first_line(first))


def _first_rendered(compiled: Any, values: Mapping[str, Any]) -> tuple[bool | None, Exception | None]:
    """Return whether the first conversation that renders has tools, and the first error; ``None`` if there is none."""
    first: Exception | None = None
    for messages, tools in _conversations():
        try:
            text = _render(compiled, messages, tools, values)
            _render(compiled, messages[:-1], tools, values, prompt=True)
        except MemoryError:  # it exceeds the limit
            raise
        except Exception as error:  # noqa: BLE001 - a template can fail with any exception of Python's operators
            first = first or error
            continue
        if _ANSWER in text:
            return tools is not None, first
        first = first or ValueError("it omits the assistant's message")
    return None, first


def _arguments(compiled: Any, template: Template, tokens: Mapping[str, str]) -> list[str]:
    """Return the names of the template arguments that a row must have, if the values do not matter.

    A template also has optional names (``x is defined``). An argument is required if the template renders a conversation with it and
    none without it.
    """
    from jinja2 import meta

    read = meta.find_undeclared_variables(compiled.environment.parse(template.text))
    names = sorted(name for name in read - {*_GIVEN, *tokens, *compiled.environment.globals} if not name.endswith("_token"))
    for value in _VALUES:
        given = dict.fromkeys(names, value)
        if _first_rendered(compiled, {**tokens, **given})[0] is None:
            continue
        for name in names:
            without = {key: each for key, each in given.items() if key != name}
            if _first_rendered(compiled, {**tokens, **without})[0] is not None:
                given = without
        return list(given)
    return []


def _needs(template: Template, arguments: Sequence[str], error: Exception) -> str:
    why = first_line(error, 80).rstrip(".")
    return f"{template.where}: it renders no conversation without {', '.join(arguments[:3])} ({why}); other rows are rejected."


def _conversations() -> Iterator[tuple[list[dict[str, Any]], list[Any] | None]]:
    """Yield typical conversations with their tools; the most common form first."""
    turns = [("user", _QUESTION), ("assistant", _ANSWER)]
    for tools in (None, [_TOOL]):
        for start in ([], [("system", _SYSTEM)]):
            conversation = [*start, *turns]
            yield [{"role": role, "content": content} for role, content in conversation], tools
            yield [{"role": role, "content": [{"type": "text", "text": content}]} for role, content in conversation], tools


def _render(
    compiled: Any, messages: Sequence[Mapping[str, Any]], tools: Any, values: Mapping[str, Any], prompt: bool = False
) -> str:
    text: str = compiled.render(messages=messages, tools=tools, documents=None, add_generation_prompt=prompt, **values)
    return text


def _compile(template: Template, model: str) -> Any:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().from_string(template.text)
    except TemplateSyntaxError as error:
        raise _invalid(template, model, error.lineno, error.message or "a syntax error") from error
    except SyntaxError as error:  # Jinja generates invalid Python for loop controls inside {% generation %}
        raise _invalid(template, model, None, first_line(error)) from error
    except RecursionError as error:
        raise _invalid(template, model, None, "it is nested too deeply") from error


def _environment() -> Any:
    """Return a Jinja environment with the settings of transformers."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}``, which marks what the model generates."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("write"), [], [], body).set_lineno(line)

        @staticmethod
        def write(caller: Callable[[], str]) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=lambda form: datetime.now(UTC).strftime(form))
    return environment


def _line(error: Exception) -> int | None:
    """Return the line of the template where rendering failed; Jinja's stack frames have the template's lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return lines[-1] if lines else None


def _invalid(template: Template, model: str, line: int | None, why: str) -> StageError:
    entry = template.where if line is None else f"{template.where}, line {line}"
    return StageError(
        reasons.CHAT_TEMPLATE_INVALID, f"{model}: {entry}: {why.strip().rstrip('.')}; correct the template, or use another model."
    )
