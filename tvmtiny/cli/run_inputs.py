"""What `tvmtiny run` runs on: samples of a file, texts, recordings, and labelled examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tvmtiny.cli import console
from tvmtiny.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvmtiny.artifact import Artifact
    from tvmtiny.cli.predictions import Truth
    from tvmtiny.runner import RunResult, Sample
    from tvmtiny.target import Target


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the user gives; one of them at most.

    Attributes:
        data: NPZ file of samples, or of recordings. shown: text file with a line a sample to show beside the result.
        texts, wavs: for a model with a tokenizer, with a front end.
    """

    data: Path | None = None
    shown: Path | None = None
    texts: Sequence[str] = ()
    wavs: Sequence[Path] = ()

    def __post_init__(self) -> None:
        for option, given in (("--text", self.texts), ("--pcm", self.wavs)):
            if given and (self.data is not None or self.shown is not None):
                raise UserError(f"{option} stands in place of --input and --texts.", "Leave these out.")
        if self.texts and self.wavs:
            raise UserError("--text and --pcm are of different models.", "Give one of them.")


@dataclasses.dataclass(frozen=True)
class Runs:
    """Where and how a model is run.

    Attributes:
        on: a kind of runner. target: the board. repeat: runs of each sample. quiet: say nothing on the way.
    """

    on: str
    target: Target
    timeout_s: float
    repeat: int = 1
    quiet: bool = False

    def of(self, artifact: Artifact, inputs: Inputs) -> tuple[RunResult, list[Sample], Truth]:
        """Run the inputs: the results, the samples that the model saw, and what is known of them."""
        from tvmtiny.features.recordings import has_samples

        if inputs.texts:
            return self._texts(artifact, inputs.texts)
        if inputs.wavs or (
            inputs.data is not None and artifact.metadata.get("features") and has_samples(inputs.data)
        ):
            return self._recordings(artifact, inputs.wavs, inputs.data)
        return self._samples(artifact, inputs)

    def _samples(self, artifact: Artifact, inputs: Inputs) -> tuple[RunResult, list[Sample], Truth]:
        from tvmtiny.cli import predictions
        from tvmtiny.frontend.data import load_samples
        from tvmtiny.runner import check_status, run
        from tvmtiny.runner.steps import run_sequences

        if inputs.data is None:
            remedy = "Give samples with --input DATA.npz"
            others = {"tokenizer": ", or --text TEXT.", "features": ", or --pcm FILE.wav."}
            also = [other for key, other in others.items() if artifact.metadata.get(key) is not None]
            raise UserError("There is nothing to run on.", remedy + (also[0] if also else "."))
        samples = load_samples(artifact, inputs.data)
        truth = predictions.read_truth(artifact, inputs.data, inputs.shown, len(samples))
        if artifact.metadata.get("step") is not None:
            if self.repeat > 1:
                raise UserError("--repeat is for models of whole sequences.", "Leave it out.")
            result = run_sequences(artifact, self.on, samples, target=self.target, timeout_s=self.timeout_s)
        else:
            result = run(
                artifact,
                on=self.on,
                samples=samples,
                target=self.target,
                timeout_s=self.timeout_s,
                repeat=self.repeat,
                jobs=0,
            )
        check_status(artifact, result.status)
        return result, samples, truth

    def _texts(self, artifact: Artifact, texts: Sequence[str]) -> tuple[RunResult, list[Sample], Truth]:
        """The device makes the tokens."""
        from tvmtiny.cli.predictions import Truth
        from tvmtiny.tokenizer.text_run import run_texts

        done = run_texts(artifact, texts, self.on, self.timeout_s, target=self.target, repeat=self.repeat)
        if not self.quiet:
            for tokens in done.tokens:
                console.message(f"Tokens made on {self.on}: {' '.join(tokens)}")
            if done.checked:
                console.message("They are those of the tokenizers library.")
            else:
                console.message(
                    "The tokenizers library is not installed; the tokens were not compared with its."
                )
        return done.result, done.samples, Truth(texts=list(texts))

    def _recordings(
        self, artifact: Artifact, wavs: Sequence[Path], data: Path | None
    ) -> tuple[RunResult, list[Sample], Truth]:
        """The device makes the features."""
        from tvmtiny.cli import predictions
        from tvmtiny.features.device_run import front_end, run_recordings
        from tvmtiny.features.recordings import cut, read_recordings, read_wav

        about = front_end(artifact)
        if wavs and about["sample_rate"] is None:
            raise UserError(
                f"{artifact.name} takes samples of a sensor, not PCM.",
                "Give them with --input DATA.npz, key `samples`.",
            )
        whole = [read_wav(path, about["sample_rate"]) for path in wavs]
        whole += [] if data is None else read_recordings(data, about["channels"])
        parts = [list(cut(item, about, has_length=artifact.has_length)) for item in whole]
        recordings = [part.samples for group in parts for part in group]
        done = run_recordings(
            artifact, recordings, self.on, self.timeout_s, target=self.target, repeat=self.repeat, jobs=0
        )
        if not self.quiet:
            console.message(f"The features that were made on {self.on} are those of the NumPy twin.")
        labels = None if data is None else predictions.read_truth(artifact, data, None, len(whole)).labels
        names = [part.name for group in parts for part in group]
        if labels is not None:
            labels = [label for label, group in zip(labels, parts, strict=True) for _ in group]
        return done.result, done.samples, predictions.Truth(texts=names, labels=labels)
