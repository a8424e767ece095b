"""Generate the JSON schema of the configuration from its models.

    python -m metaapo.config_schema > config/schema.json

Editors complete and check a configuration with it. It knows keys, types and ranges; `metaapo.experiment` also checks
what depends on several keys.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from metaapo.config import ExperimentConfig, MethodConfig, Section
from metaapo.method import known_methods, method_module


def schema() -> dict[str, Any]:
    """Return the schema of an experiment's file, with the keys of every known method."""
    found = ExperimentConfig.model_json_schema()
    definitions = found.setdefault("$defs", {})
    for name in (None, *known_methods()):
        params = MethodConfig if name is None else getattr(method_module(name), "Params", MethodConfig)
        keys = params.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= keys.pop("$defs", {})
        _allow_words(keys, definitions, params)
        definitions[f"method:{name}" if name else "method"] = keys
    methods = found["properties"]["methods"]
    methods["properties"] = {name: _settings(f"method:{name}") for name in known_methods()}
    # An entry with another name says in `module` whose keys it takes.
    methods["additionalProperties"] = {"type": ["object", "null"], "properties": {"module": {"type": "string"}}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found


def _allow_words(keys: dict[str, Any], definitions: dict[str, Any], model: type[BaseModel]) -> None:
    """Allow a word where the model translates one before it validates, such as `fidelity: paper`."""
    validators = model.__pydantic_decorators__.field_validators.values()
    for name in (name for v in validators if v.info.mode == "before" for name in v.info.fields):
        keys["properties"][name] = {"anyOf": [keys["properties"][name], {"type": "string"}]}
    for field in model.model_fields.values():
        if isinstance(field.default, Section):
            section = type(field.default)
            _allow_words(definitions[section.__name__], definitions, section)


def _settings(definition: str) -> dict[str, Any]:
    """The schema of a method's entry, which may be empty."""
    return {"anyOf": [{"$ref": f"#/$defs/{definition}"}, {"type": "null"}]}


def text() -> str:
    """Return the schema as it is stored in config/schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
