"""The gate: judge a challenger and the champion on the same rows, and move the alias if the answer is yes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import champion, data, dialect, evaluate, flavor, record, registry
from penguins.config import Policy, Report, silent
from penguins.errors import DataError, ModelError, StoreError, first_sentence
from penguins.evaluate import Confusion, Verdict
from penguins.registry import Version
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from mlflow.entities import Run
    from pyspark.sql import DataFrame, SparkSession

STEPS = ("Making the test rows again", "Asking the challenger", "Asking the champion", "Judging")
"""What `promote` reports, in order; the last two once more when the champion changes meanwhile."""

ATTEMPTS = 5
"""How often a challenger is judged anew because somebody else moved the champion meanwhile."""

VERDICT = "verdict.json"

MOST_SHOWN = 5
"""How many columns a sentence names."""


@dataclass(frozen=True)
class Promotion:
    """What the gate said, of whom, against whom, and on which measures."""

    challenger: Version
    champion: Version | None
    """Who was champion when the gate decided."""
    verdict: Verdict
    moved: bool
    run_id: str | None
    """The gate's own MLflow run; None in a dry run."""
    rows: int
    """How many test rows both were judged on; 0 where they could not be made again."""
    metrics: dict[str, dict[str, float]]
    """Of `challenger` and `champion`, as far as they were asked."""


def promote(
    spark: SparkSession,
    challenger: Version,
    *,
    policy: Policy | None = None,
    source: str | Path | None = None,
    replace_broken_champion: bool = False,
    judge_only: bool = False,
    dry_run: bool = False,
    spec: Spec = PENGUINS,
    report: Report = silent,
) -> Promotion:
    """Judge `challenger` against the champion of the same name, and make it champion if it is better.

    Both are asked about the test rows of the challenger's own training run, made again from the source, fraction and
    seed that the run logged (`source` says where the same data is now, if it moved) and checked by their digest.
    What the gate can't judge it refuses: rows that can't be made again, a model that can't be loaded or asked. With
    `replace_broken_champion` a champion that can't be loaded or asked counts as none. The verdict is kept, for yes
    and for no: as an MLflow run with `verdict.json`, and as tags on the version; not in a dry run. With `judge_only`
    the alias stays even for a yes: `deploy` moves it when an endpoint gives the version's answers.

    Raises StoreError or ModelError when the registry can't be asked, the challenger isn't there, or it was trained on
    other columns than those of `spec`.
    """
    policy = policy or Policy()
    run = _training_run(challenger)
    _require_spec(challenger, spec)

    def judge() -> Promotion:
        return _judge(spark, challenger, run, policy, source, replace_broken_champion, spec, report)

    if dry_run:
        return judge()
    import mlflow

    name = f"gate: {challenger.name} {challenger.number}"
    with record.new_run(run.info.experiment_id, name) as gate_run:
        mlflow.set_tags({**record.versions(), "step": "promote", "model": challenger.uri})
        for _ in range(ATTEMPTS):
            promotion = replace(judge(), run_id=gate_run.info.run_id)
            # Kept before the alias moves: whoever finds a champion finds the reasons for it.
            _keep(promotion, policy)
            if judge_only or not promotion.verdict.promote:
                return promotion
            if champion.move(challenger, instead_of=promotion.champion):
                registry.describe(challenger, {"gate_moved_at": datetime.now(UTC).isoformat(timespec="seconds")})
                return replace(promotion, moved=True)
        raise StoreError(
            f"The champion of {challenger.name} changed {ATTEMPTS} times while version {challenger.number} was judged: "
            "let one promotion finish before the next one starts."
        )


def held_out(spark: SparkSession, run: Run, source: str | Path | None = None, spec: Spec = PENGUINS) -> DataFrame:
    """The test rows of a training run, made again from what the run logged: the spec's columns, accepted rows only.

    Raises DataError when the source can't be read, or its rows are not the ones that the run kept for the test.
    """
    logged = {item.dataset.name: item.dataset for item in dialect.inputs(run)}
    if "test" not in logged or not {"seed", "testFraction"} <= set(run.data.params):
        raise DataError(f"The run {run.info.run_id} doesn't say which rows were its test rows, so it can't be judged.")
    where = source or json.loads(logged["test"].source).get("path")
    if not where:
        raise DataError(f"The run {run.info.run_id} doesn't say where its rows came from: name the source.")
    fraction, seed = float(run.data.params["testFraction"]), int(run.data.params["seed"])
    accepted, _ = data.check(data.read(spark, where, spec), spec)
    _, test = data.told(lambda: data.split(accepted, fraction, seed, spec), str(where))
    digest = data.profile(test, spec).digest
    if digest != logged["test"].digest:
        raise DataError(
            f"The test rows of the run {run.info.run_id} can't be made again: those of {where} now have the digest "
            f"{digest}, those of the run had {logged['test'].digest}."
        )
    return test


