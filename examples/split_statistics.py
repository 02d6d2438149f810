"""Several sets of running statistics: one for each domain (AdvProp, domain-specific norms) or each split (SplitBN).

    python examples/split_statistics.py

Clean and adversarial images, or photos and drawings, differ in their statistics. Normalised together, both are
normalised by a mixture. A state is a value, so several can be a list, a dict, or one state with a leading axis.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxbn

DOMAINS, ROWS, FEATURES, STEPS = 3, 64, 4, 30
MOMENTUM = jaxbn.debiased(0.9)  # exact from a domain's first batch on, however rare the domain is


def one_domain(
    params: jaxbn.BatchNormParams, states: jaxbn.BatchNormState, x: jax.Array, domain: jax.Array, train: bool
) -> tuple[jax.Array, jaxbn.BatchNormState]:
    """A batch of one domain, whose number may be traced: γ and β are shared, the statistics are its own."""
    y, state = jaxbn.batch_norm(params, jax.tree.map(lambda leaf: leaf[domain], states), x, train, momentum=MOMENTUM)
    return y, jax.tree.map(lambda leaves, leaf: leaves.at[domain].set(leaf), states, state)


def mixed_batch(
    params: jaxbn.BatchNormParams, states: jaxbn.BatchNormState, x: jax.Array, domains: jax.Array, train: bool
) -> tuple[jax.Array, jaxbn.BatchNormState]:
    """A batch with rows of several domains: each domain is normalised with a mask of its own rows."""

    def normalised(state: jaxbn.BatchNormState, domain: jax.Array) -> tuple[jax.Array, jaxbn.BatchNormState]:
        return jaxbn.batch_norm(params, state, x, train, momentum=MOMENTUM, mask=(domains == domain)[:, None])

    ys, states = jax.vmap(normalised)(states, jnp.arange(DOMAINS))
    return ys[domains, jnp.arange(len(x))], states  # each row as normalised by its own domain


def split_batch(
    params: jaxbn.BatchNormParams, states: jaxbn.BatchNormState, x: jax.Array
) -> tuple[jax.Array, jaxbn.BatchNormState]:
    """SplitBN in training: the batch is split into equal parts, each with its own norm; evaluation uses the first."""
    parts = x.reshape(DOMAINS, -1, FEATURES)
    y, states = jax.vmap(lambda state, part: jaxbn.batch_norm(params, state, part, True, momentum=MOMENTUM))(
        states, parts
    )
    return y.reshape(x.shape), states


def main() -> None:
    """Train on three domains with different means and deviations, and evaluate each with its own statistics."""
    params, state = jaxbn.init(FEATURES)
    fresh = jax.tree.map(lambda leaf: jnp.stack([leaf] * DOMAINS), state)
    means, deviations = np.array([0.0, 5.0, -20.0]), np.array([1.0, 3.0, 0.5])
    random = np.random.default_rng(0)

    def rows(domains: np.ndarray) -> jax.Array:
        normal = random.normal(size=(len(domains), FEATURES))
        return jnp.asarray(means[domains, None] + deviations[domains, None] * normal, jnp.float32)

    train_one = jax.jit(lambda states, x, domain: one_domain(params, states, x, domain, True)[1])
    train_mixed = jax.jit(lambda states, x, domains: mixed_batch(params, states, x, domains, True)[1])
    train_split = jax.jit(lambda states, x: split_batch(params, states, x)[1])
    alternating = mixed = split = fresh
    in_parts = np.repeat(np.arange(DOMAINS), ROWS)
    for step in range(STEPS):
        domain = step % DOMAINS
        alternating = train_one(alternating, rows(np.full(ROWS, domain)), domain)
        domains = random.integers(DOMAINS, size=ROWS)
        mixed = train_mixed(mixed, rows(domains), domains)
        split = train_split(split, rows(in_parts))

    test = rows(in_parts)
    y, _ = mixed_batch(params, mixed, test, jnp.asarray(in_parts), train=False)
    for domain in range(DOMAINS):
        own = y[in_parts == domain]
        assert abs(float(own.mean())) < 0.3
        assert abs(float(own.std()) - 1) < 0.3
        alone, _ = one_domain(params, mixed, test[in_parts == domain], jnp.asarray(domain), train=False)
        np.testing.assert_allclose(alone, own, rtol=1e-5, atol=1e-5)
    print(f"running means of the domains, trained in mixed batches: {mixed.mean.mean(1).round(1)}")
    print(f"in turns: {alternating.mean.mean(1).round(1)}; by the parts of a batch: {split.mean.mean(1).round(1)}")
    for states in (alternating, mixed, split):
        np.testing.assert_allclose(states.mean.mean(1), means, atol=0.5)
    assert (alternating.count == STEPS // DOMAINS).all()

    _, single = jaxbn.batch_norm(params, state, test, True, momentum=0.0)
    y, _ = jaxbn.batch_norm(params, single, test[in_parts == 0], False)
    assert abs(float(y.mean())) > 0.3
    print(f"with one set for all, the first domain has mean {y.mean():.2f} and deviation {y.std():.2f} behind the norm")


if __name__ == "__main__":
    main()
