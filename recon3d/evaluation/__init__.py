"""The one protocol by which every method is measured."""
