"""What `tvmtiny tune` is given: compiled directories, models, encoder benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvmtiny.artifact import METADATA_FILE, Artifact
from tvmtiny.bench import models as bench_models
from tvmtiny.bench.catalog import EncoderBenchmark, load_catalog
from tvmtiny.compiler import compile as compile_model
from tvmtiny.schedule.records import RULES


def artifacts_of(
    models: Sequence[str], target: str, calibration: Path | None, folder: Path
) -> list[Artifact]:
    """The integer models to tune, compiled to `folder` where they are not yet.

    Args:
        models: what `tvmtiny compile` wrote or takes, or the names of encoders of `tvmtiny bench`.

    Raises:
        UserError: one of them cannot be compiled.
    """
    encoders = {item.name: item for item in load_catalog() if isinstance(item, EncoderBenchmark)}
    found = []
    for index, model in enumerate(models):
        own = folder / str(index)  # two models may have the same file name
        if (Path(model) / METADATA_FILE).is_file():
            found.append(Artifact.load(model))
        elif model in encoders and not Path(model).exists():
            found.append(_encoder(encoders[model], target, own))
        else:
            output = own / Path(model).stem
            found.append(
                compile_model(model, target=target, calibration=calibration, tuned=RULES, output=output)
            )
    return found


def _encoder(encoder: EncoderBenchmark, target: str, folder: Path) -> Artifact:
    return compile_model(
        bench_models.save(encoder, folder),
        target=target,
        calibration=bench_models.calibration(encoder),
        weights=encoder.weights,
        fold_qk=encoder.fold_qk,
        residual=encoder.residual,
        tuned=RULES,
        output=folder / encoder.name,
    )
