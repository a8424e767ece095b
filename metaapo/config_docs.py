"""The documentation of every configuration key, made from the code: `python -m metaapo.config_docs`."""

from __future__ import annotations

from pydantic import BaseModel

from metaapo.config import ExperimentConfig, MethodConfig, Section
from metaapo.method import known_methods, method_module


def _sections(title: str, model: type[BaseModel]) -> list[str]:
    """A section's table and those of the sections inside it."""
    lines = _section_table(f"`{title}:`", model)
    for name, field in model.model_fields.items():
        if isinstance(field.default, Section):
            lines += _sections(f"{title}.{name}", type(field.default))
    return lines


def _section_table(title: str, model: type[BaseModel], inherited: type[BaseModel] | None = None) -> list[str]:
    lines = [f"## {title}", "", (model.__doc__ or "").strip().splitlines()[0], ""]
    lines += ["| key | type | default | meaning, unit, range |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if inherited and name in inherited.model_fields or isinstance(field.default, Section):
            continue
        kind = str(field.annotation).replace("typing.", "").removeprefix("<class '").removesuffix("'>")
        limits = ", ".join(str(limit) for limit in field.metadata)
        default = "required" if field.is_required() else f"`{field.default!r}`"
        meaning = "; ".join(part for part in (field.description, limits) if part)
        lines.append(f"| `{name}` | {kind} | {default} | {meaning} |".replace(" | None |", " or none |"))
    return [*lines, ""]


def reference() -> str:
    """Documentation of every key, in Markdown, made from the code (docs/configuration.md)."""
    lines = [
        "# Configuration",
        "",
        "An experiment is one YAML file under `config/`. Unknown keys are errors. This page is made by",
        "`python -m metaapo.config_docs`; a test keeps it in step with the code.",
        "",
        *_section_table("The experiment", ExperimentConfig),
    ]
    for name, field in ExperimentConfig.model_fields.items():
        if isinstance(field.default, Section):
            lines += _sections(name, type(field.default))
    lines += _section_table("`methods.<name>:` of every method", MethodConfig)
    for method in known_methods():
        params = getattr(method_module(method), "Params", MethodConfig)
        if params.model_fields.keys() - MethodConfig.model_fields.keys():
            lines += _section_table(f"`methods.<name>:` of `{method}`", params, MethodConfig)
            for name, field in params.model_fields.items():
                if isinstance(field.default, Section):
                    lines += _section_table(f"`methods.<name>.{name}:` of `{method}`", type(field.default))
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(reference(), end="")
