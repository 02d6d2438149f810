"""The optimizer, with a learning rate that follows a schedule."""

import optax

import jaxbn
from train.config.sections import OptimizerConfig

ONE_CYCLE_LEAST = 5  # steps: Optax's schedule needs this many to rise and fall


def optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimizer of a configuration for a run of this many steps, including clipping."""
    rate = schedule(config, total_steps)
    match config.optimizer:
        case "sgd":
            update = optax.sgd(rate)
        case "momentum":
            update = optax.sgd(rate, momentum=config.sgd_momentum)
        case "adam":
            update = optax.adam(rate, eps=config.adam_epsilon)
        case "adamw":
            update = optax.adamw(rate, eps=config.adam_epsilon, weight_decay=config.weight_decay, mask=jaxbn.decay_mask)
    clips = []
    if config.clip_value is not None:
        clips.append(optax.clip(config.clip_value))
    if config.clip_norm is not None:
        clips.append(optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*clips, update) if clips else update


def schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of each step."""
    match config.schedule:
        case "constant":
            return optax.constant_schedule(config.learning_rate)
        case "cosine":
            return optax.cosine_decay_schedule(config.learning_rate, total_steps)
        case "one-cycle":
            steps = max(total_steps, ONE_CYCLE_LEAST)
            return optax.cosine_onecycle_schedule(steps, config.learning_rate, pct_start=0.2)
        case "warmup-cosine":
            # The first step already has a rate above 0.
            up = max(round(config.warmup * total_steps), 1)
            rise = optax.linear_schedule(config.learning_rate / up, config.learning_rate, max(up - 1, 1))
            fall = optax.cosine_decay_schedule(config.learning_rate, max(total_steps - up, 1))
            return optax.join_schedules([rise, fall], [up])
