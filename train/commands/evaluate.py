"""`python -m train evaluate RUN`: loss and accuracy of the network of a run."""

from train.commands.options import Evaluate
from train.runs import restored
from train.training import plan
from train.training.loop import compile_evaluation, loss_and_accuracy


def evaluate(options: Evaluate) -> None:
    """Restore the network, and print its loss and accuracy on each set.

    Raises:
        UsageError: the run does not exist, or has no intact checkpoint of this kind.

    """
    run = restored.restore(options.run, options.runs_dir, best=options.checkpoint == "best")
    dataset = restored.load_data(run, options.data_dir)
    print(f"{run.folder}, step {int(run.state.step):,}")
    splits = plan.splits(dataset, run.config.data.validation)
    for name, data in splits._asdict().items():
        if data is not None and name != "train":
            loss, accuracy = loss_and_accuracy(compile_evaluation(run.model, run.state, data), run.state, data)
            count = data.labels.size
            print(f"{name} accuracy {accuracy:.2%} ({round(accuracy * count):,} of {count:,} right, loss {loss:.4f})")
