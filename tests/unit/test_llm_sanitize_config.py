"""The platform's policy file and a blueprint's options."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.agents.blueprint import BlueprintDefinition
from shared.errors import SettingError
from shared.llm.safety.config import load_sanitize_policy
from shared.llm.safety.policy import NamedPattern, SanitizePolicy
from shared.settings import Settings


def test_the_shipped_file_says_the_defaults() -> None:
    assert load_sanitize_policy(Settings().sanitize_file) == SanitizePolicy()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("mode: loose", "mode must be one of off, redact, refuse; it is 'loose'"),
        ("answers: maybe", "answers must be true or false"),
        ("max_total_characters: 0", "max_total_characters must be a whole number above 0"),
        ("mood: redact", "unknown settings: mood"),
        ("patterns: [x]", "patterns.0 must have name and pattern"),
        ("patterns: [{name: slow, pattern: '(a+)+'}]", "pattern slow: '"),
        ("- redact", "it must map settings to values"),
        ("mode: [", "cannot read"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "sanitize.yaml"
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_sanitize_policy(file)
    assert fault in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_blueprint_s_options() -> None:
    options = {"mode": "refuse", "answers": True, "extra_patterns": [{"name": "case", "pattern": r"ACME-\d{4}"}]}
    definition = BlueprintDefinition.model_validate({"code": "a", "name": "A", "sanitize": options})
    assert definition.sanitize is not None
    assert definition.sanitize.policy() == SanitizePolicy(
        mode="refuse", answers=True, patterns=(NamedPattern("case", r"ACME-\d{4}"),)
    )
    assert BlueprintDefinition.model_validate(definition.model_dump()) == definition
    options["extra_patterns"] = [{"name": "slow", "pattern": "(a+)+"}]
    with pytest.raises(ValidationError, match="pattern slow"):
        BlueprintDefinition.model_validate({"code": "a", "name": "A", "sanitize": options})
