"""Conversion and batch prediction on Apache Beam: the extra `.[beam]`."""
