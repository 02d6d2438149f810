"""The options of a run: frozen dataclasses, from which the command line, its help and config.json follow."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from train.config.datasets import DATASETS
from train.config.presets import RECORDS

if TYPE_CHECKING:  # type checkers do not read names from tables
    DatasetName = str
    Preset = str
else:
    DatasetName = Literal[("auto", *DATASETS)]
    Preset = Literal[tuple(RECORDS)]
Network = Literal["auto", "cnn", "mlp"]
Placement = Literal["before", "after", "none"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Padding = Literal["valid", "same"]
KernelInit = Literal["lecun", "he", "glorot", "normal"]
Precision = Literal["float32", "bfloat16"]
Average = Literal["constant", "cumulative", "debiased"]
Renorm = Literal["off", "constant", "ramp"]
Scope = Literal["global", "device"]
Optimizer = Literal["sgd", "momentum", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "one-cycle", "warmup-cosine"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data."""

    dataset: DatasetName = "auto"
    """auto: MNIST if it is on disk or can be downloaded, else scikit-learn's digits, said in one line."""
    data_dir: Path | None = None
    """Folder with the dataset's own files; nothing is downloaded then. mnist, fashion_mnist: four in IDX form (gzipped
    or not), also as torchvision and Kaggle leave them; cifar10: cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or
    what is in them, also as Keras names them or pickled again."""
    validation: float = 0.0
    """Fraction of the training set held out for model selection, so that the test set stays untouched; the same
    examples for every seed. The best epoch's checkpoint and --patience go by it."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Network."""

    network: Network = "auto"
    """cnn: convolutions, each with norm and pooling, then a hidden layer; mlp: hidden layers, each with norm; auto: cnn
    for images, mlp for tables."""
    channels: tuple[int, ...] | None = None
    """Features of each convolution of a cnn; none: 32 64."""
    hidden: tuple[int, ...] | None = None
    """Features of each hidden layer; none: 256 for a cnn, which has one, and 512 512 for an mlp."""
    pool_every: int = 1
    """A cnn pools after every so many convolutions."""
    padding: Padding = "valid"
    """Of a cnn's convolutions. valid: none, and each takes 2 from each side; same: zeros around the image."""
    norm_placement: Placement = "before"
    """The norm's place: before the activation, after it, or none: no norm anywhere, of the inputs neither."""
    norm_input: bool = False
    """The inputs are normalised, too."""
    norm_hidden: bool = False
    """The hidden layer of a cnn has norm and activation, too, as those of an mlp have; else neither."""
    activation: tuple[Activation, ...] = ("relu",)
    """What follows each convolution of a cnn, and each hidden layer of an mlp: one for all, or one for each."""
    dropout: float = 0.0
    """Share of the hidden layers' features that is set to 0 in training."""
    kernel_init: KernelInit = "lecun"
    """Initial kernels. lecun, he: normal, of variance 1/n or 2/n for n inputs; glorot: uniform, of variance
    2/(inputs + outputs), as Keras has it, and with he the last layer has it, too; normal: of standard deviation
    --kernel-std."""
    kernel_std: float = 0.01
    """The standard deviation of --kernel-init normal."""
    precision: Precision = "float32"
    """What layers compute in; parameters, statistics and the loss are float32 in any case."""


