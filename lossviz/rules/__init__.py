"""The rules: each looks at tensors and numbers, not at how the model was written, and yields what it sees.

A rule looks first at what is known without running anything (shapes, the graph, the report); only a suspicion makes
it compute.

evidence     what the rules look at: outputs, what was added, the graph, the report
rule, words  what a rule is, and how it writes numbers
The other files hold the rules, one theme each.
"""

from __future__ import annotations

from collections.abc import Iterable

from lossviz.report.findings import Finding
from lossviz.rules import activations, classes, direction, options, reach, shapes, training, values, weights
from lossviz.rules.evidence import Case
from lossviz.rules.rule import Rule
from lossviz.rules.training import of_epoch

__all__ = ["RULES", "check", "of_epoch", "union"]

#: Every rule by its name, in the order in which findings are listed.
RULES: dict[str, Rule] = {
    one.name: one
    for one in (
        reach.cannot_change,
        direction.wrong_direction,
        weights.weights_axis,
        shapes.scalar_loss,
        weights.weights_divisor,
        weights.zero_weight_nan,
        weights.class_weight,
        shapes.broadcast,
        training.several_losses,
        activations.double_activation,
        activations.swapped_activation,
        activations.unnormalised,
        activations.unbounded_output,
        reach.out_of_reach,
        values.labels_range,
        values.hinge_labels,
        values.kl_targets,
        values.float32_targets,
        options.ctc,
        options.loss_weights_order,
        options.option_range,
        training.nonfinite_batch,
        training.accumulation,
        options.metric_named_loss,
        options.tversky_swapped,
        options.unused_option,
        values.mape_zeros,
        classes.dice_background,
        classes.dice_batch,
        classes.imbalance,
        shapes.vector_add_loss,
        training.frozen_regulariser,
        shapes.reduction_none,
        training.short_last_batch,
        values.fp16_overflow,
        shapes.strategy_scalar,
        values.class_labels,
    )
}


def check(case: Case) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The findings of every rule, in the order of the rules, and a note on each rule that failed: what it would have
    said is not known, and nothing else is lost."""
    findings, notes = [], []
    for one in RULES.values():
        try:
            findings += list(one.findings(case))  # all of a rule, or nothing
        except Exception as error:
            words = " ".join(str(error).split())
            notes.append(f"the rule {one.name} failed and says nothing here ({type(error).__name__}: {words[:200]})")
    return tuple(findings), tuple(notes)


def union(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each fault once: of several findings of one rule at one place, as several batches give them, the first."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        found.setdefault((finding.rule, finding.where), finding)
    order = list(RULES)
    return tuple(sorted(found.values(), key=lambda finding: order.index(finding.rule)))
