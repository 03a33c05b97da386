"""Templates of public models are rendered as transformers renders them, and pass."""

from __future__ import annotations

import json

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from finetune_stages.model.template import Template, _compile, _conversations, check_templates, find_templates
from finetune_stages.model.tokens import special_tokens
from finetune_stages.sdk import StageError
from rendering import TEMPLATES

FILES = sorted(TEMPLATES.glob("*.jinja"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def rendered(compiled, messages, tools, prompt: bool) -> str:
    try:
        return compiled.render(messages=messages, tools=tools, documents=None, add_generation_prompt=prompt, **TOKENS)
    except Exception as error:  # noqa: BLE001 - whatever a template does
        return f"{type(error).__name__}: {error}"


def test_public_templates_pass_and_render_as_in_transformers(tmp_path):
    assert len(FILES) > 50
    for path in FILES:
        text = path.read_text()
        (tmp_path / "chat_template.jinja").write_text(text)
        assert check_templates(tmp_path, TOKENS, "m") == [], path.name
        theirs, ours = _compile_jinja_template(text), _compile(Template(path.name, "default", text), "m")
        for messages, tools in _conversations():
            for prompt in (False, True):
                assert rendered(ours, messages, tools, prompt) == rendered(theirs, messages, tools, prompt), path.name


@pytest.mark.parametrize(("kind", "passes"), [("LlamaTokenizerFast", True), ("PreTrainedTokenizerFast", False), (None, False)])
def test_special_tokens_that_only_a_class_names(kind, passes, tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ bos_token + m.content }}{% endfor %}")
    tokenizer = {"tokenizer_class": kind} if kind else {}
    if passes:
        assert check_templates(tmp_path, tokenizer, "m") == []
    else:
        with pytest.raises(StageError, match=r"chat_template\.jinja, line 1: 'bos_token' is undefined"):
            check_templates(tmp_path, tokenizer, "m")


def test_a_model_without_a_template_is_for_documents_and_tokens(tmp_path):
    (warning,) = check_templates(tmp_path, {}, "m", required=False)
    assert warning == (
        "chat_template.jinja: the base model has no chat template, so that only documents and tokens can be trained on."
    )
    with pytest.raises(StageError, match=r"^m: it has no chat template \(neither chat_template.jinja nor"):
        check_templates(tmp_path, {}, "m")
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(StageError, match=r"^m: chat_template.jinja, line 1: "):
        check_templates(tmp_path, {}, "m", required=False)


def test_the_same_templates_as_in_transformers(model):
    from transformers import AutoTokenizer

    def theirs():
        found = AutoTokenizer.from_pretrained(model).chat_template
        return found if isinstance(found, dict) else {"default": found}

    def ours():
        settings = json.loads((model / "tokenizer_config.json").read_text())
        return {template.name: template.text for template in find_templates(model, settings, "m")}

    assert ours() == theirs()
    folder = model / "additional_chat_templates"
    folder.mkdir()
    (folder / "rag.jinja").write_text("{{ documents }}")
    assert ours() == theirs()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    assert ours() == theirs()
    (model / "chat_template.jinja").unlink()
    assert ours() == theirs()
    (folder / "rag.jinja").unlink()
    assert ours() == theirs()


def test_special_tokens_are_named():
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": None,
        "extra_special_tokens": {"image_token": "<image>"},
        "model_max_length": 3,
    }
    assert special_tokens(config) == {"bos_token": "<s>", "image_token": "<image>"}


LOOP = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"{{% if mood %}}{LOOP}{{% else %}}{{{{ raise_exception('no mood') }}}}{{% endif %}}", "mood"),
        (f"{{{{ style.upper() }}}}{{% if debug is defined %}}!{{% endif %}}{LOOP}", "style"),
        (f"{{% if a and b %}}{LOOP}{{% endif %}}", "a, b"),
    ],
)
def test_arguments_that_a_row_must_have_are_named(text, names, tmp_path):
    (tmp_path / "chat_template.jinja").write_text(text)
    (warning,) = check_templates(tmp_path, TOKENS, "m")
    assert warning.startswith(f"chat_template.jinja: it renders no conversation without {names} (")


@pytest.mark.parametrize(
    "text", ["{% if debug is defined %}!{% endif %}{{ messages.nothing.content }}", "{{ debug or '' }}no loop"]
)
def test_a_broken_template_is_not_taken_for_one_that_needs_an_argument(text, tmp_path):
    (tmp_path / "chat_template.jinja").write_text(text)
    with pytest.raises(StageError, match=r"m: chat_template\.jinja.*; correct the template, or use another model") as raised:
        check_templates(tmp_path, TOKENS, "m")
    assert raised.value.reason.name == "ChatTemplateInvalid"


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ENDLESS, "it takes longer than 0.5 s"),
        ("{{ 'a' * 3000000000 }}", "it uses more than 1 GiB of memory"),
        (
            "{% set n = namespace(x='abcdefgh') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "it uses more than 1 GiB",
        ),
        ("{{ messages[0].role * 3000000000 }}", "it uses more than 1 GiB of memory"),
    ],
    ids=["loops", "constant", "doubled", "product"],
)
def test_a_template_without_an_end_is_invalid(text, why, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_stages.model.template.SECONDS", 0.5 if text == ENDLESS else 60)
    (tmp_path / "chat_template.jinja").write_text(text)
    with pytest.raises(StageError, match=f"^m: chat_template.jinja: {why}") as raised:
        check_templates(tmp_path, TOKENS, "m")
    assert raised.value.reason.name == "ChatTemplateInvalid"
    assert raised.value.message.endswith("for a conversation; correct the template, or use another model.")
