"""Every key of a job file as a flag (policy.kept alone has none), and what makes a function take a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anonlib.config import JobConfig


@dataclass(frozen=True)
class Flag:
    """One key of the job file on the command line."""

    key: str
    names: str
    type: Any
    help: str

    @property
    def parameter(self) -> str:
        return self.key.replace(".", "__")


FLAGS = (
    Flag("input.uri", "--input", str, "What to read: a file, folder, glob or brace range; local or s3://."),
    Flag("input.format", "--format", str, "webdataset, parquet or folder; guessed from the names if not given."),
    Flag("input.subject_field", "--subject-field", str, "The field that names the person, if there is one."),
    Flag("input.image_field", "--image-field", str, "The member or column that holds the image."),
    Flag("input.key_field", "--key-field", str, "The column that holds the key (Parquet)."),
    Flag("output.uri", "--output", str, "Where the release goes: a folder or s3:// prefix."),
    Flag("output.release", "--release", str, "The release's name; another name has other draws and pseudonyms."),
    Flag("workspace.uri", "--workspace", str, "Where personal data stays until it is purged; not in the output."),
    Flag(
        "method.name",
        "--method",
        str,
        "k-diff, k-same, dp-laplace, dp-vmf, dp-purkayastha, dp-uniform, sampling, surrogate, embedding, inswapper, "
        "solid, blur, pixelate.",
    ),
    Flag("method.k", "--k", int, "The least number of people that share one new face."),
    Flag("method.texture", "--texture", str, "How a new face is made: average, linear, bank or ksame-net."),
    Flag("method.decoder", "--decoder", str, "The decoder file that `anonlib fit-decoder` wrote."),
    Flag("method.epsilon", "--epsilon", float, "Of dp-laplace (a release) and dp-purkayastha (a radian)."),
    Flag("method.kappa", "--kappa", float, "Of dp-vmf, a unit of Euclidean distance."),
    Flag("method.own_angle", "--own-angle", float, "Degrees between a sampled identity and its subject."),
    Flag("method.other_angle", "--other-angle", float, "Degrees between a sampled identity and everybody else."),
    Flag("method.draw", "--draw", str, "fresh, or reuse: a person keeps the face of an earlier release."),
    Flag(
        "method.accept", "--accept", str, "Of embedding: that people can still recognize these faces, in these words."
    ),
    Flag("method.swapper", "--swapper", str, "Of inswapper: your swapper's .onnx file."),
    Flag("method.recognizer", "--recognizer", str, "Of inswapper: the ArcFace .onnx that the swapper was made for."),
    Flag("method.donors", "--donors", str, "Of inswapper: photos of people who agreed to lend their faces."),
    Flag("detector.name", "--detector", str, "Which network finds faces: centerface."),
    Flag("detector.side", "--detector-side", int, "The longer side of an image during detection, in px."),
    Flag("detector.score", "--detector-score", float, "The least score of a face, between 0 and 1."),
    Flag("detector.precision", "--detector-precision", str, "f32, or bf16: twice as fast on a CPU that has it."),
    Flag("keep_fields", "--keep-field", list[str], "A field of the sidecars to keep; repeat it. All others go."),
    Flag("rekey", "--rekey/--no-rekey", bool, "Give every image a new key."),
    Flag("jpeg_quality", "--jpeg-quality", int, "Quality of written JPEGs, 50 to 100."),
    Flag("limits.image_mpx", "--max-mpx", float, "Larger images are quarantined unread, in megapixels."),
    Flag("limits.image_mib", "--max-mib", float, "Larger files are quarantined unread, in MiB."),
    Flag("limits.image_seconds", "--max-seconds", float, "Seconds that decoding an image may take."),
    Flag("limits.chunk", "--chunk", int, "Images that are held and worked on together."),
    Flag("limits.memory_mib", "--memory-mib", float, "Photos that a worker holds at once, in MiB."),
    Flag("secret.env", "--secret-env", str, "The environment variable that holds the job's secret."),
    Flag("secret.file", "--secret-file", str, "The file that holds the job's secret."),
    Flag("secret.manager", "--secret-manager", str, "The secret's name or ARN in AWS Secrets Manager."),
    Flag("secret.kms", "--secret-kms", str, "The file, local or s3://, that AWS KMS opens to the secret."),
    Flag("secret.field", "--secret-field", str, "The entry that holds it, if Secrets Manager has JSON there."),
    Flag("secret.version", "--secret-version", str, "The id of the version that Secrets Manager gives."),
    Flag("secret.profile", "--secret-profile", str, "The AWS profile for the secret, if the store needs another."),
    Flag("signing.env", "--signing-env", str, "The environment variable with the secret that signs, if not the job's."),
    Flag("signing.file", "--signing-file", str, "The file with the secret that signs."),
    Flag("signing.manager", "--signing-manager", str, "Its name or ARN in AWS Secrets Manager."),
    Flag("signing.kms", "--signing-kms", str, "The file, local or s3://, that AWS KMS opens to it."),
    Flag("signing.field", "--signing-field", str, "The entry that holds it, if Secrets Manager has JSON there."),
    Flag("signing.version", "--signing-version", str, "The id of its version in Secrets Manager."),
    Flag("signing.profile", "--signing-profile", str, "The AWS profile for it."),
    Flag("ledger.uri", "--ledger", str, "The place that remembers people over releases; not in the workspace."),
    Flag("ledger.budget", "--budget", float, "The most epsilon that one person may spend over all releases."),
    Flag("ledger.absences", "--absences", str, "known, or unknown: nobody can know whose photos a dataset lacks."),
    Flag("ray.actors", "--actors", int, "Workers; 0 runs in this process without Ray, default as many as fit."),
    Flag("ray.num_gpus", "--num-gpus", float, "GPUs for each worker; a part of one is allowed."),
    Flag("ray.shards", "--shards", int, "Shards that a worker works on at once; default 1, with a GPU 4."),
    Flag("ray.wait_s", "--ray-wait", float, "Seconds that a cluster may take until it has room for all workers."),
    Flag("ray.address", "--ray-address", str, "The Ray cluster to use; started on this machine if not given."),
    Flag("ray.price.cpu_hour", "--cpu-hour", float, "What an hour of one CPU costs, to estimate what a run does."),
    Flag("ray.price.gpu_hour", "--gpu-hour", float, "What an hour of one GPU costs."),
    Flag("storage.endpoint_url", "--endpoint-url", str, "An S3 server that is not AWS."),
    Flag("storage.region", "--region", str, "The region of the buckets."),
    Flag("policy.excess", "--policy-excess", float, "How much more than a flat ellipse a face may give away, 0 to 1."),
    Flag("policy.missed", "--policy-missed", float, "The share of images that may have an overlooked face, 0 to 1."),
    Flag("policy.reviewed", "--policy-reviewed", int, "How many images a person must have judged."),
    Flag("policy.reviewed_upper", "--policy-reviewed-upper", float, "The bound that those must reach, 0 to 1."),
    Flag("policy.promised", "--promise-audit/--no-promise-audit", bool, "Say in the release that it is audited."),
    Flag(
        "accept_licences", "--accept-licence", list[str], "A model whose non-commercial licence you accept; repeat it."
    ),
)


@dataclass(frozen=True)
class Given:
    """What the command line says about the job: a file, flags, both or neither."""

    file: Path | None
    overrides: dict[str, Any]

    def __bool__(self) -> bool:
        return self.file is not None or bool(self.overrides)

    def config(self) -> JobConfig:
        """The job, flags over file; raises ConfigError."""
        from anonlib.config import load_config

        return load_config(self.file, self.overrides)


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument JOB and all FLAGS; it gets them as `given`, and ends in a sentence if it fails."""
    asked = inspect.signature(command, eval_str=True).parameters.values()
    own = [_parameter(one.name, one.annotation, one.default) for one in asked if one.name != "given"]

    def wrapped(**values: Any) -> None:
        from anonlib.terminal import guarded

        flags = {flag.key: values.pop(flag.parameter) for flag in FLAGS}
        overrides = {key: value for key, value in flags.items() if value is not None and value != []}
        given, print_only = Given(values.pop("job"), overrides), values.pop("print_config")
        with guarded():
            if print_only:
                typer.echo(given.config().to_yaml(), nl=False)
            else:
                command(given=given, **values)

    job = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
    print_config = Annotated[bool, typer.Option("--print-config", help="Print the job as it would run, and stop.")]
    parameters = [_parameter("job", job), *map(_of_flag, FLAGS), *own, _parameter("print_config", print_config, False)]
    wrapped.__name__, wrapped.__doc__, wrapped.__annotations__ = command.__name__, command.__doc__, {}
    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)
    return wrapped


def _of_flag(flag: Flag) -> inspect.Parameter:
    option = typer.Option(flag.names, help=flag.help, show_default=False, rich_help_panel="Keys of the job file")
    return _parameter(flag.parameter, Annotated[flag.type | None, option])


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
