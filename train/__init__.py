"""Training with jaxbn: data, models, loop and studies behind `python -m train`."""
