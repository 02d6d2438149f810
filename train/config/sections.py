"""The options of a run: frozen dataclasses that define the command line, its help and config.json."""

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
Placement = Literal["before", "after", "pooled", "none"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Padding = Literal["valid", "same"]
KernelInit = Literal["lecun", "he", "glorot", "normal"]
Precision = Literal["float32", "bfloat16"]
Deslant = Literal["auto", "on", "off"]
Average = Literal["constant", "cumulative", "debiased"]
Renorm = Literal["off", "constant", "ramp"]
Scope = Literal["global", "device"]
Optimizer = Literal["sgd", "momentum", "adam", "adamw"]
Schedule = Literal["constant", "cosine", "one-cycle", "warmup-cosine"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data."""

    dataset: DatasetName = "auto"
    """auto: MNIST if available on disk or by download, otherwise scikit-learn's digits, with a note."""
    data_dir: Path | None = None
    """Folder with the dataset's own files; then nothing is downloaded. mnist, fashion_mnist: four IDX files (gzipped
    or not), also in the folders of torchvision and Kaggle; cifar10: cifar-10-binary.tar.gz, cifar-10-python.tar.gz or
    their files, also as Keras names them or pickled again."""
    validation: float = 0.0
    """Fraction of the training set held out for model selection, so that the test set stays untouched. The examples are
    the same for every seed. They decide the best epoch's checkpoint and --patience."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Network."""

    network: Network = "auto"
    """cnn: convolutions with norm and pooling, then a hidden layer; mlp: hidden layers with norm; auto: cnn for images,
    mlp for tables."""
    channels: tuple[int, ...] | None = None
    """Features of each convolution of a cnn; none: by dataset ({each})."""
    hidden: tuple[int, ...] | None = None
    """Features of each hidden layer; none: 256 for a cnn, which has one, and 512 512 for an mlp."""
    pool_every: int = 1
    """Number of convolutions of a cnn from one pooling to the next."""
    padding: Padding = "valid"
    """Padding of a cnn's convolutions. valid: none, and each shrinks the image by 2; same: zeros around the image."""
    deslant: Deslant = "auto"
    """Shear each image so that handwriting stands upright; for light strokes on black. auto: by dataset ({each})."""
    crop: int | None = None
    """Pixels cut off at each side of the images; none: by dataset ({each})."""
    shift: int | None = None
    """Pixels by which each training image is moved at most, at random, along both axes; none: by dataset ({each})."""
    norm_placement: Placement = "before"
    """Norm before or after the activation; pooled: before it, and after the pooling of a cnn; none: no norm at all, not
    even of the inputs."""
    norm_input: bool = False
    """Also normalize the inputs."""
    norm_hidden: bool = True
    """Give the hidden layer of a cnn a norm and an activation; in an mlp, every hidden layer has both."""
    activation: tuple[Activation, ...] = ("relu",)
    """Activation after each convolution of a cnn and each hidden layer of an mlp: one for all, or one for each."""
    dropout: float = 0.0
    """Dropout rate of the hidden layers."""
    kernel_init: KernelInit = "lecun"
    """Initial kernels. lecun, he: normal with variance 1/n or 2/n for n inputs; glorot: uniform with variance
    2/(inputs + outputs), as in Keras (with he, the last layer uses it); normal: with the standard deviation
    --kernel-std."""
    kernel_std: float = 0.01
    """Standard deviation of --kernel-init normal."""
    precision: Precision = "float32"
    """Computing dtype of the layers; parameters, statistics and the loss are always float32."""


@dataclasses.dataclass(frozen=True)
class NormConfig:
    """Batch normalization."""

    norm_momentum: float = 0.9
    """Weight of the old running statistics in each update."""
    norm_epsilon: float = 1e-5
    """Added to the variance before its square root is taken."""
    norm_average: Average = "constant"
    """Average of the running statistics. constant: exponential, with --norm-momentum; debiased: the same without the
    bias of the initial values; cumulative: all batches weigh the same."""
    norm_unbiased: bool = False
    """Use the unbiased estimate (by n - 1) for the running variance, as in PyTorch."""
    norm_ghost_batch: int | None = None
    """Ghost batches: normalize groups of this many examples separately; must divide the batch."""
    norm_renorm: Renorm = "off"
    """Batch renormalization. constant: with the bounds below from the start; ramp: as in the paper, off for the first
    1/32 of the steps, then with bounds that widen until 5/32 (d) and 1/4 (r) of the steps."""
    norm_r_max: float = 3.0
    """Bound of the renormalization factor."""
    norm_d_max: float = 5.0
    """Bound of the renormalization shift."""
    norm_scope: Scope = "global"
    """global: statistics of the whole batch on any number of devices; device: each device normalizes its own
    examples."""
    norm_scale: bool = True
    """Learn a scale; otherwise it is 1."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimization."""

    epochs: float | None = None
    """Passes over the training set, 0.5 for half of one; none: by dataset ({each})."""
    batch_size: int | None = None
    """Examples per step; none: by dataset ({each}). An incomplete batch at the end of each shuffled epoch is
    dropped."""
    optimizer: Optimizer = "adamw"
    """momentum: sgd with --sgd-momentum; adamw: adam with --weight-decay."""
    learning_rate: float = 1.5e-2
    """Highest learning rate of the schedule."""
    schedule: Schedule = "one-cycle"
    """one-cycle: up during the first fifth of the steps, then down to almost 0; cosine: down from the start;
    warmup-cosine: up from 0 during the fraction --warmup, then down to 0."""
    warmup: float = 0.1
    """Fraction of the steps in which warmup-cosine rises."""
    sgd_momentum: float = 0.9
    """Fraction of the last update that is added to the next."""
    adam_epsilon: float = 1e-8
    """Added to the square root of Adam's second moment."""
    weight_decay: float = 0.1
    """Weight decay of adamw, times the learning rate at each step; the norms' scale and bias are exempt."""
    clip_norm: float | None = None
    """Clip the gradients to this global L2 norm."""
    clip_value: float | None = None
    """Clip each gradient entry to ± this value (before --clip-norm)."""
    label_smoothing: float = 0.1
    """Fraction of the target spread over all classes. The reported losses are without it."""


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """Devices, which share each batch; the results are those of one device."""

    devices: int | None = None
    """Number of devices, per process if there are several. none: all."""
    distributed: bool = False
    """Train in several processes, each started with the same command. Under SLURM, Open MPI and Kubernetes and on TPU
    pods they find each other."""
    coordinator: str | None = None
    """HOST:PORT of process 0, if it is not found automatically."""
    num_processes: int | None = None
    """Number of processes, if it is not found automatically."""
    process_id: int | None = None
    """Index of this process, from 0."""
    process_timeout: int = 30
    """Seconds without a sign of life after which a process counts as dead and the others stop."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Results, checkpoints and the seed."""

    runs_dir: Path = Path("runs")
    """Folder that holds one folder per run."""
    name: str | None = None
    """Name of the run's folder; none: dataset and time."""
    overwrite: bool = False
    """Replace an earlier run of the same name."""
    seed: int = 0
    """The same seed repeats a run bit for bit on the same machine."""
    config: Path | None = None
    """A config.json with starting values for all other options, instead of a preset."""
    resume: Path | None = None
    """Folder (or name) of a stopped run, to continue from its newest intact checkpoint, bit for bit as if it had never
    stopped."""
    checkpoint_minutes: float | None = 5.0
    """Minutes between checkpoints, also within an epoch. none: not by the clock. The end of a run, Ctrl-C and SIGTERM
    always write one."""
    checkpoint_epochs: int | None = None
    """Epochs between checkpoints."""
    keep_checkpoints: int = 2
    """Number of newest intact checkpoints to keep. The best epoch's checkpoint is saved separately."""
    patience: int | None = None
    """Stop early, after this many epochs in a row without a better validation accuracy."""
    tensorboard: bool = False
    """Also write TensorBoard files."""
    profile: bool = False
    """Write a trace of a few steps for TensorBoard or Perfetto."""
    no_report: bool = False
    """Skip confusion.png, mistakes.png and report.html, which take a few seconds at the end."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a network with batch normalization, and write the results to RUNS_DIR/NAME."""

    preset: Preset = "default"
    """Starting values for all other options. default: reaches 99% on MNIST in half an epoch; the others are
    networks of tutorials. `python -m train presets` lists them with their results."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    norm: NormConfig = NormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    devices: DeviceConfig = DeviceConfig()


def with_options(config: Config, **options: Any) -> Config:  # noqa: ANN401  (of any option)
    """Return a configuration with other values of some options, given by name whatever their section.

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
