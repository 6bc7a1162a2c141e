"""What a label selector matches: the oracle's own reading, which the enforcer must not import."""

from __future__ import annotations

from harness.model.policy import Labels, LabelSelector, Operator, Requirement


def selects(selector: LabelSelector, labels: Labels) -> bool:
    """True iff all of the selector holds; an empty selector holds for everything.

    Source: ``k8s.io/apimachinery/pkg/labels``.
    """
    return all(labels.get(key) == value for key, value in selector.match_labels) and all(
        satisfies(requirement, labels) for requirement in selector.match_expressions
    )


def satisfies(requirement: Requirement, labels: Labels) -> bool:
    """One requirement. ``NotIn`` holds for an object that lacks the key (apimachinery says so)."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value is None or value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None