@dataclasses.dataclass(frozen=True)
class NormConfig:
    """Batch normalization."""

    norm_momentum: float = 0.9
    """Weight kept by the old running statistic at each step."""
    norm_epsilon: float = 1e-5
    """Added to the variance under the root."""
    norm_average: Average = "constant"
    """How the running statistics follow. constant: with --norm-momentum; debiased: the same, exact from the first step
    on; cumulative: all batches weigh the same."""
    norm_unbiased: bool = False
    """The running variance takes the estimate by n - 1, as in PyTorch."""
    norm_ghost_batch: int | None = None
    """Statistics of every so many examples for themselves; must divide the batch."""
    norm_renorm: Renorm = "off"
    """Batch renormalization. constant: with these bounds from the start; ramp: as in the paper, plain for the first
    1/32 of the steps, then bounds that widen until 5/32 (d) and 1/4 (r) of them."""
    norm_r_max: float = 3.0
    """The bound of renormalization's factor."""
    norm_d_max: float = 5.0
    """The bound of renormalization's shift."""
    norm_scope: Scope = "global"
    """global: statistics of the whole batch, whatever the devices; device: each normalises its examples for itself."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimisation."""

    epochs: float | None = None
    """Passes over the training set, 0.5 for half of one; none: what suits the dataset ({each})."""
    batch_size: int | None = None
    """Examples per step; none: what suits the dataset ({each}). The last examples of each shuffled epoch that
    fill no batch are dropped."""
    optimizer: Optimizer = "adamw"
    """momentum is sgd with --sgd-momentum; adamw is adam with --weight-decay."""
    learning_rate: float = 1.5e-2
    """The highest learning rate of the schedule."""
    schedule: Schedule = "one-cycle"
    """one-cycle: up over the first fifth, then down to almost 0; cosine: down from the start; warmup-cosine: up from 0
    over the share --warmup, then down to 0."""
    warmup: float = 0.1
    """Share of the steps in which warmup-cosine goes up."""
    sgd_momentum: float = 0.9
    """Share of the last update that goes into the next."""
    adam_epsilon: float = 1e-8
    """Added to the root of Adam's second moment."""
    weight_decay: float = 0.1
    """adamw: what the weights lose at each step, times the learning rate; the norms' scale and bias lose
    nothing."""
    clip_norm: float | None = None
    """Clip the gradients to this global l2 norm."""
    clip_value: float | None = None
    """Clip each gradient entry to ± this value (before --clip-norm)."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes. The losses that are reported are without it."""


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """Devices. A batch is divided among them; the results are those of one."""

    devices: int | None = None
    """How many of the devices; of each process if there are several. none: all."""
    distributed: bool = False
    """Several processes train together, each started with the same command. Under SLURM, Open MPI and Kubernetes and on
    TPU pods they find each other."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where nothing says so."""
    num_processes: int | None = None
    """How many processes there are, where nothing says so."""
    process_id: int | None = None
    """The number of this one, from 0."""
    process_timeout: int = 30
    """Seconds without a sign of life after which a process is taken for dead, and the others stop."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Results, checkpoints and the seed."""

    runs_dir: Path = Path("runs")
    """Folder that holds one folder per run."""
    name: str | None = None
    """Name of the run's folder; none: dataset and time."""
    overwrite: bool = False
    """Replace the results of an earlier run of the same name."""
    seed: int = 0
    """The same seed repeats a run bit for bit on the same machine."""
    config: Path | None = None
    """A config.json to begin with instead of a preset; options on the command line win."""
    resume: Path | None = None
    """Folder (or name) of a stopped run: goes on from its newest intact checkpoint, bit for bit as if it had never been
    stopped."""
    checkpoint_minutes: float | None = 5.0
    """A checkpoint after so many minutes, also within an epoch; none: not by the clock. One is written at the end in
    any case, and on Ctrl-C and SIGTERM."""
    checkpoint_epochs: int | None = None
    """A checkpoint after every so many epochs."""
    keep_checkpoints: int = 2
    """How many of the newest intact checkpoints stay. The one of the best validation accuracy is kept apart."""
    patience: int | None = None
    """Stop after so many epochs in a row without a better validation accuracy."""
    tensorboard: bool = False
    """Write TensorBoard files, too."""
    profile: bool = False
    """Write a trace of a few steps, for TensorBoard's or Perfetto's viewer."""
    no_report: bool = False
    """Leave out confusion.png, mistakes.png and report.html, which take a few seconds at the end."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains a network with batch normalization and writes the results to RUNS_DIR/NAME."""

    preset: Preset = "default"
    """Starting values for all other options. default: reaches 99% on MNIST in one epoch; the others are the networks of
    tutorials: `python -m train presets` lists them, with what to expect of each."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    norm: NormConfig = NormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    devices: DeviceConfig = DeviceConfig()


def with_options(config: Config, **options: Any) -> Config:  # noqa: ANN401  (of any option)
    """A configuration with other values of some options, by their names, in whichever section they are.

    Example:
        >>> with_options(Config(), epochs=3, seed=7).optimizer.epochs
        3

    """
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        if dataclasses.is_dataclass(part):
            given = {field.name: options.pop(field.name) for field in dataclasses.fields(part) if field.name in options}
            config = dataclasses.replace(config, **{section.name: dataclasses.replace(part, **given)})  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(config, **options)


PRESETS: dict[Preset, Config] = {
    name: with_options(Config(), preset=name, **record.options) for name, record in RECORDS.items()
}