def _training_run(version: Version) -> Run:
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    registry.resolve(version.uri)
    try:
        run_id = client.get_model_version(version.name, str(version.number)).run_id
        if not run_id:
            raise ModelError(f"{version.uri} was registered without a training run, so it can't be judged.")
        return client.get_run(run_id)
    except MlflowException as error:
        raise ModelError(f"The training run of {version.uri} can't be found: {first_sentence(error)}") from error


def _require_spec(version: Version, spec: Spec) -> None:
    """Raise ModelError when the version's signature names other columns than the spec."""
    import mlflow

    try:
        signature = mlflow.models.get_model_info(version.uri).signature
        names = [] if signature is None else [str(name) for name in signature.inputs.input_names()]
    except Exception:  # a model that can't be read is refused by the verdict, with the reason
        return
    if names and set(names) != set(spec.features):
        raise ModelError(
            f"{version.uri} was trained on {_some(names)}, but the spec has {_some(spec.features)}: "
            "judge it with the spec that it was trained with (`spec=` of `promote.promote`)."
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more columns" if len(names) > MOST_SHOWN else ""
    return f"{', '.join(names[:MOST_SHOWN])}{more}"


def _judge(
    spark: SparkSession,
    challenger: Version,
    run: Run,
    policy: Policy,
    source: str | Path | None,
    replace_broken: bool,
    spec: Spec,
    report: Report,
) -> Promotion:
    reading = champion.version_of(challenger.name)
    asked: dict[str, Confusion] = {}
    broken: tuple[str, ...] = ()
    try:
        if reading == challenger:
            raise ModelError("it is the champion already")
        report(STEPS[0])
        with data.cached(held_out(spark, run, source, spec)) as test:
            report(STEPS[1])
            asked["challenger"] = _ask(challenger, test, spec)
            if reading is not None:
                report(STEPS[2])
                try:
                    asked["champion"] = _ask(reading, test, spec)
                except ModelError as error:
                    if not replace_broken:
                        raise ModelError(
                            f"{error}; --replace-broken-champion judges as if there were no champion"
                        ) from error
                    broken = (f"{error}, and it is to be replaced",)
        report(STEPS[3])
        verdict = evaluate.judge(asked["challenger"], asked.get("champion"), policy)
        verdict = replace(verdict, reasons=(*broken, *verdict.reasons))
    except (DataError, ModelError) as error:
        # What can't be judged isn't promoted.
        verdict = Verdict(False, (str(error),))
    rows = asked["challenger"].rows if asked else 0
    measures = {name: evaluate.metrics(confusion) for name, confusion in asked.items()}
    return Promotion(challenger, reading, verdict, False, None, rows, measures)


def _ask(version: Version, test: DataFrame, spec: Spec) -> Confusion:
    try:
        return evaluate.confusion(flavor.load_spark(version.uri).transform(test), spec)
    except Exception as error:  # whatever it is, a model that can't answer can't be judged
        reason = first_sentence(error).rstrip(".")
        raise ModelError(f"{version.uri} can't be asked about the test rows: {reason}") from error


def _keep(promotion: Promotion, policy: Policy) -> None:
    """Log the verdict to the active run, and put it on the version as tags."""
    import mlflow

    verdict = promotion.verdict
    champion = None if promotion.champion is None else promotion.champion.number
    mlflow.log_dict(
        {
            "model": promotion.challenger.name,
            "challenger": promotion.challenger.number,
            "champion": champion,
            "promote": verdict.promote,
            "reasons": list(verdict.reasons),
            "policy": asdict(policy),
            "rows": promotion.rows,
            "metrics": promotion.metrics,
        },
        VERDICT,
    )
    mlflow.set_tag("promote", "yes" if verdict.promote else "no")
    record.log_metrics(
        {f"{who}_{name}": value for who, measures in promotion.metrics.items() for name, value in measures.items()}
    )
    accuracy = {f"gate_{who}_accuracy": f"{measures['accuracy']:.4f}" for who, measures in promotion.metrics.items()}
    if promotion.challenger == promotion.champion:
        return  # the champion keeps the reasons that made it champion
    said = {
        "gate_verdict": "yes" if verdict.promote else "no",
        "gate_reasons": "; ".join(verdict.reasons),
        "gate_champion": "none" if champion is None else str(champion),
        "gate_rows": str(promotion.rows),
        "gate_run_id": promotion.run_id or "",
        **accuracy,
    }
    registry.describe(promotion.challenger, said, in_place_of="gate_")
