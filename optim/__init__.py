"""DistilBERT-Optim: prune, distil, quantize and measure small text classifiers."""

__version__ = "0.1.0"
