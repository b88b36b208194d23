"""The story of the package, told while it happens: from a CSV file to a champion that was watched and taken back."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from penguins import champion, config, drift, monitor, predict, promote, query, registry, serve, show, train, tune
from penguins.config import SearchParameters, TrainingParameters
from penguins.findings import Settings
from penguins.spec import LAB_REQUEST

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

BIRDS, SEASON, BOTH, SCORED, REPORT = "penguins.csv", "season.csv", "both.csv", "scored.csv", "drift"
"""What the demo's folder holds beside the store: data that arrives, and what is made of it."""

TRIALS = 8
"""Enough to find better parameters than the first model has."""

ASKED = 100
"""How often the server is asked, to tell how long an answer takes."""


@dataclass
class Story:
    """Prints chapters with their numbers."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    chapters: int = 0

    def chapter(self, title: str, why: str, *commands: str) -> None:
        """Open a chapter: what happens, why, and how to repeat it."""
        self.chapters += 1
        self.console.print()
        self.console.rule(f"[bold]{self.chapters}. {title}", align="left")
        self.console.print(why)
        for command in commands:
            self.console.print(f"[dim]$ {command}[/dim]", soft_wrap=True)


def new_folder(parent: Path) -> Path:
    """Make the first of `penguins-demo`, `penguins-demo-2`, ... that isn't there: no demo touches another one's."""
    number = 1
    while True:
        folder = parent / ("penguins-demo" if number == 1 else f"penguins-demo-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def tell(spark: SparkSession, source: Path, folder: Path) -> None:
    """Tell the whole story with the birds in the CSV file `source`; all that it makes is kept in `folder`.

    The active store has to be in that folder, too. Leaves no process running.
    """
    story = Story()
    shutil.copy(source, folder / BIRDS)
    story.console.print(f"All commands below can be repeated in the folder {folder.name}: [dim]cd {folder.name}[/dim]")
    before = Path.cwd()
    os.chdir(folder)
    try:
        _first_champion(spark, story)
        _ask_over_http(story)
        _better_champion(spark, story)
        _score(spark, story)
        _watch(spark, story)
        _retrain_and_roll_back(spark, story)
    finally:
        os.chdir(before)
    story.console.print(
        f"\nThat was all. Nothing is left running. In {folder.name} are the store with every run and version "
        f"([dim]penguins ui[/dim] shows it), {SCORED}, and the report on the drift: {REPORT}/{monitor.PAGE}."
    )


def _first_champion(spark: SparkSession, story: Story) -> None:
    story.chapter(
        "Train a first model",
        "Read the CSV file, set bad rows aside, split, fit the pipeline in Spark, track and register it.",
        f"penguins train --data {BIRDS} --reg-param 0.01",
    )
    with show.progress((*train.SOURCE_STEPS, *train.STEPS)) as report:
        trained = train.train_from_source(
            spark,
            BIRDS,
            TrainingParameters(reg_param=0.01),
            experiment=config.DEFAULT_EXPERIMENT,
            register_as=config.DEFAULT_MODEL,
            report=report,
        )
    show.trained(trained)
    story.chapter(
        "Is it good enough?",
        "A registered version is only a candidate. The gate asks it about its test rows, made again from the file.",
        "penguins promote",
    )
    _promote(spark)


def _ask_over_http(story: Story) -> None:
    story.chapter(
        "Serve the champion, and ask it about the lab's bird",
        "MLflow's own scoring over HTTP, in a process of its own, with no Spark and no Java behind it.",
        "penguins serve",
        "penguins query",
    )
    bird = pd.DataFrame([LAB_REQUEST])
    with serve.serving(config.DEFAULT_MODEL_URI) as url:
        show.answers(bird, query.ask(url, bird))
        seconds = []
        for _ in range(ASKED):
            start = time.perf_counter()
            query.ask(url, bird)
            seconds.append(time.perf_counter() - start)
    story.console.print(
        f"{ASKED} more answers took {statistics.median(seconds) * 1e3:.1f} ms each (median). The server is stopped."
    )


def _better_champion(spark: SparkSession, story: Story) -> None:
    settings = SearchParameters(trials=TRIALS)
    story.chapter(
        "Look for better parameters",
        "Every trial is a run of its own, measured on a part of the training rows; the test rows stay unseen.",
        f"penguins tune --data {BIRDS} --trials {settings.trials}",
    )
    with show.search_progress((*train.SOURCE_STEPS, *tune.STEPS, *train.STEPS), settings.trials) as (report, on_trial):
        tuned = tune.tune_from_source(
            spark,
            BIRDS,
            settings,
            experiment=config.DEFAULT_EXPERIMENT,
            register_as=config.DEFAULT_MODEL,
            report=report,
            on_trial=on_trial,
        )
    show.tuned(tuned)
    story.chapter(
        "Is the challenger better than the champion?",
        "Both are asked about the same rows, now; no number from another run counts, and a tie keeps the champion.",
        "penguins promote",
    )
    _promote(spark)


def _score(spark: SparkSession, story: Story) -> None:
    story.chapter(
        "Score a whole file with the new champion",
        "Now with the Spark pipeline of the same version. No row gets lost: what can't be scored says why.",
        f"penguins predict --data {BIRDS} --output {SCORED} --overwrite",
    )
    with show.progress(predict.STEPS) as report:
        show.scored(predict.predict(spark, BIRDS, SCORED, report=report))


def _watch(spark: SparkSession, story: Story) -> None:
    drift.lean_season(pd.read_csv(BIRDS)).to_csv(SEASON, index=False)
    story.chapter(
        "New data arrives: a season in which food gets scarce",
        "From the fourth day on every bird weighs a fifth less than the birds that the model learned from.",
        # Without --output, where the demo writes its report: what stands there is never replaced.
        f"penguins monitor --reference {BIRDS} --current {SEASON} --timestamp MeasuredAt",
    )
    with show.progress(monitor.STEPS) as report:
        watched = monitor.monitor(
            spark,
            BIRDS,
            SEASON,
            model=config.DEFAULT_MODEL_URI,
            settings=Settings.of(timestamp="MeasuredAt"),
            output=REPORT,
            experiment=config.DEFAULT_EXPERIMENT,
            report=report,
        )
    show.monitored(watched)


def _retrain_and_roll_back(spark: SparkSession, story: Story) -> None:
    pd.concat([pd.read_csv(BIRDS), pd.read_csv(SEASON)]).to_csv(BOTH, index=False)
    story.chapter(
        "Train again, with the lean birds",
        "The same command on old and new birds together; the gate then asks both models about lean birds, too.",
        f"penguins train --data {BOTH}",
        "penguins promote",
    )
    with show.progress((*train.SOURCE_STEPS, *train.STEPS)) as report:
        trained = train.train_from_source(
            spark, BOTH, experiment=config.DEFAULT_EXPERIMENT, register_as=config.DEFAULT_MODEL, report=report
        )
    story.console.print(f"Version {trained.version}: accuracy {trained.metrics['accuracy']:.3f} on its test rows.")
    _promote(spark)
    story.chapter(
        "And back",
        "Whatever speaks against the new champion: the way back is one command, and takes a moment.",
        "penguins rollback",
    )
    now, until_now = champion.roll_back(config.DEFAULT_MODEL)
    story.console.print(f"Version {now.number} is champion again; version {until_now.number} was until now.")


def _promote(spark: SparkSession) -> None:
    with show.progress(promote.STEPS) as report:
        promotion = promote.promote(spark, registry.newest(config.DEFAULT_MODEL), report=report)
    show.promoted(promotion)
